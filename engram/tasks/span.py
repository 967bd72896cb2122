"""Spans: the first and the last token of an answer, each by a softmax over the places of a row (Devlin et al. 2019, 4.2).

Differs: tokens of the question cannot be chosen, only those of the text and token 0, which says that the row holds no answer.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch, Logs
from engram.core.errors import DataError
from engram.core.task import Ctx, Phase, Task


class Span(Task):
    """Batch: "tokens" (B, T), "lengths" (B,), "segments" (B, T), "starts" and "ends" (B,).

    The model maps (tokens, lengths, segments) to logits (B, T, 2), -inf where no answer may begin or end. `chance` is the mean
    log of the number of places, for `chance_loss`.
    """

    def __init__(self, model: nn.Module, chance: float):
        super().__init__()
        self.model, self.chance = model, chance

    def phases(self) -> tuple[Phase, ...]:
        """One phase, `model`; its weight is the number of rows."""
        return (Phase("model", self.loss, self.model),)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, T, 2)."""
        return self.model(batch["tokens"], batch["lengths"], batch["segments"])

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """Mean over rows of the cross-entropies of first and last token, halved, in nats."""
        return _loss(self.forward(batch), batch).mean(), {}

    def chance_loss(self) -> float:
        """Guessing evenly among the places."""
        return self.chance

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """`loss`, and `accuracy`: rows with first and last token right. Raises DataError when there is no row.

        Rows are windows; what answers are worth is told by the predictor's exact match and F1.
        """
        total, right, count = 0.0, 0, 0
        for batch in batches:
            logits = self.forward(batch)
            best = logits.argmax(1)
            total += float(_loss(logits, batch).sum())
            right += int(((best[:, 0] == batch["starts"]) & (best[:, 1] == batch["ends"])).sum())
            count += len(best)
        if not count:
            raise DataError("there are no questions to evaluate; give the split some")
        return {"loss": total / count, "accuracy": right / count}


def _loss(logits: Tensor, batch: Batch) -> Tensor:
    """(B,) nats."""
    return sum(
        (F.cross_entropy(logits[..., n].float(), batch[name], reduction="none") for n, name in enumerate(("starts", "ends"))),
        start=logits.new_zeros(()),
    ) / 2  # fmt: skip
