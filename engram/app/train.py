"""train and resume: from a recipe to a run folder. With `app.run` the only wiring of data, task, loop, folder and report."""

from __future__ import annotations

import dataclasses
import datetime
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from engram.app.interrupt import Interrupt
from engram.app.recorder import Recorder

from engram.app.machine import (  # isort: skip
    Machine, choose_compile, choose_device, choose_precision, choose_threads, convolutional, describe, keep_memory,
    step_seconds,
)  # fmt: skip
from engram.checkpoint.folder import RunFolder
from engram.checkpoint.writer import StateWriter
from engram.core.data import Data, Note
from engram.core.errors import ConfigError, OutOfMemory
from engram.core.knobs import build, idle, older, to_json, values_of
from engram.core.optim import Optim
from engram.core.plan import Event, Plan, Stopped
from engram.core.recipe import Recipe
from engram.core.snapshot import Snapshot
from engram.core.task import Task
from engram.recipes import find
from engram.training.fit import fit
from engram.training.mesh import from_environment
from engram.training.state import snapshot_size


@dataclass
class Job:
    """Everything that one run needs, built but not started."""

    name: str
    recipe: Recipe
    data: Data
    task: Task
    optims: dict[str, Optim]
    plan: Plan
    machine: Machine

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.task.parameters()).device

    @property
    def parameters(self) -> int:
        """Trained numbers."""
        return sum(p.numel() for p in self.task.parameters() if p.requires_grad)


Watcher = Callable[[Event, "Job"], None]


def make_recipe(recipe: str | type[Recipe] | Recipe, knobs: dict[str, Any]) -> tuple[str, Recipe]:
    """A recipe with its knobs set. Raises ConfigError for unknown names, keys and values."""
    if isinstance(recipe, Recipe):
        if knobs:
            recipe = build(type(recipe), values_of(recipe) | knobs)  # values as they are: data may be an object
        return recipe_name(type(recipe)), recipe
    cls = find(recipe) if isinstance(recipe, str) else recipe
    name = recipe if isinstance(recipe, str) else recipe_name(cls)
    return name, build(cls, knobs, name)


def recipe_name(cls: type[Recipe]) -> str:
    """'cnn' for the built-in recipes; 'custom:Name' for a class of the user's own."""
    package, _, module = cls.__module__.rpartition(".")
    return module if package == "engram.recipes" else f"custom:{cls.__name__}"


def prepare(name: str, recipe: Recipe, chosen: Machine | None = None, fresh: bool = True) -> Job:
    """Read the data, build the networks, choose what suits this machine (or take what a run chose before).

    Without `fresh` a saved state will replace the weights: the run that they came from is not needed, and may be gone.
    """
    keep_memory()
    device = choose_device(recipe.device)
    data = recipe.make_data()
    learned = recipe.learned(data.spec)
    if useless := idle(recipe, learned):
        note = Note("warning", f"this run learns {learned}; without effect: {', '.join(useless)}")
        data.summary = dataclasses.replace(data.summary, notes=(*data.summary.notes, note))
    data.to(device)
    torch.manual_seed(recipe.seed)
    try:
        task = recipe.make_task(data.spec).to(device)
    except ValueError as error:  # a layer that refuses its size or name
        raise ConfigError(f"{name}: {error}") from error
    if recipe.start_from and fresh:
        start_from(task, recipe.start_from)
    if chosen:
        machine = chosen
        torch.set_num_threads(chosen.threads)
    else:
        precision, why_precision = choose_precision(recipe, task, device)
        channels_last = convolutional(task)
        task = lay_out(task, channels_last)
        threads, why_threads = choose_threads(recipe.threads, task, data, device, precision)
        torch.set_num_threads(threads)
        plan = recipe.make_plan(data, precision=precision)
        compiled, why_compile = choose_compile(
            recipe.compile, plan.steps, device, lambda: step_seconds(task, data, device, precision)
        )
        why = tuple(w for w in (why_precision, why_threads, why_compile) if w)
        machine = Machine(str(device), precision, channels_last, threads, compiled, why)
    lay_out(task, machine.channels_last)
    plan = recipe.make_plan(data, precision=machine.precision, channels_last=machine.channels_last, compile=machine.compile)
    optims = recipe.make_optims(task)
    if machine.compile:
        for network in task.children():
            network.compile()
    return Job(name, recipe, data, task, optims, plan, machine)


def lay_out(task: Task, channels_last: bool) -> Task:
    """Convolution weights in the layout that the kernels read fastest."""
    return task.to(memory_format=torch.channels_last) if channels_last else task  # type: ignore[call-overload]


