"""A codebook: vectors become the nearest of K codes, and the codes move to the mean of the vectors that chose them.

Papers: van den Oord et al. 2017, "Neural discrete representation learning": nearest code Eq. 1-2, straight-through gradient
section 3.1, codes as moving averages Eq. 6-8 (appendix A.1). Restarts of dead codes: Dhariwal et al. 2020, "Jukebox", section
3.1.

The codes are moved by sums, not by a gradient, so the moving is apart from the forward pass and exact however a batch is cut:

    q, ids = book(z)             # any number of micro-batches, on any number of ranks
    book.see(z, ids, keys)       # adds counts and sums of this piece
    book.move()                  # once per step, when the pieces of all ranks are summed (see engram/tasks/vector_quantise.py)

Exact up to rounding: of two codes that are alike to the last bits (both put at a blank corner) either may be the nearest.

Differs: both averages start at zero, so their ratio needs no correction and the first step is one step of k-means; codes that
nobody chose are put at vectors of the batch, which also makes the first codebook; what counts as dead is relative to the mean
use, so it does not depend on the size of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GOLDEN = 0.6180339887498949  # its multiples, modulo 1, are spread evenly: keys of the positions of one picture
FAINT = 1e-8  # averages below this say nothing any more


class Codebook(nn.Module):
    """(B, width, ...) to the nearest of `codes` vectors of `width` numbers.

    decay:  of the moving averages of counts and sums, per step
    least:  a code used less than this share of the mean is put at a vector of the batch; 0 = never
    """

    vectors: Tensor
    usage: Tensor
    totals: Tensor
    seen: Tensor
    seen_totals: Tensor
    keys: Tensor
    candidates: Tensor

    def __init__(self, codes: int, width: int, decay: float = 0.99, least: float = 0.03) -> None:
        super().__init__()
        if codes < 2:
            raise ValueError(f"a codebook needs at least 2 codes, got {codes}")
        self.decay, self.least = decay, least
        self.register_buffer("vectors", torch.randn(codes, width) / codes)
        self.register_buffer("usage", torch.zeros(codes))  # moving average of how often each code is chosen in a step
        self.register_buffer("totals", torch.zeros(codes, width))  # ... and of the sum of the vectors that chose it
        # What the current step has shown so far. Empty between steps; saved all the same, so that whoever puts a state back
        # (resume, the learning-rate finder) also empties these.
        self.register_buffer("seen", torch.zeros(codes))
        self.register_buffer("seen_totals", torch.zeros(codes, width))
        self.register_buffer("keys", torch.full((codes,), -1.0))  # -1: no candidate here
        self.register_buffer("candidates", torch.zeros(codes, width))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(B, width, ...) to the codes in the same shape, float32, and their numbers (B, ...) int64.

        The gradient passes straight through: it reaches z as if the code were z itself.
        """
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            ids = self.nearest(z.detach().movedim(1, -1))
            return z + (self.lookup(ids) - z).detach(), ids

    def nearest(self, z: Tensor) -> Tensor:
        """Numbers (...) of the codes nearest to the vectors (..., width)."""
        # |z|^2 is the same for every code, so it cannot change which one is nearest.
        return (self.vectors.square().sum(1) - 2 * (z @ self.vectors.T)).argmin(-1)

    def lookup(self, ids: Tensor) -> Tensor:
        """Numbers (B, ...) to codes (B, width, ...)."""
        return self.vectors[ids].movedim(-1, 1)

    @torch.no_grad()
    def see(self, z: Tensor, ids: Tensor, keys: Tensor) -> None:
        """Add a piece of the step's batch: z (B, width, ...), ids (B, ...), and a number of [0, 1) per row, keys (B,).

        The vectors with the largest keys are those that dead codes may move to, so keys must be drawn per row of the data.
        """
        z, flat = z.detach().float().movedim(1, -1).flatten(1, -2), ids.flatten()  # (B, P, width), (B P,)
        self.seen += torch.bincount(flat, minlength=len(self.seen))
        self.seen_totals.index_add_(0, flat, z.flatten(0, 1))
        places = torch.arange(z.shape[1], device=z.device)
        spread = (keys.to(z)[:, None] + places * GOLDEN) % 1  # (B, P)
        self.offer(spread.flatten(), z.flatten(0, 1))

    @torch.no_grad()
    def offer(self, keys: Tensor, candidates: Tensor) -> None:
        """Keep the candidates (N, width) with the largest keys (N,) among these and those kept already."""
        best, index = torch.cat([self.keys, keys]).topk(len(self.keys))
        self.candidates.copy_(torch.cat([self.candidates, candidates])[index])
        self.keys.copy_(best)

    @torch.no_grad()
    def move(self) -> None:
        """Move the averages and the codes by what was seen, put dead codes at candidates, and forget what was seen.

        Without anything seen since the last call nothing moves.
        """
        if not self.seen.any():
            return
        self.usage.lerp_(self.seen, 1 - self.decay)
        self.totals.lerp_(self.seen_totals, 1 - self.decay)
        known = self.usage > FAINT
        self.vectors.copy_(torch.where(known[:, None], self.totals / self.usage.clamp(min=FAINT)[:, None], self.vectors))
        self._restart()
        for buffer in (self.seen, self.seen_totals, self.candidates):
            buffer.zero_()
        self.keys.fill_(-1)

    def _restart(self) -> None:
        """The least used dead codes first; each starts with the mean use, so it has time to find its own vectors."""
        mean = self.usage.mean()
        dead = int((self.usage < self.least * mean).sum())
        number = min(dead, int((self.keys >= 0).sum()))
        if number:
            index = self.usage.argsort(stable=True)[:number]
            self.vectors[index] = self.candidates[:number]
            self.usage[index] = mean
            self.totals[index] = self.candidates[:number] * mean


def perplexity(counts: Tensor) -> Tensor:
    """How many codes (K,) of counts are in use: the exponential of the entropy, 1 to K."""
    share = counts.double() / counts.sum().clamp(min=1e-12)
    return torch.special.entr(share).sum().exp()


__all__ = ["Codebook", "perplexity"]
