"""Learning-rate schedules: pure functions of the optimizer step, (step, steps) -> factor of the base rate.

`step` counts from 0 and is the step about to be made; past the end the last factor holds. All but one-cycle rise linearly over
`warmup` steps first (Goyal et al. 2017): (step + 1) / (warmup + 1), so that no step is made with rate 0.
"""

from __future__ import annotations

from functools import partial
from math import cos, pi

from engram.core.optim import Schedule
from engram.optim.knobs import OptimKnobs

ONECYCLE_START = 1 / 25  # first factor of one-cycle, torch's div_factor


def length(value: float, steps: int) -> int:
    """A span as knobs give it: a fraction of the run below 1, a number of steps from 1 on."""
    return round(value * steps) if value < 1 else round(value)


def constant(step: int, steps: int, *, warmup: float = 0.0) -> float:
    """The base rate after the warm-up."""
    rise, _, _ = _where(step, steps, warmup)
    return 1.0 if rise is None else rise


def step(step: int, steps: int, *, warmup: float = 0.0, every: float = 0.3, factor: float = 0.1) -> float:
    """Times `factor` after each `every` (steps or fraction of the run) since the warm-up."""
    rise, at, _ = _where(step, steps, warmup)
    return factor ** (at // max(length(every, steps), 1)) if rise is None else rise


def cosine(step: int, steps: int, *, warmup: float = 0.0, final: float = 0.0) -> float:
    """Half a cosine from 1 to `final` (Loshchilov & Hutter 2017, Eq. 5, without restarts)."""
    rise, at, left = _where(step, steps, warmup)
    return final + (1 - final) * (1 + cos(pi * min(at / left, 1.0))) / 2 if rise is None else rise


def linear(step: int, steps: int, *, warmup: float = 0.0, final: float = 0.0) -> float:
    """A straight line from 1 to `final`."""
    rise, at, left = _where(step, steps, warmup)
    return 1 + (final - 1) * min(at / left, 1.0) if rise is None else rise


def onecycle(step: int, steps: int, *, warmup: float = 0.3, final: float = 0.0) -> float:
    """One cycle (Smith 2018): 1/25 up to 1 over `warmup`, then down to `final` at the last step, both half cosines."""
    top = max(length(warmup, steps) - 1, 0)
    if step < top:
        return _half_cosine(ONECYCLE_START, 1.0, step / top)
    return _half_cosine(1.0, final, min((step - top) / max(steps - 1 - top, 1), 1.0))


def make(knobs: OptimKnobs) -> Schedule:
    """The schedule that the knobs describe."""
    knobs = knobs.settled()
    warmup = knobs.warmup or 0.0
    match knobs.schedule:
        case "constant":
            return partial(constant, warmup=warmup)
        case "step":
            return partial(step, warmup=warmup, every=knobs.step_every, factor=knobs.step_factor)
        case "cosine":
            return partial(cosine, warmup=warmup, final=knobs.final)
        case "linear":
            return partial(linear, warmup=warmup, final=knobs.final)
        case "onecycle":
            return partial(onecycle, warmup=warmup, final=knobs.final)


def _where(step: int, steps: int, warmup: float) -> tuple[float | None, int, int]:
    """The factor while warming up (else None), steps since the warm-up, and steps from its end to the end of the run."""
    rising = length(warmup, steps)
    rise = (step + 1) / (rising + 1) if step < rising else None
    return rise, step - rising, max(steps - rising, 1)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + cos(pi * share)) / 2