def start_from(task: Task, run: str) -> None:
    """Load the weights of another run where name and shape agree. Raises ConfigError when nothing does."""
    saved = weights_of(RunFolder.open(run).read_weights())
    live = task.state_dict()
    common = {n: t for n, t in saved.items() if n in live and live[n].shape == t.shape}
    if not common:
        raise ConfigError(f"start_from={run}: none of its weights fits this network; use the same recipe and sizes")
    task.load_state_dict(common, strict=False)


def weights_of(snapshot: Snapshot) -> dict[str, torch.Tensor]:
    """The weights to predict with: the averaged ones when the run kept an average."""
    for prefix in ("mean/", "task/"):
        found = {n.removeprefix(prefix): t for n, t in snapshot.tensors.items() if n.startswith(prefix)}
        if found:
            return found
    return {}


def write_start(job: Job, folder: RunFolder, command: list[str]) -> None:
    """run.json: what the run is, before its first step."""
    summary = job.data.summary
    folder.write_info({
        "recipe": job.name,
        "knobs": to_json(job.recipe),
        "spec": job.data.spec.to_json(),
        "data": {
            "title": summary.title, "rows": summary.rows, "facts": summary.facts, "sha256": summary.sha256,
            "notes": [{"level": n.level, "text": n.text} for n in summary.notes],
        },
        "machine": job.machine.to_json(),
        "plan": {"steps": job.plan.steps, "steps_per_epoch": job.data.steps_per_epoch, "watch": job.plan.watch,
                 "mode": job.plan.mode, "batch": job.data.batch},
        "parameters": job.parameters,
        "seed": job.recipe.seed,
        "versions": describe(),
        "command": shlex.join(command),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    })  # fmt: skip


def run_job(job: Job, folder: RunFolder | None, watch: Watcher, state: Snapshot | None = None) -> Stopped:
    """Train, recording metrics and states in the folder. Raises what fit raises; the folder then still resumes."""
    mesh = from_environment(job.device)
    log = folder.log() if folder else None
    writer = StateWriter()
    end = Stopped(0, "done", 0)
    try:
        if log and (state or log.begun):  # one that was killed before its first save begins again
            log.write("resume", state.facts["at"]["step"] if state else 0)
        if folder:
            writer.prepare(folder.state, snapshot_size(job.task, job.optims, job.plan))
        with Interrupt() as interrupt:
            keep = _keeper(folder, writer) if folder else None
            recorder = Recorder(log, job.plan)
            for event in fit(job.task, job.data, job.optims, job.plan, mesh=mesh, state=state, save=keep, stop=interrupt.asked):
                recorder(event)
                watch(event, job)
                if isinstance(event, Stopped):
                    end = event
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        raise explained(error, job) from error
    finally:
        try:
            writer.close()
        finally:
            if log:
                log.close()
    return end


def explained(error: BaseException, job: Job) -> BaseException:
    """Out of memory as OutOfMemory with what to do; anything else as it is."""
    text = str(error).lower()
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in text or "out of memory" in text:
        return OutOfMemory(
            f"out of memory on {job.device} with batch={job.data.batch}; set accumulate=2 (same result, half the memory), "
            "a smaller batch, or a smaller network"
        )
    return error


def _keeper(folder: RunFolder, writer: StateWriter) -> Callable[[Snapshot, bool], None]:
    def keep(snapshot: Snapshot, best: bool) -> None:
        writer.save(folder.weights if best else folder.state, snapshot)

    return keep


def resume_job(folder: RunFolder, recipe: type[Recipe] | None = None, data: Any = None) -> tuple[Job, Snapshot | None]:
    """The job of a run as it was, on the same choices, and its last state (None when it stopped before the first save)."""
    info = folder.info()
    name = info["recipe"]
    cls = recipe or recipe_of(name, folder)
    made = build(cls, older(cls, info["knobs"]) | ({} if data is None else {"data": data}), name)
    machine = Machine.from_json(info["machine"])
    job = prepare(name, made, machine, fresh=not folder.state.exists())
    if info["data"]["sha256"] != job.data.summary.sha256:
        raise ConfigError(
            f"the data has changed since {folder.path} was started (its sha256 differs): an exact resume is impossible; "
            f"train again, or start from its weights with start_from={folder.path}"
        )
    return job, folder.read_state() if folder.state.exists() else None


def recipe_of(name: str, folder: RunFolder) -> type[Recipe]:
    """The class of a built-in recipe; a custom one must be given, because a run never runs code of its own accord."""
    if name.startswith("custom:") or name.endswith(".py"):
        what = name.removeprefix("custom:")
        raise ConfigError(f"{folder.path} was trained with your own recipe {what}: pass it (recipe={what}, or --recipe FILE)")
    return find(name)


def is_chief() -> bool:
    """Whether this process writes: rank 0, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def default_command() -> list[str]:
    """The command line as typed, for run.json."""
    return ["engram", *sys.argv[1:]] if sys.argv and sys.argv[0].endswith("engram") else sys.argv or ["python"]
