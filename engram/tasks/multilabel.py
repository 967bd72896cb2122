"""Multi-label classification: any number of labels per row, each by its own binary cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from engram.core.batch import Batch, Logs, rows
from engram.core.errors import DataError
from engram.core.task import Ctx, Phase, Task, batch_normed
from engram.tasks import losses

BATCH_NORM = "batch normalisation computes its statistics over the whole batch"


class MultiLabel(Task):
    """Rows to sets of labels.

    Batch: the tensors named by `inputs`, in the order that the model takes them; `target` (rows, labels) of 0 and 1.
    The model gives logits (rows, labels); a label is predicted when its logit is above 0. `positive_weights` holds one
    number per label, the factor of the loss of its 1s (for rare labels).
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[str, ...] = ("x",),
        *,
        target: str = "y",
        positive_weights: Sequence[float] | None = None,
    ):
        super().__init__()
        self.model, self.inputs, self.target = model, inputs, target
        weights = losses.weight_tensor(positive_weights, "positive_weights") if positive_weights else None
        self.register_buffer("positive_weights", weights, persistent=False)
        self.positive_weights: Tensor | None

    def phases(self) -> tuple[Phase, ...]:
        """One phase, `model`, weighted by rows."""
        return (Phase("model", self.loss, self.model, splits=not batch_normed(self.model), why_whole=BATCH_NORM),)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (rows, labels)."""
        return self.model(*[batch[name] for name in self.inputs])

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """Binary cross-entropy, the mean over rows and labels."""
        return losses.binary_cross_entropy(self.forward(batch), batch[self.target], self.positive_weights), {}

    def chance_loss(self) -> float | None:
        """What guessing costs: log 2; with positive weights it depends on how rare the labels are."""
        return math.log(2) if self.positive_weights is None else None

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """`loss`, `exact_match` (rows with every label right), `label_accuracy`, `micro_f1`, `macro_f1`.

        F1 as scikit-learn has it: a label that never occurs and is never predicted counts as 0. Raises DataError when
        there is no row.
        """
        total, seen = 0.0, 0
        exact = hits = predictions = truths = right = torch.zeros((), dtype=torch.float64)  # all but the first per label
        for batch in batches:
            logits, target = self.forward(batch), batch[self.target].bool()
            chosen, n = logits > 0, rows(batch)
            loss = losses.binary_cross_entropy(logits, batch[self.target], self.positive_weights)
            total, seen = total + loss.double() * n, seen + n
            hits = hits + (chosen & target).sum(0)
            predictions, truths = predictions + chosen.sum(0), truths + target.sum(0)
            right, exact = right + (chosen == target).sum(0), exact + (chosen == target).all(1).sum()
        if not seen:
            raise DataError("there are no rows to evaluate; give the split some rows")
        f1 = 2 * hits / (predictions + truths).clamp(min=1)
        return {
            "loss": float(total / seen),
            "exact_match": float(exact / seen),
            "label_accuracy": float(right.mean() / seen),
            "micro_f1": float(2 * hits.sum() / (predictions + truths).sum().clamp(min=1)),
            "macro_f1": float(f1.mean()),
        }
