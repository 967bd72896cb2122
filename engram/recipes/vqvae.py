"""Pictures to a small grid of codes from a codebook, and back: a vector-quantised autoencoder.

engram train vqvae
engram reconstruct runs/vqvae-digits-001 photo.png
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

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
from engram.inference.vqvae import CodedPictures
from engram.models.vqvae import VQVAE
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.vector_quantise import VectorQuantise


@dataclass(frozen=True, kw_only=True)
class Vqvae(Recipe):
    """Every place of a small grid takes the nearest code of a codebook (van den Oord et al. 2017, with moving averages)."""

    tiny: ClassVar = {"codes": 32, "code_width": 8, "widths": (16,), "blocks": 1, "epochs": 3, "batch": 64}
    specs: ClassVar = (ImageSpec,)

    data: Any = knob("digits", "digits, mnist, fashion_mnist, or a folder of pictures")
    epochs: float = knob(60.0, "passes over the training rows", low=0)
    batch: int = knob(64, "rows per optimizer step, over all ranks and micro-batches", low=1)
    size: int = knob(0, "side of the pictures in pixels; 0 = as the data suggests", low=0)
    codes: int = knob(128, "vectors in the codebook", low=2)
    code_width: int = knob(32, "numbers in each vector", low=1)
    widths: tuple[int, ...] = knob((32, 64), "channels of each stage, which halves height and width", low=1)
    blocks: int = knob(2, "residual blocks of the encoder, and of the decoder", low=0)
    commitment: float = knob(0.25, "weight of the distance between the encoder's vectors and their codes", low=0)
    decay: float = knob(0.99, "of the moving averages that the codes are", low=0, high=0.999999)
    restart: float = knob(0.03, "codes used less than this share of the mean are put at vectors of the batch; 0 = never", low=0)
    augment: Augment = knob(Augment(), "random changes of the training pictures")
    budget: int = knob(2 << 30, "bytes of pictures to keep in memory; more is decoded by worker processes", low=0)
    optim: OptimKnobs = knob(OptimKnobs(name="adam", lr=2e-3), "optimizer and schedule")

    def make_data(self) -> Data:
        """Pictures of mean 0 and deviation 1, with a random number beside each that chooses where dead codes go."""
        data = images(
            self.data, batch=self.batch, seed=self.seed, size=self.size, augment=self.augment, budget=self.budget, labels=False
        )
        return Noisy(data, uniform={"key": (1,)}, seed=self.seed)

    def make_task(self, spec: ImageSpec) -> Task:
        """Encoder, codebook and decoder."""
        if min(spec.height, spec.width) >> len(self.widths) < 1:
            raise ConfigError(f"widths={self.widths} halve {spec.height} x {spec.width} pixels to nothing; give fewer")
        model = VQVAE(
            spec.channels, spec.height, spec.width, self.codes, self.code_width, self.widths, self.blocks, self.decay,
            self.restart,
        )  # fmt: skip
        return VectorQuantise(model, self.commitment)

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for encoder and decoder."""
        return {"model": build(task, self.optim)}

    def make_predictor(self, task: Task, spec: ImageSpec) -> Predictor:
        """Codes and reconstructions."""
        return CodedPictures(task.get_submodule("model"), spec)
