"""The verbs from Python: train, resume, compare, find_lr. The command line calls these and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engram.app.pick import pick
from engram.app.progress import Progress, silent
from engram.app.run import Run, load
from engram.app.views import write_shown

from engram.app.train import (  # isort: skip
    Job, default_command, is_chief, make_recipe, prepare, resume_job, run_job, weights_of, write_start,
)  # fmt: skip
from engram.checkpoint.folder import RunFolder
from engram.core.errors import EngramError
from engram.core.plan import Evaluated, Event, Stopped
from engram.core.recipe import Recipe
from engram.core.snapshot import Snapshot

if TYPE_CHECKING:
    from engram.training.find_lr import LRRange

Listener = Callable[[Event], None]


class Interrupted(EngramError):
    """The user stopped the run; its state is saved and `engram resume` goes on (exit code 130)."""

    exit_code = 130


def train(
    recipe: str | type[Recipe] | Recipe = "cnn",
    *,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
    report: bool = True,
    on_event: Listener | None = None,
    command: list[str] | None = None,
    **knobs: Any,
) -> Run:
    """Train a network and return its run.

    `recipe` is the name of a recipe ("cnn"), your own Recipe, or the path of your data ("houses.csv", "photos/"): then Engram
    looks at the data and picks the network. `knobs` are the recipe's fields: epochs=5, optim={"lr": 0.01}.

    Raises ConfigError, DataError, Diverged, OutOfMemory, RunError; Interrupted after Ctrl-C, with the state saved.
    """
    recipe, knobs, why = pick(recipe, knobs)
    name, made = make_recipe(recipe, knobs)
    show = Progress() if progress and is_chief() else silent
    for line in why:
        show.say(line)
    job = prepare(name, made)
    folder = None
    if is_chief():
        folder = RunFolder.create(out, f"{name.removeprefix('custom:')}-{_short(made.data)}")
        write_start(job, folder, command or default_command())
    return _go(job, folder, show, report, on_event, None)


def resume(
    run: str | os.PathLike[str],
    *,
    recipe: type[Recipe] | None = None,
    data: Any = None,
    progress: bool = True,
    report: bool = True,
    on_event: Listener | None = None,
) -> Run:
    """Go on with a run that was stopped, killed or crashed: bit for bit what it would have become without the stop.

    `data` is needed only when the run was given a DataFrame, which the folder does not hold.
    """
    folder = RunFolder.open(run)
    last = folder.read_metrics()[-1:] or [{}]
    show = Progress() if progress and is_chief() else silent
    if folder.read_result() or (last[0].get("kind") == "stop" and last[0].get("reason") != "interrupted"):
        show.say(f"{folder.path} has finished at step {last[0].get('step', '?')}; nothing to resume")
        if folder.read_result():
            return load(folder.path, recipe=recipe)
    job, state = resume_job(folder, recipe, data)
    return _go(job, folder if is_chief() else None, show, report, on_event, state)


def _go(job: Job, folder: RunFolder | None, show: Any, report: bool, on_event: Listener | None, state: Snapshot | None) -> Run:
    show.start(job, folder, state)

    def watch(event: Event, job: Job) -> None:
        show(event)
        if isinstance(event, Evaluated) and event.shown is not None and folder:
            write_shown(folder.path, job.data.spec, event.shown, event.step)
        if on_event:
            on_event(event)

    try:
        end = run_job(job, folder, watch, state)
    finally:
        show.stop()
    if end.reason == "interrupted":
        where = folder.path if folder else "RUN"
        raise Interrupted(f"stopped at step {end.step:,}; the state is saved. Go on with: engram resume {where}")
    return _finish(job, folder, show, report, end)


def _finish(job: Job, folder: RunFolder | None, show: Any, report: bool, end: Stopped) -> Run:
    """The chosen weights, the test split once, the report."""
    from engram.app.finish import finish
    from engram.app.inside import write_inside
    from engram.app.report import write_report

    if folder is None:
        raise SystemExit(0)  # another rank writes; this one is done
    if end.step or not folder.weights.exists():
        job.task.load_state_dict(weights_of(folder.read_weights()))
    job.task.eval()
    result = finish(job, folder, job.recipe.make_predictor(job.task, job.data.spec), show.say)
    run = load(folder.path, recipe=type(job.recipe))
    write_inside(run, job.data)
    if report:
        write_report(folder)
    show.finished(result, folder)
    return run


def compare(*runs: str | os.PathLike[str]) -> dict[str, Any]:
    """Several runs side by side: knobs that differ, test figures with intervals, and whether the difference is chance."""
    from engram.app.compare import compare as side_by_side

    return side_by_side([RunFolder.open(run) for run in runs])


def find_lr(recipe: str | type[Recipe] | Recipe = "cnn", *, progress: bool = True, **knobs: Any) -> LRRange:
    """A range of learning rates that train, with a confidence (range test, Smith 2015). Keeps nothing."""
    from engram.training.find_lr import find_lr as search

    recipe, knobs, why = pick(recipe, knobs)
    show = Progress() if progress else silent
    for line in why:
        show.say(line)
    job = prepare(*make_recipe(recipe, knobs))
    (phase, *_) = job.task.phases()
    return search(job.task, job.data, job.optims[phase.key], seed=job.recipe.seed, plan=job.plan)


def _short(data: Any) -> str:
    """What to call the run after its data."""
    if not isinstance(data, (str, os.PathLike)):
        return type(data).__name__.lower()
    return os.path.splitext(os.path.basename(os.path.normpath(data)))[0] or "data"


__all__ = ["Interrupted", "Run", "compare", "find_lr", "load", "resume", "train"]
