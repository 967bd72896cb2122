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

from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding


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
        inputs, outputs = self.inputs.weight, self.outputs.weight
        near = neighbours(left, right, self.window, inputs.dtype)
        centres = words[:, self.window : words.shape[1] - self.window]
        if self.kind == "skipgram":
            return _SkipGram.apply(inputs, outputs, centres, words, noise, near, self.noise), (left + right).sum()
        return _CBOW.apply(inputs, outputs, centres, words, noise, near, self.noise), (left + right > 0).sum()

    def vectors(self) -> Tensor:
        """(words, D): what a word means."""
        return self.inputs.weight.detach()


@lru_cache(maxsize=8)
def reaches(count: int, window: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row reach * count + c of the tables says which words of a row centre c sees before it, and after it, within `reach`."""
    words, centres = torch.arange(count + 2 * window), torch.arange(count)
    far = words - centres[:, None] - window  # (C, L): how far word l is from centre c
    reach = torch.arange(window + 1)[:, None, None]
    before, after = (far < 0) & (-far <= reach), (far > 0) & (far <= reach)
    return before.flatten(0, 1).to(device, dtype), after.flatten(0, 1).to(device, dtype)


def neighbours(left: Tensor, right: Tensor, window: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(R, C, L): 1 where word l of a row counts for centre c, which is word c + window, else 0."""
    rows, count = left.shape
    before, after = reaches(count, window, dtype, left.device)
    place = torch.arange(count, dtype=torch.int32, device=left.device)
    near = before.index_select(0, (left * count + place).flatten())
    near += after.index_select(0, (right * count + place).flatten())
    return near.view(rows, count, -1)


class _SkipGram(torch.autograd.Function):
    """sum over pairs (c, l) of -log s(v_l . u_c), and for every pair of c, k times the mean of -log s(-v_n . u_c)."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, outputs: Tensor, centres: Tensor, words: Tensor, noise: Tensor, near: Tensor, k: int
    ) -> Tensor:
        ids = torch.cat([words, noise], 1)  # (R, L + S)
        kind = product_type(inputs)
        u, v = look_up(inputs, centres, kind), look_up(outputs, ids, kind)  # (R, C, D), (R, L + S, D)
        scores = torch.bmm(u, v.mT).to(inputs.dtype)  # (R, C, L + S)
        scores[:, :, : words.shape[1]].neg_()
        wrong = scores.sigmoid_()  # how sure the network is of the wrong answer
        share = near.sum(2, keepdim=True) * (k / noise.shape[1])
        counts = torch.cat([near, share.expand(-1, -1, noise.shape[1])], 2)  # (R, C, L + S): how often each term stands
        loss = -torch.dot(log_right(wrong).flatten(), counts.flatten())
        ctx.save_for_backward(centres, ids, counts, wrong, u, v)
        ctx.inputs, ctx.outputs, ctx.true = inputs, outputs, words.shape[1]
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        centres, ids, counts, wrong, u, v = ctx.saved_tensors
        slope = (wrong * counts).mul_(grads[0])  # of the loss by the scores
        slope[:, :, : ctx.true].neg_()
        slope = slope.to(u.dtype)
        to_inputs = scatter(ctx.inputs, (centres, torch.bmm(slope, v)))
        to_outputs = scatter(ctx.outputs, (ids, torch.bmm(slope.mT, u)))
        return to_inputs, to_outputs, None, None, None, None, None


class _CBOW(torch.autograd.Function):
    """As skip-gram, but the word in the middle is scored by the mean of its neighbours' vectors h_c, once."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, outputs: Tensor, centres: Tensor, words: Tensor, noise: Tensor, near: Tensor, k: int
    ) -> Tensor:
        kind = product_type(inputs)
        u = look_up(inputs, words, kind)  # (R, L, D)
        v, n = look_up(outputs, centres, kind), look_up(outputs, noise, kind)  # (R, C, D), (R, S, D)
        count = near.sum(2, keepdim=True)
        mean = (near / count.clamp(min=1)).to(kind)  # (R, C, L)
        some = (count > 0).to(inputs.dtype)  # (R, C, 1): a word alone in its sentence teaches nothing
        h = torch.bmm(mean, u)  # (R, C, D)
        true = (h * v).sum(2, keepdim=True, dtype=inputs.dtype).neg_()  # (R, C, 1)
        fake = torch.bmm(h, n.mT).to(inputs.dtype)  # (R, C, S)
        wrong = torch.cat([true, fake], 2).sigmoid_()
        counts = torch.cat([some, (some * (k / noise.shape[1])).expand_as(fake)], 2)  # (R, C, 1 + S)
        loss = -torch.dot(log_right(wrong).flatten(), counts.flatten())
        ctx.save_for_backward(centres, words, noise, mean, counts, wrong, h, v, n)
        ctx.inputs, ctx.outputs = inputs, outputs
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        centres, words, noise, mean, counts, wrong, h, v, n = ctx.saved_tensors
        slope = (wrong * counts).mul_(grads[0]).to(h.dtype)  # (R, C, 1 + S)
        up, down = -slope[:, :, :1], slope[:, :, 1:]
        to_h = torch.baddbmm(up * v, down, n)
        to_inputs = scatter(ctx.inputs, (words, torch.bmm(mean.mT, to_h)))
        to_outputs = scatter(ctx.outputs, (centres, up * h), (noise, torch.bmm(down.mT, h)))
        return to_inputs, to_outputs, None, None, None, None, None


def product_type(table: Tensor) -> torch.dtype:
    """What matrix products are computed in: bfloat16 under autocast; the tables themselves stay as they are."""
    kind = table.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else table.dtype


def look_up(table: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """The rows `ids` of a table in `dtype`. Converting all of it first is quicker when most of it is wanted."""
    if table.dtype != dtype and 2 * ids.numel() >= len(table):
        return embedding(ids, table.to(dtype))
    return embedding(ids, table).to(dtype)


def log_right(wrong: Tensor) -> Tensor:
    """log(1 - wrong), at least the log of the smallest step below 1: a term of the loss is 17 nats at most in float32."""
    return torch.log1p(-wrong.clamp(max=1 - torch.finfo(wrong.dtype).eps / 2))


def scatter(table: Tensor, *parts: tuple[Tensor, Tensor]) -> Tensor | None:
    """The gradient of a table (words, D): rows (..., D) added up by word, for each (words, rows) of `parts`.

    Where the table has a `.grad` already (the optimizer keeps it in one buffer) the rows are added there and None is returned:
    a gradient of its own would be zeroed, filled, and read once more to be added.
    """
    if not table.requires_grad:
        return None
    gradient = table.grad if table.grad is not None else torch.zeros_like(table)
    for ids, rows in parts:
        gradient.index_add_(0, ids.reshape(-1), rows.reshape(-1, rows.shape[-1]).to(gradient.dtype))
    return None if table.grad is not None else gradient
