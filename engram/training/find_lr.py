"""The learning-rate range test (Smith 2015, "Cyclical learning rates", section 3.3): train while the rate grows, see the loss.

It is a short look, not a search: it says between which rates the loss falls, and how sure that is.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engram.core.batch import fold, to_device
from engram.core.data import Data
from engram.core.errors import ConfigError
from engram.core.optim import Optim
from engram.core.plan import Plan
from engram.core.task import Ctx, Task
from engram.training.guard import NonFinite
from engram.training.update import Update

BLOWN_UP = 4.0  # a run ends when the loss is above its start by this many times its descent so far
SMOOTH = 0.02  # width of the smoothing, as a share of the steps


@dataclass(frozen=True)
class LRRange:
    """Rates between which the loss falls: a tenth of the descent is made below `low`, nine tenths below `high`.

    `suggested` is where it falls fastest. `confidence` from 0 to 1 is the clarity of the descent against the noise of the
    batches, times the agreement of the repeats; at 0 there was no descent, and the range is the whole one that was tried.
    `curve` holds (rate, smoothed loss), the middle one of the repeats that came so far.
    """

    low: float
    high: float
    suggested: float
    confidence: float
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Descent:
    low: float  # log10 of rates
    steepest: float
    high: float
    clarity: float


def find_lr(
    task: Task,
    data: Data,
    optim: Optim,
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    seed: int = 0,
    repeats: int = 3,
    plan: Plan | None = None,
) -> LRRange:
    """Train `repeats` times on other batches for `steps` steps or fewer, the rate growing evenly in its logarithm.

    Weights, buffers, optimizer state, modes and random generators are afterwards as they were, bit for bit. Groups keep the
    ratios of their rates. `plan` gives clip, micro-batches and precision of the run to come. A run that diverges just ends.

    Raises ConfigError for a task with several phases, an optimizer that searches its step itself, or an empty range.
    """
    phases = task.phases()
    if len(phases) > 1:
        raise ConfigError(f"{type(task).__name__} has {len(phases)} phases that change each other's loss; set optim.lr by hand")
    if optim.needs_closure:
        raise ConfigError("lbfgs finds the length of each step by itself: there is no rate to find; leave optim.lr open")
    if not (0 < low < high < math.inf and steps >= 10 and repeats >= 1):
        raise ConfigError(f"no rates between {low} and {high} in {steps} steps; give 0 < low < high, 10 steps and 1 repeat")
    rates = [low * (high / low) ** (k / (steps - 1)) for k in range(steps)]
    runs: list[list[float]] = []
    for number in range(repeats):
        with _kept(task, optim):
            one = replace(plan or Plan(steps=steps), seed=fold(seed, number))
            runs.append(_run(task, data, optim, rates, one, start=(seed * repeats + number) * steps))
    smoothed = [_smooth(_capped(run), max(SMOOTH * steps, 1.0)) for run in runs]
    reached = max(map(len, smoothed))
    middle = [sorted(s[k] for s in smoothed if k < len(s)) for k in range(reached)]
    curve = tuple((rates[k], values[len(values) // 2]) for k, values in enumerate(middle))
    found = [d for run, s in zip(runs, smoothed, strict=True) if (d := _descent(rates, run, s))]
    if not found:
        return LRRange(low, high, _base(optim), 0.0, curve)
    middles = [(d.steepest + d.high) / 2 for d in found]  # the low end is in the noise
    agreement = max(0.0, 1.0 - (max(middles) - min(middles)) / 2)  # two decades apart is no agreement
    clarity = sum(d.clarity for d in found) / repeats  # a repeat without descent counts as 0
    return LRRange(
        10 ** _median([d.low for d in found]),
        10 ** _median([d.high for d in found]),
        10 ** _median([d.steepest for d in found]),
        agreement * clarity,
        curve,
    )


def _run(task: Task, data: Data, optim: Optim, rates: list[float], plan: Plan, start: int) -> list[float]:
    """Losses at growing rates, until the end or until they blow up."""
    base, device = _base(optim), next(task.parameters()).device
    growing = replace(optim, schedule=lambda step, steps: rates[step] / base)
    (phase,) = task.phases()
    update = Update(task, phase, growing, plan, device)
    batches = data.batches("train", start=start)
    losses: list[float] = []
    recent = 0.0
    for step in range(len(rates)):
        ctx = Ctx(step, len(rates))
        try:
            logs, _ = update(to_device(next(batches), device), ctx, step)
        except NonFinite:
            break
        loss = float(logs[f"{phase.name}/loss"])
        if not math.isfinite(loss):
            break
        losses.append(loss)
        with torch.no_grad():
            task.after_step(ctx)
        recent = loss if step == 0 else 0.7 * recent + 0.3 * loss
        descent = losses[0] - min(losses)
        if step > len(rates) // 10 and recent > losses[0] + BLOWN_UP * max(descent, abs(losses[0])):
            break
    return losses


@contextlib.contextmanager
def _kept(task: Task, optim: Optim) -> Iterator[None]:
    """Everything that a step changes, put back at the end, in place: views into flat buffers stay views."""
    optimizer = optim.optimizer
    tensors = [*task.parameters(), *task.buffers(), *optim.tensors()]
    values = [t.detach().clone() for t in tensors]
    state = copy.deepcopy(list(optimizer.state.values()))
    owners = list(optimizer.state.keys())
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    modes = [(m, m.training) for m in task.modules()]
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    task.train()
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        optimizer.state.clear()
        optimizer.state.update(zip(owners, state, strict=True))
        for group, kept in zip(optimizer.param_groups, groups, strict=True):
            for name in group.keys() - kept.keys() - {"params"}:
                del group[name]
            group.update(kept)
        for flat in optim.flat:
            flat.gradient.zero_()
        inside = {id(f.buffer) for f in optim.flat}
        for p in optim.tensors():
            if id(p) not in inside:
                p.grad = None
        for module, training in modes:
            module.training = training
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def _base(optim: Optim) -> float:
    """The largest rate of the groups: the one that is tried; the others follow in proportion."""
    rate = max(g.get("initial_lr", g["lr"]) for g in optim.optimizer.param_groups)
    if not rate > 0:
        raise ConfigError("every group of the optimizer has learning rate 0; give it any rate, the range test scales it")
    return rate


def _capped(losses: list[float]) -> list[float]:
    """Losses of the explosion at the end cut off, so that smoothing does not carry them back to rates that are fine."""
    if not losses:
        return []
    start = _median(losses[: max(len(losses) // 10, 1)])
    return [min(loss, 2 * start - min(losses)) for loss in losses]


def _smooth(losses: list[float], width: float) -> list[float]:
    """Weighted means with a Gaussian of `width` steps: symmetric, so that it does not shift the curve to higher rates."""
    if not losses:
        return []
    at = torch.arange(len(losses), dtype=torch.float64)
    weights: Tensor = torch.exp(-0.5 * ((at[:, None] - at) / width) ** 2)
    return (weights @ torch.tensor(losses, dtype=torch.float64) / weights.sum(1)).tolist()


def _descent(rates: list[float], losses: list[float], smoothed: list[float]) -> _Descent | None:
    """Where one run goes down; None when it does not."""
    if len(smoothed) < 5:
        return None
    calm = max(len(smoothed) // 10, 3)
    start = _median(smoothed[:calm])
    bottom = min(range(len(smoothed)), key=smoothed.__getitem__)
    drop = start - smoothed[bottom]
    if drop <= 0 or bottom < 2:
        return None
    noise = _median([abs(a - b) for a, b in zip(losses[: bottom + 1], smoothed[: bottom + 1], strict=True)]) * 1.4826
    first = max(k for k in range(bottom + 1) if k == 0 or smoothed[k] > start - 0.1 * drop)
    last = min(k for k in range(bottom + 1) if smoothed[k] <= start - 0.9 * drop)
    first = min(first, last)
    steepest = min(range(first, last + 1), key=lambda k: smoothed[k + 1] - smoothed[max(k - 1, 0)] if k < bottom else 0.0)
    log = [math.log10(r) for r in rates]
    return _Descent(log[first], log[steepest], log[last], drop**2 / (drop**2 + (2 * noise) ** 2))


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
