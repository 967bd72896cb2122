"""Task and Phase: what is trained and by which losses. Neither knows a device, an optimizer or a loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from engram.core.batch import Batch, Logs, rows
from engram.core.mesh import Mesh


@dataclass(frozen=True, slots=True)
class Ctx:
    """Where the run stands: `step` of `steps` optimizer steps (0-based), and the processes that share it."""

    step: int = 0
    steps: int = 1
    mesh: Mesh = field(default_factory=Mesh)

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        return self.step / self.steps


def count_rows(batch: Batch) -> int:
    """The default weight of a loss: it is a mean over rows."""
    return rows(batch)


Loss = Callable[[Batch, Ctx], tuple[Tensor, Logs]]


@dataclass(frozen=True)
class Phase:
    """One loss, and the only parameters that it may move.

    `loss(batch, ctx)` returns the mean over `weight(batch)` items and values to log (means over the same items).
    The weight is what makes accumulation and several ranks equal to one big batch.
    """

    name: str
    loss: Loss
    trains: nn.Module
    weight: Callable[[Batch], int | Tensor] = count_rows
    optim: str = ""  # key of the optimizer; two phases may share one
    every: int = 1  # run at steps divisible by this (lazy regularisers)
    repeat: int = 1  # updates per step (critics)
    splits: bool = True  # False: the loss compares rows across the batch, so accumulation is refused
    why_whole: str = "its loss compares rows across the batch"
    since: float = 0.0  # the share of the run's steps in which it runs: stages, one after the other
    until: float = 1.0

    @property
    def key(self) -> str:
        """The optimizer that this phase steps."""
        return self.optim or self.name

    def stage(self, steps: int) -> tuple[int, int]:
        """The first step at which the phase may run, and the one after the last."""
        return round(self.since * steps), round(self.until * steps)

    def runs_at(self, ctx: Ctx) -> bool:
        """Whether the phase has its turn at this step."""
        first, end = self.stage(ctx.steps)
        return first <= ctx.step < end and ctx.step % self.every == 0

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that this phase moves."""
        return [p for p in self.trains.parameters() if p.requires_grad]


class Task(nn.Module, ABC):
    """Networks plus objective. Subclasses hold their networks as submodules."""

    overfits: ClassVar[float | None] = 0.05  # of its first loss: what one repeated batch goes below; None: losses that fight

    @abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """The losses of one step, in order."""

    @abstractmethod
    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """Metrics over the whole iterable; called in eval mode without gradients. Must stream: no list of all outputs."""

    def chance_loss(self) -> float | None:
        """The first phase's loss for a network that knows nothing: what an untrained one should show. None where unknown."""
        return None

    def show(self, ctx: Ctx) -> Tensor | None:
        """Pictures (N, C, H, W), as the network reads them, of fixed noise: kept at evaluations as a film of the training."""
        return None

    def after_step(self, ctx: Ctx) -> None:
        """What moves without a gradient: moving teachers, clamps."""


def batch_normed(module: nn.Module) -> bool:
    """Whether a module normalises over the batch, so that micro-batches cannot equal the whole."""
    return any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in module.modules())
