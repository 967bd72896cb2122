"""New pictures of the kind that it is shown: digits, clothes, your own folder, with or without classes.

engram train gan
engram train gan data=photos/ size=32
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from engram.core.data import Data
from engram.core.knobs import knob
from engram.core.optim import Optim
from engram.core.predictor import Predictor
from engram.core.recipe import Recipe
from engram.core.task import Task
from engram.data.augment import Augment
from engram.data.image_spec import ImageSpec
from engram.data.images import images
from engram.data.noisy import Noisy
from engram.inference.gan import Adversary
from engram.models.gan import Discriminator, Generator
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.adversarial import Adversarial


@dataclass(frozen=True, kw_only=True)
class Gan(Recipe):
    """A generator against a discriminator (DCGAN with R1, WGAN-GP or hinge loss), by class where there are classes."""

    tiny: ClassVar = {"steps": 40, "batch": 32, "latent": 8, "width": 8, "discriminator_width": 8, "hidden": 16}
    specs: ClassVar = (ImageSpec,)
    watch: ClassVar = ("swd", "min")

    data: Any = knob("digits", "digits, mnist, fashion_mnist, or a folder of images")
    epochs: float = knob(
        100.0, "passes, were one batch drawn per step; every update draws its own: 2 times as many (6 with wgan_gp)", low=0
    )
    batch: int = knob(64, "rows per optimizer step, over all ranks and micro-batches", low=1)
    clip: float = knob(0.0, "largest norm of the gradient; 0 = do not clip", low=0)
    ema: float = knob(0.995, "decay of the averaged generator, which makes the samples; 0 = none", low=0, high=0.999999)
    size: int = knob(0, "side of the images in pixels; 0 = as the data suggests", low=0)
    conditional: bool = knob(True, "learn the classes, where there are any, so that one can be asked for")
    objective: Literal["ns", "hinge", "wgan_gp"] = knob("ns", "ns (non-saturating), hinge or wgan_gp")
    latent: int = knob(64, "random numbers that a picture is made from", low=1)
    width: int = knob(32, "features of the generator at half the size of the picture; twice as many below", low=1)
    discriminator_width: int = knob(32, "the same of the discriminator", low=1)
    hidden: int = knob(256, "numbers from which the discriminator reads its score", low=1)
    norm: Literal["batch", "layer", "group", "none"] = knob("none", "normalisation in the generator")
    r1: float = knob(1.0, "weight of R1, which smooths the discriminator; 0 = none; wgan_gp has its own penalty", low=0)
    r1_every: int = knob(16, "steps between two updates by R1", low=1)
    gp: float = knob(10.0, "weight of the gradient penalty of wgan_gp", low=0)
    repeat: int = knob(0, "updates of the discriminator per step; 0 = 5 for wgan_gp, else 1", low=0)
    augment: Augment = knob(Augment(), "random changes of the training images; the made ones learn them too")
    budget: int = knob(2 << 30, "bytes of images to keep in memory; more is decoded by worker processes", low=0)
    optim: OptimKnobs = knob(
        OptimKnobs(name="adam", lr=1e-3, beta1=0.0, beta2=0.99, schedule="cosine", warmup=0.02),
        "optimizer and schedule of the generator",
    )
    discriminator_rate: float = knob(1.0, "learning rate of the discriminator, as a multiple of the generator's", low=0)

    def make_data(self) -> Data:
        """Images of one size in -1..1, with the random numbers of the losses."""
        held = images(
            self.data, batch=self.batch, seed=self.seed, size=self.size, augment=self.augment, budget=self.budget,
            scale="signed", labels=False,
        )  # fmt: skip
        uniform = {"u": (1,)} if self.objective == "wgan_gp" else {}
        return Noisy(held, {"z": (self.latent,)}, uniform, seed=self.seed)

    def make_task(self, spec: ImageSpec) -> Task:
        """Both networks and their objective."""
        size, classes = (spec.height, spec.width), self._classes(spec)
        generator = Generator(spec.channels, size, self.latent, self.width, classes, self.norm)
        discriminator = Discriminator(spec.channels, size, self.discriminator_width, classes, hidden=self.hidden)
        return Adversarial(
            generator, discriminator, self.latent, objective=self.objective, classes=classes,
            r1=0.0 if self.objective == "wgan_gp" else self.r1, r1_every=self.r1_every, gp=self.gp,
            repeat=self.repeat or (5 if self.objective == "wgan_gp" else 1),
        )  # fmt: skip

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for each network."""
        quick = dataclasses.replace(self.optim, lr=self.optim.settled().lr * self.discriminator_rate)
        return {
            "discriminator": build(task.get_submodule("discriminator"), quick),
            "generator": build(task.get_submodule("generator"), self.optim),
        }

    def make_predictor(self, task: Task, spec: ImageSpec) -> Predictor:
        """Samples, and the discriminator's score of given pictures."""
        networks = task.get_submodule("generator"), task.get_submodule("discriminator")
        return Adversary(*networks, spec, self.latent, self._classes(spec))

    def _classes(self, spec: ImageSpec) -> int:
        return len(spec.classes) if self.conditional else 0
