"""word2vec: a vector for every word such that words of like company lie close (Mikolov et al. 2013a, 2013b).

Skip-gram predicts the words around a word, CBOW the word from the mean of those around it; both tell a true neighbour from
noise words: negative sampling, Mikolov et al. 2013b, Eq. 4:

    -log s(v_context . u_word) - sum over k noise words n of log s(-v_n . u_word)

What differs from the reference word2vec.c: the words of a row of consecutive text share one set of noise words, each counting
k / (their number) times (Ji et al. 2016), so that all scores of a row are one matrix product and the gradient two more. The
gradient is written by hand; a noise word that happens to be the true word is not skipped, as Eq. 4 has it.

R rows, C centres in a row, W words at each side, L = C + 2W, S shared noise words, D width of the vectors.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Word2Vec(nn.Module):
    """`inputs` (words, D) are the vectors to use; `outputs` (words, D) score them while training."""

    def __init__(self, words: int, width: int, window: int, kind: Literal["skipgram", "cbow"] = "skipgram", noise: int = 5):
        super().__init__()
        if kind not in ("skipgram", "cbow"):
            raise ValueError(f"kind={kind} is neither skipgram nor cbow")
        self.kind, self.window, self.noise = kind, window, noise
        self.inputs = nn.Embedding(words, width, _weight=(torch.rand(words, width) - 0.5) / width)
        self.outputs = nn.Embedding(words, width, _weight=torch.zeros(words, width))  # both as word2vec.c starts

    def forward(self, words: Tensor, left: Tensor, right: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """words (R, L), left and right (R, C), noise (R, S) -> the sum of Eq. 4 over examples, and how many there are.

        An example is a pair of words (skip-gram) or a word with its window (CBOW). Row i of `left` says how many words before
        the centre count, `right` how many after it.
        """
        near = neighbours(left, right, self.window)
        if self.kind == "skipgram":
            centres = words[:, self.window : words.shape[1] - self.window]
            loss = _SkipGram.apply(self.inputs.weight, self.outputs.weight, centres, words, noise, near, self.noise)
            return loss, left.sum() + right.sum()  # type: ignore[return-value]
        loss = _CBOW.apply(self.inputs.weight, self.outputs.weight, words, noise, near, self.noise, self.window)
        return loss, ((left + right) > 0).sum()  # type: ignore[return-value]

    def vectors(self) -> Tensor:
        """(words, D): what a word means."""
        return self.inputs.weight.detach()


def neighbours(left: Tensor, right: Tensor, window: int) -> Tensor:
    """(R, C, L) bool: whether word l of a row counts for centre c, which is word c + window."""
    count = left.shape[1]
    places = torch.arange(count + 2 * window, device=left.device) - torch.arange(count, device=left.device)[:, None] - window
    places = places.to(torch.int8)  # (C, L): how far word l is from centre c
    after = places.clamp(min=0).to(torch.uint8) - 1  # 255 where l is not after c: uint8 wraps around
    before = (-places).clamp(min=0).to(torch.uint8) - 1
    return (after < right[:, :, None]) | (before < left[:, :, None])


class _SkipGram(torch.autograd.Function):
    """sum over pairs (c, l) of -log s(v_l . u_c), and for every pair of c, k times the mean of -log s(-v_n . u_c)."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, outputs: Tensor, centres: Tensor, words: Tensor, noise: Tensor, near: Tensor, k: int
    ) -> Tensor:
        ids = torch.cat([words, noise], 1)  # (R, L + S)
        u = nn.functional.embedding(centres, inputs)  # (R, C, D)
        v = nn.functional.embedding(ids, outputs)  # (R, L + S, D)
        scores = torch.bmm(u, v.mT)  # (R, C, L + S)
        true, fake = scores.split([words.shape[1], noise.shape[1]], 2)
        pairs = near.sum(2, keepdim=True, dtype=u.dtype)
        share = pairs * (k / noise.shape[1])  # (R, C, 1)
        loss = (nn.functional.softplus(-true) * near).sum() + (nn.functional.softplus(fake) * share).sum()
        ctx.save_for_backward(centres, ids, near, share, scores, u, v)
        ctx.words = len(inputs)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        centres, ids, near, share, scores, u, v = ctx.saved_tensors
        slope = scores.sigmoid_()  # of softplus; the scores are not needed again
        true, fake = slope.split([near.shape[2], ids.shape[1] - near.shape[2]], 2)
        true.sub_(1).mul_(near)
        fake.mul_(share)
        slope.mul_(grads[0])
        to_inputs = scatter(torch.bmm(slope, v), centres, ctx.words)
        to_outputs = scatter(torch.bmm(slope.mT, u), ids, ctx.words)
        return to_inputs, to_outputs, None, None, None, None, None


class _CBOW(torch.autograd.Function):
    """As skip-gram, but the word in the middle is scored by the mean of its neighbours' vectors h_c, once."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, outputs: Tensor, words: Tensor, noise: Tensor, near: Tensor, k: int, window: int
    ) -> Tensor:
        centres = words[:, window : words.shape[1] - window]
        u = nn.functional.embedding(words, inputs)  # (R, L, D)
        v = nn.functional.embedding(centres, outputs)  # (R, C, D)
        n = nn.functional.embedding(noise, outputs)  # (R, S, D)
        mean = near.to(u.dtype)  # (R, C, L)
        mean = mean / mean.sum(2, keepdim=True).clamp(min=1)
        h = torch.bmm(mean, u)  # (R, C, D)
        some = near.any(2, keepdim=True).to(u.dtype)  # (R, C, 1): a word alone in its sentence teaches nothing
        true = (h * v).sum(2, keepdim=True)  # (R, C, 1)
        fake = torch.bmm(h, n.mT)  # (R, C, S)
        share = some * (k / noise.shape[1])
        loss = (nn.functional.softplus(-true) * some).sum() + (nn.functional.softplus(fake) * share).sum()
        ctx.save_for_backward(words, centres, noise, mean, some, share, true, fake, h, v, n)
        ctx.words = len(inputs)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        words, centres, noise, mean, some, share, true, fake, h, v, n = ctx.saved_tensors
        up = (true.sigmoid() - 1) * some * grads[0]  # (R, C, 1)
        down = fake.sigmoid() * share * grads[0]  # (R, C, S)
        to_h = torch.baddbmm(up * v, down, n)
        to_inputs = scatter(torch.bmm(mean.mT, to_h), words, ctx.words)
        to_outputs = scatter(up * h, centres, ctx.words)
        scatter(torch.bmm(down.mT, h), noise, ctx.words, to_outputs)
        return to_inputs, to_outputs, None, None, None, None, None


def scatter(rows: Tensor, ids: Tensor, words: int, onto: Tensor | None = None) -> Tensor:
    """(words, D): the rows (..., D) added up by word."""
    if onto is None:
        onto = rows.new_zeros(words, rows.shape[-1])
    return onto.index_add_(0, ids.reshape(-1), rows.reshape(-1, rows.shape[-1]))
