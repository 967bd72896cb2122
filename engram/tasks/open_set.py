"""Classification with texts that belong to no class: the network tells the classes apart, a threshold finds what is none.

Hendrycks & Gimpel 2017 (the largest probability as the score), Larson et al. 2019, section 3.2 (the threshold is the one with
the most validation rows right, out-of-scope rows included).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.errors import DataError
from engram.core.task import Ctx, Phase, Task
from engram.tasks.classify import Classify

KEPT = 0.95  # share of the validation rows to keep in scope when none of them is out of scope


class OpenSet(Task):
    """As Classify, trained on rows of the classes only; target `classes` (one past the last) is out of scope.

    `threshold` () is a buffer, set whenever the validation rows are evaluated: a row is in scope when its largest probability
    is at least that.
    """

    def __init__(self, model: nn.Module, inputs: tuple[str, ...], classes: int, *, label_smoothing: float = 0.0):
        super().__init__()
        self.model, self.inputs, self.classes = model, inputs, classes
        self.closed = Classify(model, inputs, label_smoothing=label_smoothing)
        self.register_buffer("threshold", torch.zeros(()))
        self.threshold: Tensor

    def phases(self) -> tuple[Phase, ...]:
        """One phase, `model`."""
        return self.closed.phases()

    def chance_loss(self) -> float:
        """See Classify."""
        return self.closed.chance_loss()

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """`loss` and `in_scope_accuracy` of the rows in scope, whatever the threshold; then with the threshold that these rows
        choose: `accuracy` of all rows, `out_of_scope_recall`. Raises DataError when no row is in scope."""
        found: list[Tensor] = []
        total = 0.0
        for batch in batches:
            logits, target = self.closed(batch), batch["y"]
            inside = target < self.classes
            if inside.any():
                part = {name: t[inside] for name, t in batch.items()}
                total += float(self.closed.loss(part, ctx)[0].detach()) * int(inside.sum())
            best, guess = logits.detach().float().softmax(1).max(1)
            found.append(torch.stack([best.double(), (guess == target).double(), (~inside).double()], 1).cpu())
        rows = torch.cat(found) if found else torch.zeros(0, 3)
        outside = rows[:, 2] > 0
        if not len(rows) or outside.all():
            raise DataError("there are no rows of a class to evaluate; give the split some")
        threshold = best_threshold(rows[:, 0], rows[:, 1] > 0, outside)
        self.threshold.fill_(threshold)
        kept = rows[:, 0] >= threshold
        scores = {
            "loss": total / int((~outside).sum()),
            "accuracy": float(torch.where(outside, ~kept, kept & (rows[:, 1] > 0)).double().mean()),
            "in_scope_accuracy": float(rows[~outside, 1].mean()),
        }
        return scores | ({"out_of_scope_recall": float((~kept)[outside].double().mean())} if outside.any() else {})


def best_threshold(best: Tensor, right: Tensor, outside: Tensor) -> float:
    """The threshold on the largest probabilities `best` (N,) with the most rows right.

    These are rows in scope whose guess is `right` (N,) and that are kept, and rows `outside` (N,) that are not. Without rows
    outside: the threshold that keeps 95 % of the rows.
    """
    if not outside.any():
        return float(best.quantile(1 - KEPT))
    order = best.argsort()
    value = best[order]
    gained = outside[order].cumsum(0) - (right & ~outside)[order].cumsum(0)  # by refusing this row and all below
    ends = torch.cat([value[1:] != value[:-1], torch.ones(1, dtype=torch.bool)])  # equal values go together
    gained = gained.masked_fill(~ends, -len(best))
    at = int(gained.argmax())
    if gained[at] <= 0:
        return 0.0
    return float((value[at] + value[at + 1]) / 2) if at + 1 < len(value) else min(float(value[at]) + 1e-6, 1.0)
