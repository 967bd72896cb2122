"""Word vectors from counts: the weighted squares of GloVe (Pennington et al. 2014, Eq. 8 and 9)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from engram.core.batch import Batch, Logs, rows
from engram.core.errors import DataError
from engram.core.task import Ctx, Phase, Task


class FitCounts(Task):
    """Batch: "words" (B, 2) and "count" (B,). The model gives the logarithm of the count."""

    def __init__(self, model: nn.Module, most: float = 100.0, power: float = 0.75, chance: float = 0.0):
        super().__init__()
        self.model, self.most, self.power, self.chance = model, most, power, chance

    def phases(self) -> tuple[Phase, ...]:
        """One phase, `model`, weighted by pairs."""
        return (Phase("model", self.loss, self.model),)

    def weight(self, count: Tensor) -> Tensor:
        """f(x) of Eq. 9: rare pairs say little, and no pair counts more than once."""
        return (count / self.most).clamp(max=1.0) ** self.power

    def forward(self, batch: Batch) -> Tensor:
        """The logarithms of the counts (B,)."""
        return self.model(batch["words"])

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """Eq. 8 as a mean over pairs."""
        return self._squares(batch).mean(), {}

    def _squares(self, batch: Batch) -> Tensor:
        return self.weight(batch["count"]) * (self.forward(batch) - batch["count"].log()).square()

    def chance_loss(self) -> float | None:
        """What vectors of nothing cost; the data says it."""
        return self.chance or None

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """`loss`, the mean over all pairs. Raises DataError when there is none."""
        total, seen = torch.zeros((), dtype=torch.float64), 0
        for batch in batches:
            total, seen = total + self._squares(batch).double().sum().cpu(), seen + rows(batch)
        if not seen:
            raise DataError("there are no pairs to evaluate; set holdout higher")
        return {"loss": float(total / seen)}
