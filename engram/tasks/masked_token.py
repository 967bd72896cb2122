"""Masked language modelling: hidden tokens are predicted from both sides (Devlin et al. 2019, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch, Logs
from engram.core.errors import DataError
from engram.core.task import Ctx, Phase, Task

IGNORE = -100  # a token that was not chosen


class MaskedToken(Task):
    """Batch: "tokens" (B, T), "targets" (B, T) with -100 where nothing is predicted; "lengths" (B,) where rows are padded.

    The model maps (tokens, lengths or None, places (B, T) bool) to logits (N, size) of the N places that are set, row by row.
    """

    def __init__(self, model: nn.Module, size: int):
        super().__init__()
        self.model, self.size = model, size

    def phases(self) -> tuple[Phase, ...]:
        """One phase, `model`; its weight is the number of chosen tokens."""
        return (Phase("model", self.loss, self.model, self.weight),)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (N, size) and targets (N,) of the chosen tokens."""
        chosen = batch["targets"] != IGNORE
        return self.model(batch["tokens"], batch.get("lengths"), chosen), batch["targets"][chosen]

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """Mean cross-entropy in nats per chosen token; 0 for a batch without any."""
        logits, targets = self.forward(batch)
        return F.cross_entropy(logits.float(), targets, reduction="sum") / max(len(targets), 1), {}

    def weight(self, batch: Batch) -> Tensor:
        """Chosen tokens."""
        return (batch["targets"] != IGNORE).sum()

    def chance_loss(self) -> float:
        """Guessing evenly among all tokens."""
        return math.log(self.size)

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """`loss` in nats per chosen token, `perplexity`, `accuracy`. Raises DataError when no token was chosen."""
        total, right, count = 0.0, 0, 0
        for batch in batches:
            logits, targets = self.forward(batch)
            total += float(F.cross_entropy(logits.float(), targets, reduction="sum"))
            right += int((logits.argmax(1) == targets).sum())
            count += len(targets)
        if not count:
            raise DataError("no token of this split was hidden, so there is nothing to evaluate; give it more text")
        loss = total / count
        return {"loss": loss, "perplexity": math.exp(min(loss, 700)), "accuracy": right / count}
