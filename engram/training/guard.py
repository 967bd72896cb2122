"""Notices the first update whose loss or gradient is not a finite number.

On a processor each update is looked at before the optimizer uses it. That would make the processor wait for an accelerator at
every step, so there the device itself keeps the number of the first bad update and holds the weights from then on; it is asked
which one it was from time to time, before anything is judged or saved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engram.core.task import Ctx

NONE = torch.iinfo(torch.int64).max


class NonFinite(ArithmeticError):
    """A loss or gradient that is not a finite number, before the optimizer has used it."""

    def __init__(self, what: str, phase: str):
        super().__init__(f"{what} of phase {phase!r}")
        self.what, self.phase = what, phase


@dataclass(frozen=True)
class Found:
    """A bad update: what was not finite, whose update it was, where the run stood, and the number of the batch."""

    bad: NonFinite
    update: Any
    ctx: Ctx
    draw: int


@dataclass
class Guard:
    """One for all phases of a run, whose batches are numbered through."""

    device: torch.device
    made: dict[int, tuple[Any, Ctx]] = field(default_factory=dict)  # batch -> its update, since the last question
    first: Tensor | None = None  # (): 2 * batch, and 1 more where the loss was finite but the gradient was not; NONE

    def look(self, loss: Tensor, norm: Tensor, update: Any, ctx: Ctx, draw: int, now: bool) -> None:
        """Look at an update's loss and gradient norm. Raises NonFinite where the device answers at once, or has to (`now`)."""
        phase = update.phase.name
        if now or at_once(self.device):
            if not math.isfinite(loss.item()):
                raise NonFinite("loss", phase)
            if not math.isfinite(norm.item()):
                raise NonFinite("gradient", phase)
            return
        if self.first is None:
            self.first = torch.full((), NONE, dtype=torch.int64, device=loss.device)
        self.made[draw] = (update, ctx)
        finite = loss.isfinite()
        self.first = torch.where(finite & norm.isfinite(), self.first, torch.minimum(self.first, 2 * draw + finite.long()))

    def held(self) -> Tensor | None:
        """(), bool: whether weights are to stay as they are, because an update was bad; None where errors come at once."""
        return None if self.first is None else self.first < NONE

    def found(self) -> Found | None:
        """The first bad update since the last question. Waits for the device."""
        made, self.made = self.made, {}
        number = NONE if self.first is None else int(self.first)
        if number == NONE:
            return None
        draw, what = number // 2, ("loss", "gradient")[number % 2]
        update, ctx = made[draw]
        return Found(NonFinite(what, update.phase.name), update, ctx, draw)


def at_once(device: torch.device) -> bool:
    """Whether looking at a number of this device costs nothing."""
    return device.type == "cpu"
