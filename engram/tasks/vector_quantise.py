"""Vector-quantised autoencoding: pictures through a grid of codes, with a codebook that follows what it codes.

Paper: van den Oord et al. 2017, Eq. 3: reconstruction, and the commitment of the encoder to the codes it chose. Differs: the
term that pulls the codes is replaced by moving averages (appendix A.1), which move after the optimizer step (`after_step`) by
sums over all micro-batches and ranks, so that N pieces of a batch move the codes as the whole batch does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.core.batch import Batch, Logs, rows
from engram.core.task import Ctx, Phase, Task, batch_normed
from engram.nn.codebook import Codebook, perplexity
from engram.nn.noise import RowNoise


class Quantiser(Protocol):
    """What the task asks of a model."""

    codebook: Codebook

    def encode(self, x: Tensor) -> Tensor: ...  # (B, width, ...)

    def decode(self, q: Tensor) -> Tensor: ...


class VectorQuantise(Task):
    """Pictures to codes and back.

    Batch: x (B, C, H, W); key (B, 1), uniform numbers that say which vectors dead codes move to (without them those of a fixed
    seed). The loss is the mean squared error plus `commitment` times the mean squared distance of the vectors to their codes.
    """

    overfits: ClassVar[float | None] = 0.3  # few codes cannot hold every picture of a batch exactly

    def __init__(self, model: torch.nn.Module, commitment: float = 0.25):
        super().__init__()
        self.model, self.commitment = model, commitment

    @property
    def net(self) -> Quantiser:
        """The model, as what it does."""
        return self.model  # type: ignore[return-value]

    def phases(self) -> tuple[Phase, ...]:
        """One phase, `model`; the codebook has no parameters."""
        whole, why = batch_normed(self.model), "batch normalisation computes its statistics over the whole batch"
        return (Phase("model", self.loss, self.model, splits=not whole, why_whole=why),)

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """The mean over rows; logs error and commitment. In training the codebook sees the vectors, and moves later."""
        error, distance, z, ids = self.terms(batch["x"])
        if self.training:
            key = batch["key"][:, 0] if "key" in batch else RowNoise(0, 0, rows(batch), z.device).uniform(1)[:, 0]
            self.net.codebook.see(z, ids, key)
        error, distance = error.mean(), distance.mean()
        return error + self.commitment * distance, {"error": error, "commitment": distance}

    def terms(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean squared error (B,) and distance to the codes (B,) of each row, the vectors, and their codes."""
        z = self.net.encode(x)
        q, ids = self.net.codebook(z)
        error = F.mse_loss(self.net.decode(q), x, reduction="none").flatten(1).mean(1)
        distance = (z.float() - self.net.codebook.lookup(ids)).square().flatten(1).mean(1)
        return error, distance, z, ids

    def chance_loss(self) -> float:
        """The mean picture is off by the variance: 1, of pixels with deviation 1."""
        return 1.0

    def after_step(self, ctx: Ctx) -> None:
        """Move the codes by what all ranks have seen in this step."""
        follow(self.net.codebook, ctx)

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """loss, error, commitment; perplexity: how many codes are in use; dead: share of codes that no vector chose."""
        book = self.net.codebook
        counts, sums, count = torch.zeros(len(book.vectors), dtype=torch.int64), torch.zeros(2, dtype=torch.float64), 0
        for batch in batches:
            error, distance, _, ids = self.terms(batch["x"])
            sums += torch.stack([error.double().sum(), distance.double().sum()]).cpu()
            counts += torch.bincount(ids.flatten().cpu(), minlength=len(counts))
            count += len(ids)
        error, distance = (sums / max(count, 1)).tolist()
        return {
            "loss": error + self.commitment * distance,
            "error": error,
            "commitment": distance,
            "perplexity": float(perplexity(counts)),
            "dead": float((counts == 0).double().mean()),
        }


def follow(book: Codebook, ctx: Ctx) -> None:
    """`Codebook.move`, with what was seen summed over ranks first. Call it once per step, on every rank."""
    if ctx.mesh.world > 1:
        for total in (book.seen, book.seen_totals):
            total.copy_(ctx.mesh.sum(total))
        keys, candidates = ctx.mesh.gather(book.keys), ctx.mesh.gather(book.candidates)
        book.keys.fill_(-1)
        book.offer(keys, candidates)
    book.move()
