"""Contrast: of all texts of a batch, each source must find its own target (InfoNCE, van den Oord et al. 2018, Eq. 4).

With the same text on both sides dropout alone makes them differ: SimCSE (Gao et al. 2021, Eq. 4). Pairs are asked in both
directions, as in CLIP (Radford et al. 2021, figure 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch, Logs
from engram.core.errors import DataError
from engram.core.task import Ctx, Phase, Task

WHY = "its loss compares every row with all others of the batch"


class Contrast(Task):
    """Batch: "source" (B, S), "source_lengths", "target" (B, T), "target_lengths" (B,).

    The model maps (tokens, lengths) to unit vectors (B, width). `temperature` divides their cosines; `batch` is how many rows a
    training batch has, for `chance_loss`. Rows whose targets are the same text are no negatives of each other.
    """

    def __init__(self, model: nn.Module, *, temperature: float, batch: int):
        super().__init__()
        self.model, self.temperature, self.batch = model, temperature, batch

    def phases(self) -> tuple[Phase, ...]:
        """One phase, `model`; it needs the whole batch."""
        return (Phase("model", self.loss, self.model, splits=False, why_whole=WHY),)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit vectors of sources and targets, each (B, width)."""
        return tuple(self.model(batch[n], batch[f"{n}_lengths"]) for n in ("source", "target"))  # type: ignore[return-value]

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """Mean of both directions' cross-entropies in nats, over the rows of this process; others' rows are negatives too."""
        sources, targets = self.forward(batch)
        every_source, every_target = ctx.mesh.gather(sources), ctx.mesh.gather(targets)
        names = [ctx.mesh.gather(names_of(batch[n])) for n in ("source", "target")]
        before = ctx.mesh.gather(torch.full_like(batch["source_lengths"], ctx.mesh.rank)) < ctx.mesh.rank
        own = torch.arange(len(sources), device=sources.device) + before.sum()  # ranks may hold different numbers of rows
        losses = (
            nce(sources, every_target, own, names[1], self.temperature),
            nce(targets, every_source, own, names[0], self.temperature),
        )
        return sum(losses, start=sources.new_zeros(())) / 2, {}

    def chance_loss(self) -> float:
        """Guessing evenly among the rows of a batch."""
        return math.log(max(self.batch, 2))

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """`loss`, and `recall`: sources nearest to their own target, both among the rows of a batch. Raises DataError when
        there is no row. The predictor's figures are among all rows of a split."""
        total, right, count = 0.0, 0, 0
        for batch in batches:
            sources, targets = self.forward(batch)
            own = torch.arange(len(sources), device=sources.device)
            name = names_of(batch["target"])
            total += float(nce(sources, targets, own, name, self.temperature)) * len(sources)
            right += int((name[(sources @ targets.T).argmax(1)] == name).sum())
            count += len(sources)
        if not count:
            raise DataError("there are no pairs to evaluate; give the split some")
        return {"loss": total / count, "recall": right / count}


def nce(asked: Tensor, found: Tensor, own: Tensor, names: Tensor, temperature: float) -> Tensor:
    """Mean over the rows of `asked` (B, W) of -log softmax(cosine / temperature) at `own` (B,), the number of their partner in
    `found` (N, W). Others with the same name (N,) as the partner are left out."""
    with torch.autocast(asked.device.type, enabled=False):
        scores = asked.float() @ found.float().T / temperature
        same = names[own][:, None] == names
        same[torch.arange(len(own), device=own.device), own] = False
        return F.cross_entropy(scores.masked_fill(same, -torch.inf), own)


def names_of(tokens: Tensor) -> Tensor:
    """A number for each row (B, T) that is the same for the same tokens, whatever the padding: a polynomial modulo 2^64."""
    powers = torch.full((tokens.shape[1],), 6364136223846793005, device=tokens.device).cumprod(0)  # wraps round
    return ((tokens + (tokens > 0) * 1442695040888963407) * powers).sum(1)
