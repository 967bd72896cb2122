"""Word vectors from windows of text: telling the words around a word from noise words (Mikolov et al. 2013b)."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor, nn

from engram.core.batch import Batch, Logs
from engram.core.errors import DataError
from engram.core.task import Ctx, Phase, Task


class TellNeighbours(Task):
    """Batch: "words", "left", "right", "noise", in the order that the model takes them; it gives (sum of losses, examples).

    `noise` is how many noise words stand against one true one; `per_word` says that an example is a word with its window and
    not a pair of words.
    """

    KEYS = ("words", "left", "right", "noise")

    def __init__(self, model: nn.Module, noise: int, per_word: bool = False):
        super().__init__()
        self.model, self.noise, self.per_word = model, noise, per_word

    def phases(self) -> tuple[Phase, ...]:
        """One phase, `model`, weighted by examples."""
        return (Phase("model", self.loss, self.model, weight=self.examples),)

    def examples(self, batch: Batch) -> Tensor:
        """Pairs of words, or words with a window, in a batch."""
        if self.per_word:
            return ((batch["left"] > 0) | (batch["right"] > 0)).sum()
        return (batch["left"] + batch["right"]).sum()

    def forward(self, batch: Batch) -> Tensor:
        """The vectors of "words" (R, L, D)."""
        return self.model.get_submodule("inputs")(batch["words"])

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """Nats per example: one true word and `noise` others."""
        total, examples = self.model(*[batch[key] for key in self.KEYS])
        return total / examples.clamp(min=1), {}

    def chance_loss(self) -> float:
        """A coin for every word."""
        return (1 + self.noise) * math.log(2)

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """`loss` over all examples. Raises DataError when there is none."""
        total, examples = 0.0, 0
        for batch in batches:
            loss, count = self.model(*[batch[key] for key in self.KEYS])
            total, examples = total + float(loss), examples + int(count)
        if not examples:
            raise DataError("no word of the validation text has a neighbour; give longer lines or set holdout=0")
        return {"loss": total / examples}
