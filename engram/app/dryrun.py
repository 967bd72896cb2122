"""What `train` would do, without doing it: the recipe, the network, the data, the machine, memory and time. Writes nothing."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict
from itertools import islice
from typing import Any

import torch

from engram.app.pick import pick
from engram.app.train import Job, explained, make_recipe, prepare
from engram.core.batch import rows, to_device
from engram.core.errors import Diverged
from engram.core.knobs import knobs_of, to_json
from engram.core.task import Ctx
from engram.insight.summary import memory_estimate, summarise
from engram.training.guard import NonFinite
from engram.training.update import Update

WARM, STEPS, SECONDS = 2, 10, 3.0  # steps before the clock starts; then at most so many steps and seconds


def dry_run(recipe: Any = "cnn", knobs: dict[str, Any] | None = None) -> dict[str, Any]:
    """What would be trained, as JSON values. The network of this look takes a few steps to time them and is thrown away.

    Raises what `train` raises before its first step, Diverged and OutOfMemory from the timed steps.
    """
    recipe, chosen, why = pick(recipe, knobs or {})
    name, made = make_recipe(recipe, chosen)
    job = prepare(name, made)
    example = to_device(next(job.data.batches("train")), job.device)
    try:
        memory = memory_estimate(
            job.task, example, job.optims, batch_rows=-(-rows(example) // made.accumulate),
            bf16=job.plan.precision == "bf16", ema=job.plan.ema > 0,
        )  # fmt: skip
        layers = summarise(job.task, {key: value[:2] for key, value in example.items()})
        seconds = _time(job)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        raise explained(error, job) from error
    summary = job.data.summary
    defaults = {key: info.default for key, info in knobs_of(type(made)).items()}
    resolved = to_json(made)
    return {
        "recipe": name,
        "why": why,
        "knobs": resolved,
        "changed": [key for key in resolved if not _same(resolved[key], defaults[key])],
        "data": {
            "title": summary.title,
            "rows": summary.rows,
            "facts": summary.facts,
            "notes": [{"level": note.level, "text": note.text} for note in summary.notes],
        },
        "parameters": job.parameters,
        "layers": [dict(asdict(layer), shape=list(layer.shape)) for layer in layers],
        "steps": job.plan.steps,
        "steps_per_epoch": job.data.steps_per_epoch,
        "evaluations": job.plan.steps // job.plan.eval_every + (job.plan.steps % job.plan.eval_every > 0),
        "memory": memory,
        "seconds": seconds,
        "machine": job.machine.to_json(),
    }


def _same(value: Any, default: Any) -> bool:
    return value == (list(default) if isinstance(default, tuple) else default)


def _time(job: Job) -> dict[str, float]:
    """Seconds of a step, of an evaluation, and of the whole run. `prepare` made this network for the look alone."""
    updates = [Update(job.task, phase, job.optims[phase.key], job.plan, job.device) for phase in job.task.phases()]
    batches = job.data.batches("train")
    job.task.train()
    taken: list[float] = []
    begun = time.perf_counter()
    staged = any(u.phase.since > 0 or u.phase.until < 1 for u in updates)
    most = min(WARM + STEPS, job.plan.steps + WARM)
    for step in range(most):
        at = step * job.plan.steps // most if staged else min(step, job.plan.steps - 1)  # some steps of every stage
        ctx = Ctx(at, job.plan.steps)
        start = time.perf_counter()
        try:
            for update in updates:
                if update.phase.runs_at(ctx):
                    for _ in range(update.phase.repeat):
                        update(to_device(next(batches), job.device), ctx, step)
                if found := update.guard.found():
                    raise found.bad
        except NonFinite as bad:
            raise Diverged(f"the {bad} is not finite at step {step + 1} already; lower optim.lr") from None
        _finish(job.device)
        taken.append(time.perf_counter() - start)
        if step > WARM and time.perf_counter() - begun > SECONDS:
            break
    step_seconds = (statistics.mean if staged else statistics.median)(taken[WARM:] or taken)
    evaluation = _time_evaluation(job)
    evaluations = -(-job.plan.steps // job.plan.eval_every)
    return {
        "step": step_seconds,
        "evaluation": evaluation,
        "total": step_seconds * job.plan.steps + evaluation * evaluations,
    }


@torch.no_grad()
def _time_evaluation(job: Job) -> float:
    """Seconds of one pass over the validation rows, from its first two batches."""
    size = job.data.size("val")
    if not size:
        return 0.0
    some = [to_device(batch, job.device) for batch in islice(job.data.batches("val"), 2)]
    job.task.eval()
    start = time.perf_counter()
    job.task.evaluate(some, Ctx(0, job.plan.steps))
    _finish(job.device)
    return (time.perf_counter() - start) * size / sum(map(rows, some))


def _finish(device: torch.device) -> None:
    """Wait for an accelerator, which works on while Python goes ahead."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
