"""Engram as a contender: what `engram train` does, into a run folder that is thrown away."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from benchmarks.loops import TorchContestant
from benchmarks.workloads import Workload, workload
from engram.app.machine import Machine
from engram.app.progress import Progress
from engram.app.train import Job, prepare, run_job, write_start
from engram.checkpoint.folder import RunFolder
from engram.core.batch import Batch
from engram.core.data import Data, Summary
from engram.core.knobs import knob
from engram.core.optim import Optim
from engram.core.predictor import Predictor
from engram.core.recipe import Recipe
from engram.core.spec import Spec, as_tensor
from engram.core.task import Task
from engram.data.memory import MemoryData
from engram.inference.classify import Classifier
from engram.models.mlp import MLP
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.classify import Classify


@dataclass(frozen=True, kw_only=True)
class ArraySpec(Spec):
    """Rows of numbers of one shape."""

    shape: tuple[int, ...]
    classes: tuple[str, ...]

    def encode(self, raw: Any) -> Batch:
        """An array of rows."""
        return {"x": as_tensor(raw)}

    def read(self, source: Any, rows: int = 256) -> Iterator[tuple[list[str], Any]]:
        """An array in chunks."""
        for start in range(0, len(source), rows):
            chunk = source[start : start + rows]
            yield [str(start + i) for i in range(len(chunk))], chunk

    def labelled(self, source: Any, rows: int = 256) -> Iterator[Batch]:
        """(array, class numbers) in chunks."""
        x, y = source
        for start in range(0, len(x), rows):
            yield self.encode(x[start : start + rows]) | {"y": as_tensor(y[start : start + rows], torch.int64)}

    def example(self, batch: int = 2) -> Batch:
        """Rows of zeros."""
        return {"x": torch.zeros(batch, *self.shape)}


@dataclass(frozen=True, kw_only=True)
class Workbench(Recipe):
    """A workload as a recipe. There is no validation split, so one epoch costs the other contenders' steps and no more."""

    tiny: ClassVar = {"quick": True}
    specs: ClassVar = (ArraySpec,)

    work: str = knob("mlp", "mlp, cnn or table")
    quick: bool = knob(False, "a few steps of synthetic data")
    epochs: float = knob(1.0, "passes over the training rows", low=0)
    optim: OptimKnobs = knob(OptimKnobs(name="adam", lr=1e-3, schedule="constant", warmup=0.0), "as the other contenders")

    def make_data(self) -> Data:
        """The workload's rows."""
        return arrays(workload(self.work, self.quick), self.seed)

    def make_task(self, spec: Spec) -> Task:
        """The workload's network with cross-entropy."""
        assert isinstance(spec, ArraySpec)
        return Classify(network(workload(self.work, True)))

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for the one phase."""
        return {phase.key: build(task, self.optim) for phase in task.phases()}

    def make_predictor(self, task: Task, spec: Spec) -> Predictor:
        """Classes with probabilities."""
        assert isinstance(spec, ArraySpec)
        return Classifier(task.get_submodule("model"), spec, spec.classes)


def arrays(work: Workload, seed: int = 0) -> MemoryData:
    """A workload as Engram's data in memory."""
    spec = ArraySpec(shape=tuple(work.x.shape[1:]), classes=tuple(map(str, range(work.classes))))
    summary = Summary(work.about, {"train": len(work.x)})
    return MemoryData(spec, summary, {"train": {"x": work.x, "y": work.y}}, batch=work.batch, seed=seed)


def network(work: Workload) -> nn.Module:
    """The workload's architecture; the dense ones as Engram's own MLP."""
    return MLP(work.x.shape[1], work.classes, work.hidden) if work.hidden else work.network()


class Engram(TorchContestant):
    """run_job with everything on that `engram train` has on: progress, metrics file, guards, clipping, states on disk."""

    note = "progress, metrics file, non-finite guard, clipping, state on disk; fp32, contiguous layout, threads as the others"
    allocator = "freed blocks kept (mallopt)"
    knobs: ClassVar[dict[str, Any]] = {"precision": "fp32"}

    def build(self, seed: int) -> None:
        """See Contestant."""
        self._scratch = tempfile.TemporaryDirectory()
        work = self.work
        recipe = Workbench(work=work.name, quick=work.quick, batch=work.batch, seed=seed + 1, **self.knobs)
        self.job = self.prepare(recipe)
        self.network = self.job.task.get_submodule("model")
        self.folder = RunFolder.create(Path(self._scratch.name) / "run", "run")
        write_start(self.job, self.folder, ["benchmark"])

    def prepare(self, recipe: Recipe) -> Job:
        """The job on a machine whose choices are fixed."""
        threads = self.threads or torch.get_num_threads()
        return prepare("workbench", recipe, Machine("cpu", "fp32", False, threads, False, ("as set by the benchmark",)))

    def train(self) -> None:
        """See Contestant."""
        show = Progress()
        show.start(self.job, self.folder, None)
        try:
            run_job(self.job, self.folder, lambda event, job: show(event))
        finally:
            show.stop()

    def measure(self) -> dict[str, float]:
        """See Contestant. Raises RuntimeError when the run was not saved or took another number of steps."""
        saved = self.folder.read_state().facts["at"]["step"]
        if saved != self.work.steps:
            raise RuntimeError(f"the saved state is of step {saved}, not {self.work.steps}")
        self._scratch.cleanup()
        return super().measure()


class EngramDefault(Engram):
    """All defaults: number format, layout and threads as Engram chooses them on this machine. The probe counts as setup."""

    note = "as engram, and precision, channels-last layout and threads chosen by Engram itself"
    precision = "auto"
    knobs: ClassVar[dict[str, Any]] = {}

    def __init__(self, work: Workload, threads: int):
        super().__init__(work, 0)

    def prepare(self, recipe: Recipe) -> Job:
        """The job with everything chosen here and now."""
        return prepare("workbench", recipe)

    def run(self, seed: int) -> dict[str, Any]:
        """See Contestant; says what was chosen."""
        reply = super().run(seed)
        machine = self.job.machine
        layout = " channels-last" if machine.channels_last else ""
        return reply | {"chosen": {"precision": f"{machine.precision}{layout}", "threads": machine.threads}}
