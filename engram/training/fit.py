"""The only training loop. A generator of events: the caller prints, plots, streams or stops; it names no family."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from engram.core.batch import Batch, fold, to_device
from engram.core.data import Data
from engram.core.errors import ConfigError, Diverged
from engram.core.mesh import Mesh
from engram.core.optim import Optim
from engram.core.plan import Evaluated, Event, Plan, Saved, Stepped, Stopped
from engram.core.snapshot import Snapshot
from engram.core.task import Ctx, Task
from engram.training.average import Average
from engram.training.check import check
from engram.training.diagnose import explain, explain_later
from engram.training.guard import Guard, NonFinite
from engram.training.seed import seed_generators
from engram.training.state import Position, restore, snapshot
from engram.training.update import Update

Keep = Callable[[Snapshot, bool], None]  # (state, is it the best so far)


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
    step (with several ranks every `plan.log_every` steps, and one of them is enough): True saves and ends the run. The
    networks are on their device already, and so are the tensors of `optims`.

    Raises ConfigError before the first step, Diverged when a loss or gradient is not finite (nothing bad is ever saved).
    """
    mesh = mesh or Mesh()
    check(task, optims, plan)
    device = next(task.parameters()).device
    average = Average(task, plan.ema, [f for o in optims.values() for f in o.flat])
    at = Position()
    if state:
        restore(state, task, optims, average, at)
    guard = Guard(device)
    updates = [Update(task, phase, optims[phase.key], plan, device, guard) for phase in task.phases()]
    batches = data.batches("train", start=at.draws, part=(mesh.rank, mesh.world))

    def ask() -> None:
        if found := guard.found():
            raise Diverged(explain_later(found, task, data))

    def keep(best: bool = False) -> None:
        ask()
        _ask_weights(task, at)
        if save:
            save(snapshot(task, optims, average, at, best), best)

    moves = type(task).after_step is not Task.after_step
    ranked = max(phase.stage(plan.steps)[0] for phase in task.phases())  # before it a network is judged that does not train yet
    task.train()
    if patience_is_over(at, plan):
        yield Stopped(at.step, "patience", at.best_step)
        return
    while at.step < plan.steps:
        ctx = Ctx(at.step, plan.steps, mesh)
        wants_layers = at.step == 0 or due(at.step + 1, plan.log_every)
        logs: dict[str, Tensor] = {}
        layers: dict[str, Tensor] | None = None
        for update in updates:
            if not update.phase.runs_at(ctx):
                continue
            for _ in range(update.phase.repeat):
                batch = to_device(next(batches), device)
                try:
                    more, norms = update(batch, ctx, at.draws, wants_layers)
                except NonFinite as bad:
                    why = explain(bad, task, update, batch, ctx, at.draws)
                    update.undo()
                    raise Diverged(why) from None
                at.draws += 1
                logs |= more
                layers = (layers or {}) | norms if norms else layers
        if moves:
            seed_generators(device, fold(plan.seed, "after", at.step))
            with torch.no_grad():
                task.after_step(ctx)
        if plan.ema:
            average.update(at.step)
        at.step += 1
        if due(at.step, plan.log_every):
            ask()
        last, stopping = at.step == plan.steps, asked(stop, at, plan, mesh, device)
        yield Stepped(at.step, logs, layers)
        if last or due(at.step, plan.eval_every):
            ask()
            metrics = evaluate(task, data, "val", plan, ctx, average)
            shown = show(task, plan, ctx, average)
            best = (last or at.step > ranked) and judge(metrics, plan, at)
            task.train()
            yield Evaluated(at.step, metrics, best, shown)
            if best:
                keep(best=True)
            patient = not patience_is_over(at, plan)
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


def asked(stop: Callable[[], bool], at: Position, plan: Plan, mesh: Mesh, device: torch.device) -> bool:
    """Whether to stop. Ranks hear of a signal at different steps, so they agree: one that left alone would hang the rest."""
    if mesh.world == 1:
        return stop()
    return due(at.step, plan.log_every) and bool(mesh.sum(torch.tensor(float(stop()), device=device)))


def patience_is_over(at: Position, plan: Plan) -> bool:
    """Whether too many evaluations brought no improvement; also when resuming a run that stopped for it."""
    return plan.patience > 0 and at.bad >= plan.patience


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
        return task.evaluate(moved(), Ctx(ctx.step, ctx.steps))  # one process: no rank has rows that another lacks


def show(task: Task, plan: Plan, ctx: Ctx, average: Average) -> Tensor | None:
    """What the task shows of itself with the averaged weights; None for most."""
    if type(task).show is Task.show:
        return None
    device = next(task.parameters()).device
    task.eval()
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bf16")
    with torch.no_grad(), autocast, average.swapped_in():
        return task.show(ctx)


def judge(metrics: dict[str, float], plan: Plan, at: Position) -> bool:
    """Whether this evaluation is the best so far; counts the bad ones. Without a validation split the latest is the best."""
    if not metrics:
        at.best_step = at.step
        return True
    if plan.watch not in metrics:
        raise ConfigError(f"there is no metric {plan.watch!r} to watch; the task gives {', '.join(metrics)}")
    value = metrics[plan.watch]
    better = at.best is None or (value < at.best if plan.mode == "min" else value > at.best)
    if better and not math.isnan(value):
        at.best, at.best_step, at.bad = value, at.step, 0
        return True
    at.bad += 1
    return False


def _ask_weights(task: Task, at: Position) -> None:
    """Nothing bad is ever saved: the last update may have carried weights out of range though its loss was still finite."""
    held = {name: t for name, t in task.state_dict().items() if t.is_floating_point() and t.numel()}
    largest = torch.stack([torch.linalg.vector_norm(t, math.inf).float() for t in held.values()])
    if not largest.isfinite().all():
        bad = [name for name, value in zip(held, largest.tolist(), strict=True) if not math.isfinite(value)]
        raise Diverged(f"{', '.join(bad[:3])} is not finite after step {at.step}; lower optim.lr or set precision=fp32")
