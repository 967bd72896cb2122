"""Regression: numbers per row, by squared, absolute or Huber error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from engram.core.batch import Batch, Logs, rows
from engram.core.errors import DataError
from engram.core.task import Ctx, Phase, Task, batch_normed
from engram.tasks import losses

BATCH_NORM = "batch normalisation computes its statistics over the whole batch"


class Regress(Task):
    """Rows to numbers.

    Batch: the tensors named by `inputs`, in the order that the model takes them; `target`, standardised, of the shape that
    the model gives: (rows,) or (rows, outputs). `mean` and `std`, one number or one per output, turn standardised values
    into the target's units.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[str, ...] = ("x",),
        *,
        target: str = "y",
        loss: Literal["mse", "mae", "huber"] = "mse",
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
    ):
        super().__init__()
        self.model, self.inputs, self.target = model, inputs, target
        self.error_name, self.error = loss, losses.REGRESSION[loss]
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def phases(self) -> tuple[Phase, ...]:
        """One phase, `model`, weighted by rows."""
        return (Phase("model", self.loss, self.model, splits=not batch_normed(self.model), why_whole=BATCH_NORM),)

    def forward(self, batch: Batch) -> Tensor:
        """The network's output, standardised like the target."""
        return self.model(*[batch[name] for name in self.inputs])

    def in_units(self, output: Tensor) -> Tensor:
        """Standardised values in the target's units."""
        return output * self.std + self.mean

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """The error of standardised values, the mean over rows and outputs."""
        return self.error(self.forward(batch), batch[self.target]), {}

    def chance_loss(self) -> float:
        """What guessing the mean costs, for a target that is normally distributed."""
        return {"mse": 1.0, "mae": 0.7979, "huber": 0.4246}[self.error_name]

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """`loss` (as trained, standardised), `rmse` and `mae` in the target's units, `r2`; of several outputs the mean.

        A target that does not vary has r2 1 when every prediction is right and 0 otherwise. Raises DataError when there is
        no row.
        """
        total, seen = 0.0, 0
        squares = absolutes = values = value_squares = torch.zeros((), dtype=torch.float64)  # sums over rows, per output
        for batch in batches:
            output, target, n = self.forward(batch), batch[self.target], rows(batch)
            total, seen = total + self.error(output, target).double() * n, seen + n
            truth = target.double().reshape(n, -1)
            wrong = output.double().reshape(n, -1) - truth
            squares, absolutes = squares + wrong.square().sum(0), absolutes + wrong.abs().sum(0)
            values, value_squares = values + truth.sum(0), value_squares + truth.square().sum(0)
        if not seen:
            raise DataError("there are no rows to evaluate; give the split some rows")
        spread = (value_squares - values.square() / seen).clamp(min=0)
        still = spread <= 1e-12 * value_squares
        r2 = torch.where(still, (squares == 0).double(), 1 - squares / spread)
        return {
            "loss": float(total / seen),
            "rmse": float(((squares / seen).sqrt() * self.std).mean()),
            "mae": float((absolutes / seen * self.std).mean()),
            "r2": float(r2.mean()),
        }
