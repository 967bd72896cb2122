"""New pictures out of noise: a Transformer over patches learns to remove noise. Diffusion, or flow matching.

engram train dit
engram sample runs/dit-digits-001 --n 16 --seed 0 --class 3 -o threes.png
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

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
from engram.inference.diffuse import Diffuser
from engram.models.dit import DiT
from engram.nn.schedule import Schedule
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.denoise import Denoise


@dataclass(frozen=True, kw_only=True)
class Dit(Recipe):
    """Denoising diffusion with a Transformer (Peebles & Xie 2023), its schedule, prediction and sampler chosen by name."""

    tiny: ClassVar = {"width": 32, "layers": 2, "heads": 2, "epochs": 2, "batch": 64, "sample_steps": 4}
    specs: ClassVar = (ImageSpec,)
    narrow: ClassVar = True  # measured at widths 96 and 128: bf16 takes 1.1 to 1.6 times as long

    data: Any = knob("digits", "digits, mnist, fashion_mnist, or a folder of pictures")
    epochs: float = knob(60.0, "passes over the training rows", low=0)
    batch: int = knob(64, "rows per optimizer step, over all ranks and micro-batches", low=1)
    ema: float = knob(0.995, "decay of the moving average of the weights; 0 = none", low=0, high=0.999999)
    size: int = knob(0, "side of the pictures in pixels; 0 = as the data suggests", low=0)
    conditional: bool = knob(True, "learn the classes where the data has them, so that samples can be asked by class")
    patch: int = knob(2, "side of the squares of pixels that become tokens; half the side is four times the tokens", low=1)
    width: int = knob(96, "numbers per token", low=4)
    layers: int = knob(4, "blocks", low=1)
    heads: int = knob(4, "heads of each attention", low=1)
    ratio: int = knob(4, "width of the feed-forward layers in units of width", low=1)
    schedule: Literal["linear", "cosine", "edm", "flow"] = knob("cosine", "how noise grows with time; flow: a straight path")
    prediction: Literal["auto", "noise", "velocity", "x0", "flow"] = knob(
        "auto", "what the network gives; auto: flow for the schedule flow (flow matching), else velocity"
    )
    min_snr: float = knob(0.0, "gamma of the weight min(SNR, gamma) by Hang et al. 2023; 0 = the plain squared error", low=0)
    drop: float = knob(0.1, "share of rows that are not told their class, for guidance", low=0, high=0.99)
    sampler: Literal["ddpm", "ddim", "euler", "heun", "dpm++"] = knob("dpm++", "how samples are drawn unless asked otherwise")
    sample_steps: int = knob(20, "denoising steps of a sample unless asked otherwise", low=1)
    guidance: float = knob(1.5, "1 = as learned, more = closer to the class, unless asked otherwise", low=0, high=50)
    augment: Augment = knob(Augment(), "random changes of the training pictures")
    budget: int = knob(2 << 30, "bytes of pictures to keep in memory; more is decoded by worker processes", low=0)
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=1e-3), "optimizer and schedule")

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
        """A DiT and its schedule."""
        shape, classes = (spec.channels, spec.height, spec.width), len(self._classes(spec))
        size = (spec.height, spec.width)
        if spec.height % self.patch or spec.width % self.patch:
            raise ConfigError(
                f"patch={self.patch} must divide the pictures of {spec.height} x {spec.width}; set size, or another patch"
            )
        try:
            network = DiT(spec.channels, size, classes, self.patch, self.width, self.layers, self.heads, self.ratio)
        except ValueError as wrong:
            raise ConfigError(f"{wrong}; see the knobs width and heads") from None
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
            guidance=self.guidance if self._classes(spec) else 1.0, step=_step(spec), limits=(low, high),
        )  # fmt: skip

    def _classes(self, spec: ImageSpec) -> tuple[str, ...]:
        return spec.classes if self.conditional else ()


def _step(spec: ImageSpec) -> float:
    """Between two of the 256 levels of a pixel, as the network reads them."""
    return len(spec.std) / (255 * sum(spec.std))
