"""Engram as a contender of `images`: what `engram train` and `engram sample` do, in fp32 and as it chooses by itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import torch

from benchmarks.image_peers import Contestant as Other
from benchmarks.image_peers import pictures
from benchmarks.worker import Timed

from benchmarks.image_peers import (  # isort: skip
    CODE, GAN_BATCH, GAN_WIDTHS, HIDDEN, LATENT, PICTURES, ROWS, SIDE, VAE_BATCH, WIDTHS,
)  # fmt: skip
from engram.app.machine import Machine
from engram.app.progress import Progress
from engram.app.run import load
from engram.app.train import Job, make_recipe, prepare, run_job, write_start
from engram.checkpoint.folder import RunFolder
from engram.core.plan import Stepped
from engram.data.memory import MemoryData
from engram.data.noisy import Noisy

CONSTANT = {"optim.schedule": "constant", "optim.warmup": 0.0}
DDPM = {"data": "digits", "size": SIDE, "batch": PICTURES, "widths": WIDTHS, "blocks": 2, "conditional": False,
        "sample_steps": 2, **CONSTANT}  # fmt: skip


class Training(Other):
    """`run_job` with progress, metrics, guard and a saved state, on data without a validation split; all that in fp32."""

    note = "progress, metrics file, non-finite guard; contiguous layout"
    allocator = "freed blocks kept (mallopt)"
    recipe = ""
    side, batch = 28, 1
    knobs: ClassVar[dict[str, Any]] = {}
    low = -1.0  # black, as the network reads it

    def build(self) -> None:
        """The knobs; the job itself is new in each round."""
        job = self._job(0)
        self.note += f"; {job.parameters:,} weights"

    def run(self, number: int) -> dict[str, Any]:
        """See Contestant. Building is outside the clock, and so is what follows the last step: the film and the last state."""
        job, clock = self._job(number + 1), Timed()
        logs: dict[str, torch.Tensor] = {}

        def watch(event: Any, job: Job) -> None:
            show(event)
            if isinstance(event, Stepped) and event.step == self.steps:
                clock.__exit__(None, None, None)
                logs.update(event.logs)

        show = Progress()
        with tempfile.TemporaryDirectory() as place:
            folder = RunFolder.create(Path(place) / "run", "run")
            write_start(job, folder, ["benchmark"])
            show.start(job, folder, None)
            try:
                clock.__enter__()
                run_job(job, folder, watch)
            finally:
                show.stop()
        layout = " channels-last" if job.machine.channels_last else ""
        return clock.to_json() | {
            "units": self.steps, "figures": {n: float(v) for n, v in logs.items() if n.endswith("/loss")},
            "chosen": {"precision": job.machine.precision + layout, "threads": job.machine.threads},
        }  # fmt: skip

    def machine(self) -> Machine | None:
        """The machine that the round runs on; None lets Engram choose."""
        return Machine("cpu", "fp32", False, self.threads, False, ("as set by the benchmark",))

    def _job(self, seed: int) -> Job:
        knobs = self.knobs | {"batch": self.batch, "steps": self.steps, "seed": seed}
        return job_of(self.recipe, knobs, pictures(self.batch * self.steps, self.side), self.low, self.machine())


def job_of(recipe: str, knobs: dict[str, Any], x: torch.Tensor, low: float, machine: Machine | None) -> Job:
    """A job on pictures x of -1..1, brought to low..1, without validation and test rows."""
    job = prepare(*make_recipe(recipe, knobs), machine)
    held = job.data
    rows = {"x": (x + 1) / 2 if low == 0 else x, "y": torch.arange(len(x)) % 10}
    data = MemoryData(held.spec, held.summary, {"train": rows}, batch=job.recipe.batch, seed=job.recipe.seed)
    job.data = Noisy(data, held.normal, held.uniform, job.recipe.seed) if isinstance(held, Noisy) else data
    return job


class AsChosen(Training):
    """Number format, layout and threads as Engram chooses them."""

    note = "as engram, with number format, layout and threads of its own choice"

    def machine(self) -> Machine | None:
        """See Training."""
        return None


class UNetStep(Training):
    """A step of `ddpm`."""

    recipe, side, batch, knobs = "ddpm", SIDE, PICTURES, DDPM


class UNetDefault(AsChosen):
    """A step of `ddpm`, as chosen."""

    recipe, side, batch, knobs = "ddpm", SIDE, PICTURES, DDPM


class GanStep(Training):
    """A step of `gan` without R1."""

    recipe, batch = "gan", GAN_BATCH
    knobs: ClassVar = {"data": "digits", "size": 28, "r1": 0.0, "latent": LATENT, "width": GAN_WIDTHS[0],
                       "discriminator_width": GAN_WIDTHS[1], "norm": "none", "conditional": False, **CONSTANT}  # fmt: skip


class GanDefault(AsChosen):
    """The same as chosen."""

    recipe, batch, knobs = "gan", GAN_BATCH, GanStep.knobs


class VaeStep(Training):
    """A step of `vae`."""

    recipe, batch, steps, low = "vae", VAE_BATCH, ROWS // VAE_BATCH, 0.0
    knobs: ClassVar = {
        "data": "digits",
        "size": 28,
        "latent": CODE,
        "hidden": (HIDDEN, HIDDEN),
        "activation": "tanh",
        "evals": 1,  # as the default for one epoch of so many rows
        **CONSTANT,
    }


class VaeDefault(AsChosen):
    """The same as chosen."""

    recipe, batch, steps, low, knobs = "vae", VAE_BATCH, ROWS // VAE_BATCH, 0.0, VaeStep.knobs


class Sampling(Other):
    """`engram.load(run).sample(16, steps=20, sampler="dpm++")` of a run of one step."""

    note = "engram.load(run).sample, fp32, contiguous layout"
    steps = 20
    allocator = "freed blocks kept (mallopt)"

    def build(self) -> None:
        """A run folder."""
        self._place = tempfile.TemporaryDirectory()
        job = job_of("ddpm", DDPM | {"steps": 1, "seed": 0}, pictures(PICTURES, SIDE), -1.0, self.machine())
        folder = RunFolder.create(Path(self._place.name) / "run", "run")
        write_start(job, folder, ["benchmark"])
        run_job(job, folder, lambda event, job: None)
        layout = " channels-last" if job.machine.channels_last else ""
        self.precision = job.machine.precision + layout
        self.threads = job.machine.threads
        torch.set_num_threads(self.threads)
        self.made = load(folder.path)
        self.note += f"; {job.parameters:,} weights"

    def machine(self) -> Machine | None:
        """The machine that the run was made on; None lets Engram choose."""
        return Machine("cpu", "fp32", False, self.threads, False, ("as set by the benchmark",))

    def go(self) -> dict[str, float]:
        """See Contestant."""
        for _ in self.made.sample(PICTURES, seed=0, steps=self.steps, sampler="dpm++"):
            pass
        return {}


class SamplingDefault(Sampling):
    """Number format, layout and threads as Engram chooses them."""

    note = "engram.load(run).sample, number format, layout and threads of its own choice"

    def machine(self) -> Machine | None:
        """See Sampling."""
        return None
