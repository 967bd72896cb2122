"""From text to text: every target token is predicted from the source and the target tokens before it (teacher forcing).

Sutskever et al. 2014, Eq. 1; label smoothing as in Vaswani et al. 2017, section 5.4 (Szegedy et al. 2016, section 7).
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
from engram.tasks.losses import token_cross_entropy

PAD = 0


class Translate(Task):
    """Batch: "source" (B, S), "source_lengths" (B,), "target" (B, T) = <s> ... </s>, padded with 0.

    The model maps (source, source_lengths, target[:, :-1]) to logits (B, T - 1, size) of the token after each.
    """

    def __init__(self, model: nn.Module, size: int, *, label_smoothing: float = 0.0):
        super().__init__()
        self.model, self.size, self.label_smoothing = model, size, label_smoothing

    def phases(self) -> tuple[Phase, ...]:
        """One phase, `model`; its weight is the number of target tokens."""
        return (Phase("model", self.loss, self.model, self.weight),)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, T - 1, size)."""
        return self.model(batch["source"], batch["source_lengths"], batch["target"][:, :-1])

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """Mean cross-entropy in nats per target token, </s> among them."""
        logits, targets = self.forward(batch).flatten(0, 1), batch["target"][:, 1:].flatten()
        return token_cross_entropy(logits, targets, PAD, self.label_smoothing), {}

    def weight(self, batch: Batch) -> Tensor:
        """Target tokens without <s> and padding."""
        return (batch["target"][:, 1:] != PAD).sum()

    def chance_loss(self) -> float:
        """Guessing evenly among all tokens."""
        return math.log(self.size)

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """`loss` in nats per target token without smoothing, `perplexity`, `accuracy`. Raises DataError without a target."""
        total, right, count = 0.0, 0, 0
        for batch in batches:
            logits, targets = self.forward(batch), batch["target"][:, 1:]
            total += float(pair_losses(logits, targets).sum())
            right += int(((logits.argmax(2) == targets) & (targets != PAD)).sum())
            count += int(self.weight(batch))
        if not count:
            raise DataError("there is no pair to evaluate; give the split some")
        loss = total / count
        return {"loss": loss, "perplexity": math.exp(min(loss, 700)), "accuracy": right / count}


def pair_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats of every target token (B, T); 0 for padding."""
    with torch.autocast(logits.device.type, enabled=False):
        each = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=PAD, reduction="none")
    return each.view_as(targets)
