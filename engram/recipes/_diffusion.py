"""What the recipes ddpm and dit share: everything but the network. Not a recipe itself."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from engram.core.data import Data
from engram.core.errors import ConfigError
from engram.core.knobs import knob
from engram.core.optim import Optim
from engram.core.predictor import Predictor
from engram.core.recipe import Recipe
from engram.core.task import Task
from engram.data.augment import Augment
from engram.data.image_spec import ImageSpec
from engram.data.images import images
from engram.data.noisy import Noisy
from engram.inference.diffuse import MOST_GUIDANCE, MOST_STEPS, Diffuser
from engram.nn.schedule import Schedule
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.denoise import Denoise


@dataclass(frozen=True, kw_only=True)
class DiffusionRecipe(Recipe):
    """New pictures out of noise by a network of noisy pictures, their time and their class."""

    specs: ClassVar = (ImageSpec,)

    data: Any = knob("digits", "digits, mnist, fashion_mnist, or a folder of pictures")
    batch: int = knob(64, "rows per optimizer step, over all ranks and micro-batches", low=1)
    ema: float = knob(0.995, "decay of the moving average of the weights; 0 = none", low=0, high=0.999999)
    size: int = knob(0, "side of the pictures in pixels; 0 = as the data suggests", low=0)
    conditional: bool = knob(True, "learn the classes where the data has them, so that samples can be asked by class")
    patch: int = knob(1, "side of the squares of pixels that the network reads as one place", low=1)
    schedule: Literal["linear", "cosine", "edm", "flow"] = knob("cosine", "how noise grows with time; flow: a straight path")
    prediction: Literal["auto", "noise", "velocity", "x0", "flow"] = knob(
        "auto", "what the network gives; auto: flow for the schedule flow (flow matching), else velocity"
    )
    min_snr: float = knob(0.0, "gamma of the weight min(SNR, gamma) by Hang et al. 2023; 0 = the plain squared error", low=0)
    drop: float = knob(0.1, "share of rows that are not told their class, for guidance", low=0, high=0.99)
    sampler: Literal["ddpm", "ddim", "euler", "heun", "dpm++"] = knob("dpm++", "how samples are drawn unless asked otherwise")
    sample_steps: int = knob(20, "denoising steps of a sample unless asked otherwise", low=1, high=MOST_STEPS)
    guidance: float = knob(1.5, "1 = as learned, more = closer to the class, unless asked otherwise", low=0, high=MOST_GUIDANCE)
    augment: Augment = knob(Augment(), "random changes of the training pictures")
    budget: int = knob(2 << 30, "bytes of pictures to keep in memory; more is decoded by worker processes", low=0)
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=1e-3), "optimizer and schedule")

    @abstractmethod
    def make_network(self, spec: ImageSpec, classes: int) -> nn.Module:
        """`network(x, t, condition)` for pictures of the spec, whose sides `patch` divides. May raise ValueError."""

    def make_data(self) -> Data:
        """Pictures of mean 0 and deviation 1, with noise and times beside them."""
        data = images(
            self.data, batch=self.batch, seed=self.seed, size=self.size, augment=self.augment, budget=self.budget, labels=False
        )
        spec = data.spec
        assert isinstance(spec, ImageSpec)
        pixels = (spec.channels, spec.height, spec.width)
        return Noisy(data, normal={"noise": pixels}, uniform={"t": (), "drop": ()}, seed=self.seed)

    def make_task(self, spec: ImageSpec) -> Task:
        """The network and its schedule."""
        shape, classes = (spec.channels, spec.height, spec.width), len(self._classes(spec))
        if spec.height % self.patch or spec.width % self.patch:
            raise ConfigError(
                f"patch={self.patch} must divide the pictures of {spec.height} x {spec.width}; set size, or another patch"
            )
        network = self.make_network(spec, classes)
        prediction = self.prediction if self.prediction != "auto" else "flow" if self.schedule == "flow" else "velocity"
        schedule = Schedule(self.schedule, prediction, spread=1.0)
        return Denoise(
            network, schedule, shape, classes=classes, drop=self.drop, min_snr=self.min_snr, step=_step(spec), power=1.0
        )

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for the network."""
        return {"model": build(task, self.optim)}

    def make_predictor(self, task: Task, spec: ImageSpec) -> Predictor:
        """New pictures by the chosen sampler; the weights are the averaged ones."""
        assert isinstance(task, Denoise)
        low = min(-m / s for m, s in zip(spec.mean, spec.std, strict=True))
        high = max((1 - m) / s for m, s in zip(spec.mean, spec.std, strict=True))
        return Diffuser(
            task.network, task.schedule, spec, task.shape, self._classes(spec), steps=self.sample_steps, sampler=self.sampler,
            guidance=self.guidance if self._classes(spec) and self.drop else 1.0, step=_step(spec), limits=(low, high),
            drops=self.drop > 0,
        )  # fmt: skip

    def _classes(self, spec: ImageSpec) -> tuple[str, ...]:
        return spec.classes if self.conditional else ()


def _step(spec: ImageSpec) -> float:
    """Between two of the 256 levels of a pixel, as the network reads them: the smallest of all channels, so that the bound in
    bits holds for each."""
    return 1 / (255 * max(spec.std))
