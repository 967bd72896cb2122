"""The only training loop. A generator of events: the caller prints, plots, streams or stops; it names no family."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from engram.core.batch import Batch, fold, to_device
from engram.core.data import Data
from engram.core.errors import Diverged, RunError
from engram.core.mesh import Mesh
from engram.core.optim import Optim
from engram.core.plan import Evaluated, Event, Plan, Saved, Stepped, Stopped
from engram.core.snapshot import Snapshot, pack, unpack
from engram.core.task import Ctx, Task
from engram.training.average import Average
from engram.training.diagnose import explain
from engram.training.seed import seed_generators
from engram.training.update import NonFinite, Update, check

Keep = Callable[[Snapshot, bool], None]  # (state, is it the best so far)


@dataclass
class Position:
    """Where the run stands; saved with every state."""

    step: int = 0
    draws: int = 0  # batches taken from the training split
    best: float | None = None
    best_step: int = 0
    bad: int = 0  # evaluations since the best


def never() -> bool:
    """The default `stop`: run to the end."""
    return False


def fit(
    task: Task,
    data: Data,
    optims: dict[str, Optim],
    plan: Plan,
    *,
    mesh: Mesh | None = None,
    state: Snapshot | None = None,
    save: Keep | None = None,
    stop: Callable[[], bool] = never,
) -> Iterator[Event]:
    """Train `task` on `data` for `plan.steps` optimizer steps, from `state` if given.

    `save(snapshot, best)` is called with live tensors and must copy them before it returns; `stop()` is asked after every
    step: True saves and ends the run. The networks are on their device already, and so are the tensors of `optims`.

    Raises ConfigError before the first step, Diverged when a loss or gradient is not finite (nothing bad is ever saved).
    """
    mesh = mesh or Mesh()
    check(task, optims, plan)
    device = next(task.parameters()).device
    average = Average(task, plan.ema, [f for o in optims.values() for f in o.flat])
    at = Position()
    if state:
        restore(state, task, optims, average, at)
    updates = [Update(task, phase, optims[phase.key], plan, device) for phase in task.phases()]
    batches = data.batches("train", start=at.draws, part=(mesh.rank, mesh.world))
    pending: dict[str, Tensor] = {}

    def keep(best: bool = False) -> None:
        _ask(pending, at)
        if save:
            save(snapshot(task, optims, average, at, best), best)

    task.train()
    while at.step < plan.steps:
        ctx = Ctx(at.step, plan.steps, mesh)
        wants_layers = at.step % plan.log_every == 0
        logs: dict[str, Tensor] = {}
        layers: dict[str, Tensor] | None = None
        for update in updates:
            if ctx.step % update.phase.every:
                continue
            for _ in range(update.phase.repeat):
                batch = to_device(next(batches), device)
                try:
                    more, norms = update(batch, ctx, at.draws, wants_layers)
                except NonFinite as bad:
                    raise Diverged(explain(bad, task, update, batch, ctx, at.draws)) from None
                at.draws += 1
                logs |= more
                layers = (layers or {}) | norms if norms else layers
        with torch.no_grad():
            task.after_step(ctx)
        average.update()
        at.step += 1
        pending = logs
        last, stopping = at.step == plan.steps, stop()
        yield Stepped(at.step, logs, layers)
        if last or due(at.step, plan.eval_every):
            _ask(pending, at)
            metrics = evaluate(task, data, "val", plan, ctx, average)
            best = judge(metrics, plan, at)
            task.train()
            yield Evaluated(at.step, metrics, best)
            if best:
                keep(best=True)
            patient = not plan.patience or at.bad < plan.patience
            if last or stopping or not patient or due(at.step, plan.save_every):
                keep()
                yield Saved(at.step)
            if not patient:
                yield Stopped(at.step, "patience", at.best_step)
                return
        elif stopping or due(at.step, plan.save_every):
            keep()
            yield Saved(at.step)
        if stopping and not last:
            yield Stopped(at.step, "interrupted", at.best_step)
            return
    yield Stopped(at.step, "done", at.best_step)


def due(step: int, every: int) -> bool:
    """Whether an interval ends at this step; 0 is never."""
    return every > 0 and step % every == 0


def evaluate(task: Task, data: Data, split: str, plan: Plan, ctx: Ctx, average: Average | None = None) -> dict[str, float]:
    """Metrics of one split with the averaged weights, in eval mode; {} when the split is empty. Every rank sees all rows."""
    if not data.size(split):
        return {}
    device = next(task.parameters()).device
    seed_generators(device, fold(plan.seed, "evaluate", split))
    task.eval()

    def moved() -> Iterator[Batch]:
        for batch in data.batches(split):
            yield to_device(batch, device)

    autocast = torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bf16")
    with torch.no_grad(), autocast, (average or Average(task, 0.0)).swapped_in():
        return task.evaluate(moved(), ctx)


def judge(metrics: dict[str, float], plan: Plan, at: Position) -> bool:
    """Whether this evaluation is the best so far; counts the bad ones. Without a validation split the latest is the best."""
    if not metrics:
        at.best_step = at.step
        return True
    value = metrics[plan.watch]
    better = at.best is None or (value < at.best if plan.mode == "min" else value > at.best)
    if better:
        at.best, at.best_step, at.bad = value, at.step, 0
        return True
    at.bad += 1
    return False


def snapshot(task: Task, optims: dict[str, Optim], average: Average, at: Position, best: bool = False) -> Snapshot:
    """Live views of everything that the run needs to go on; for the best state only what predicts."""
    mean = {f"mean/{name}": t for name, t in average.mean.items()}
    tensors: dict[str, Tensor] = {}
    if not (best and mean):
        tensors |= {f"task/{name}": t.detach() for name, t in task.state_dict().items()}
    tensors |= mean
    facts: dict[str, Any] = {"at": {f.name: getattr(at, f.name) for f in fields(at)}}
    if not best:
        facts["optims"] = {key: pack(o.optimizer.state_dict(), f"optim/{key}", tensors) for key, o in optims.items()}
    return Snapshot(tensors, facts)


def restore(state: Snapshot, task: Task, optims: dict[str, Optim], average: Average, at: Position) -> None:
    """Put a snapshot back, in place, so that views and flat buffers stay valid. Raises RunError when it does not fit."""
    live = task.state_dict()
    saved = {name.removeprefix("task/"): t for name, t in state.tensors.items() if name.startswith("task/")}
    if live.keys() != saved.keys() or any(live[n].shape != saved[n].shape for n in live):
        raise RunError("the saved state does not fit this recipe's networks; resume with the knobs that the run was made with")
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(saved[name])
        for name, tensor in average.mean.items():
            tensor.copy_(state.tensors[f"mean/{name}"])
    for key, optim in optims.items():
        optim.optimizer.load_state_dict(unpack(state.facts["optims"][key], state.tensors))
    for name, value in state.facts["at"].items():
        setattr(at, name, value)


def _ask(logs: dict[str, Tensor], at: Position) -> None:
    """On an accelerator losses are looked at here, before anything is judged or saved."""
    for name, value in logs.items():
        if name.endswith(("/loss", "/grad_norm")) and not math.isfinite(float(value)):
            raise Diverged(f"{name} is {float(value)} at or before step {at.step}; lower optim.lr or set precision=fp32")
