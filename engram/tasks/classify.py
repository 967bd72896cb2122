"""Classification: one class per row, by cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch, Logs, rows
from engram.core.errors import DataError
from engram.core.task import Ctx, Phase, Task, batch_normed
from engram.tasks import losses, metrics

BATCH_NORM = "batch normalisation computes its statistics over the whole batch"


class Classify(Task):
    """Rows to classes.

    Batch: the tensors named by `inputs`, in the order that the model takes them; `target` (rows,) class numbers from 0.
    The model gives logits (rows, classes), or, with `one_logit`, the log-odds of class 1 as (rows, 1) or (rows,).
    `class_weights` holds one number per class; a row then counts as much as its class.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[str, ...] = ("x",),
        *,
        target: str = "y",
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        one_logit: bool = False,
    ):
        super().__init__()
        self.model, self.inputs, self.target = model, inputs, target
        self.label_smoothing, self.one_logit = label_smoothing, one_logit
        weights = losses.weight_tensor(class_weights, "class_weights") if class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)
        self.class_weights: Tensor | None

    def phases(self) -> tuple[Phase, ...]:
        """One phase, `model`; its weight is the number of rows, or the sum of their class weights."""
        whole = batch_normed(self.model)
        return (Phase("model", self.loss, self.model, self.weight, splits=not whole, why_whole=BATCH_NORM),)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (rows, classes)."""
        output = self.model(*[batch[name] for name in self.inputs])
        return two_logits(output) if self.one_logit else output

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """Cross-entropy, the mean over `weight(batch)`."""
        return self._loss(self.forward(batch), batch[self.target]), {}

    def weight(self, batch: Batch) -> int | Tensor:
        """Rows, or the sum of the class weights of the rows."""
        return rows(batch) if self.class_weights is None else self.class_weights[batch[self.target]].sum()

    def chance_loss(self) -> float:
        """What guessing costs: log of the number of classes, read off the last parameter of the model."""
        return math.log(2 if self.one_logit else len(list(self.model.parameters())[-1]))

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """`loss` (as trained), `accuracy`, `macro_f1`; with two classes and rows of both also `roc_auc`.

        Keeps a confusion matrix, and for two classes one number per row. Raises DataError when there is no row.
        """
        total, weights, counts = 0.0, 0.0, None
        odds: list[Tensor] = []
        positive: list[Tensor] = []
        for batch in batches:
            logits, target = self.forward(batch), batch[self.target]
            weight = self.weight(batch)
            total += self._loss(logits, target).double() * weight
            weights += weight
            classes = logits.shape[1]
            found = metrics.confusion(target, logits.argmax(1), classes)
            counts = found if counts is None else counts + found
            if classes == 2:
                odds.append((logits[:, 1] - logits[:, 0]).float())
                positive.append(target == 1)
        if counts is None:
            raise DataError("there are no rows to evaluate; give the split some rows")
        loss = float(total) / max(float(weights), 1e-12)
        scores = {"loss": loss, "accuracy": metrics.accuracy(counts), "macro_f1": metrics.macro_f1(counts)}
        area = metrics.roc_auc(torch.cat(odds), torch.cat(positive)) if odds else None
        return scores if area is None else scores | {"roc_auc": area}

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return losses.cross_entropy(logits, target, self.class_weights, self.label_smoothing)


def two_logits(odds: Tensor) -> Tensor:
    """Log-odds z of class 1, (rows, 1) or (rows,), as logits (0, z): their cross-entropy is binary cross-entropy of z.

    Raises DataError when there is more than one number per row.
    """
    if odds.dim() > 2 or (odds.dim() == 2 and odds.shape[1] != 1):
        raise DataError(f"the network gives shape {tuple(odds.shape)} and one_logit needs (rows, 1); set one_logit=False")
    return F.pad(odds.reshape(-1, 1), (1, 0))
