"""Language modelling: every token is predicted from those before it (Bengio et al. 2003; Radford et al. 2018, Eq. 1)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch, Logs
from engram.core.errors import DataError
from engram.core.task import Ctx, Phase, Task

IGNORE = -100  # a target that is not trained


class NextToken(Task):
    """Batch: "tokens" (B, T), "targets" (B, T) with -100 where nothing is trained, "documents" (B, T) if they are kept apart.

    The model maps tokens (and documents) to logits (B, T, vocabulary). `penalty` adds penalty * (log Z)^2, which keeps logits
    small (PaLM, Chowdhery et al. 2022, section 5).
    """

    def __init__(self, model: nn.Module, size: int, *, label_smoothing: float = 0.0, penalty: float = 0.0):
        super().__init__()
        self.model, self.size = model, size
        self.label_smoothing, self.penalty = label_smoothing, penalty

    def phases(self) -> tuple[Phase, ...]:
        """One phase, `model`; its weight is the number of trained targets."""
        return (Phase("model", self.loss, self.model, self.weight),)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, T, vocabulary)."""
        return self.model(batch["tokens"], batch["documents"]) if "documents" in batch else self.model(batch["tokens"])

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """Mean cross-entropy in nats per trained target; 0 for a batch without any."""
        logits = self.forward(batch).flatten(0, 1)
        targets = batch["targets"].flatten()
        total = F.cross_entropy(
            logits.float(), targets, ignore_index=IGNORE, reduction="sum", label_smoothing=self.label_smoothing
        )
        if self.penalty:
            log_z = logits.float().logsumexp(1)
            total = total + self.penalty * (log_z.square() * (targets != IGNORE)).sum()
        return total / self.weight(batch).clamp(min=1), {}

    def weight(self, batch: Batch) -> Tensor:
        """Trained targets."""
        return (batch["targets"] != IGNORE).sum()

    def chance_loss(self) -> float:
        """Guessing evenly among all tokens."""
        return math.log(self.size)

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """`loss` in nats per token, `perplexity`, `accuracy` of the most probable token. Raises DataError without a target."""
        total, right, count = 0.0, 0, 0
        for batch in batches:
            logits, targets = self.forward(batch).flatten(0, 1), batch["targets"].flatten()
            total += float(F.cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction="sum"))
            right += int((logits.argmax(1) == targets).sum())
            count += int(self.weight(batch))
        if not count:
            raise DataError("there is no token to evaluate; give the split some text")
        loss = total / count
        return {"loss": loss, "perplexity": math.exp(min(loss, 700)), "accuracy": right / count}


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats of every target (B, T); 0 where nothing is trained."""
    with torch.autocast(logits.device.type, enabled=False):
        each = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="none")
    return each.view_as(targets)
