"""Plan: how long and how the loop runs. Events: what the loop tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Counted in optimizer steps, whatever the number of ranks or micro-batches."""

    steps: int
    accumulate: int = 1  # micro-batches per update
    clip: float = 1.0  # largest norm of the gradient; 0 = do not clip
    ema: float = 0.0  # decay of the moving average of the weights; 0 = none
    precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False
    eval_every: int = 0  # 0 = only at the end
    save_every: int = 0  # 0 = only at the end (and at each best)
    log_every: int = 1  # steps between per-layer gradient norms
    watch: str = "loss"  # the metric that chooses the best state
    mode: Literal["min", "max"] = "min"
    patience: int = 0  # evaluations without improvement before stopping; 0 = run to the end
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Stepped:
    """After an optimizer step; `step` counts from 1. `logs` are scalars still on the device: read what you need."""

    step: int
    logs: dict[str, Tensor]
    layers: dict[str, Tensor] | None = None  # gradient norm per parameter, every `log_every` steps


@dataclass(frozen=True, slots=True)
class Evaluated:
    """After a pass over the validation split, with the averaged weights if there are any."""

    step: int
    metrics: dict[str, float]
    best: bool
    shown: Tensor | None = None  # pictures of fixed noise, from the averaged weights


@dataclass(frozen=True, slots=True)
class Saved:
    """The state of this step is on its way to disk; a crash from here on resumes at or before it."""

    step: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The last event: why the loop ended ('done' or 'patience') and the step of the best state."""

    step: int
    reason: str
    best_step: int


Event = Stepped | Evaluated | Saved | Stopped
