"""Pictures to a few numbers and back, and new pictures: a variational autoencoder, dense or convolutional.

engram train vae
engram sample runs/vae-digits-001 --n 16 --seed 0 -o grid.png
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from engram.core.data import Data, Note
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
from engram.inference.vae import VaePictures
from engram.models.conv_vae import ConvVAE
from engram.models.principal_vae import PrincipalVAE
from engram.models.vae import VAE
from engram.nn.gaussian import Bernoulli, Gaussian
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.recipes._principal import held, hold, survey
from engram.tasks.variational import Variational

FEW = 1000  # training pictures, up to which next to nothing of what the network learns beside the axes helps with others
MIXTURES = (
    "are few for a vae: it codes and reconstructs by their principal axes, and draws soft mixtures of them; "
    "ddpm batch=16 steps=3000 patch=2 draws truer ones in some minutes more"
)


@dataclass(frozen=True, kw_only=True)
class Vae(Recipe):
    """Encoder and decoder trained on the evidence lower bound (Kingma & Welling 2014); the network of Burda et al. 2016."""

    tiny: ClassVar = {"hidden": (32,), "latent": 4, "epochs": 4, "batch": 64, "clip": 1.0, "samples": 8}
    specs: ClassVar = (ImageSpec,)
    narrow: ClassVar = True

    data: Any = knob("digits", "digits, mnist, fashion_mnist, or a folder of pictures")
    epochs: float = knob(200.0, "passes over the training rows", low=0)
    batch: int = knob(64, "rows per optimizer step, over all ranks and micro-batches", low=1)
    clip: float = knob(0.0, "largest norm of the gradient; 0 = do not clip", low=0)
    size: int = knob(0, "side of the pictures in pixels; 0 = as the data suggests", low=0)
    network: Literal["dense", "conv"] = knob("dense", "dense layers, or convolutions for colour and large pictures")
    latent: int = knob(0, "numbers of the code; 0 = 20, gaussian 64; 2 makes the latent grid a map", low=0)
    hidden: tuple[int, ...] = knob(
        (200, 200), "dense: widths of the encoder's layers; the decoder's are the same backwards", low=1
    )
    widths: tuple[int, ...] = knob((32, 64), "conv: channels of each stage, which halves height and width", low=1)
    activation: str = knob("silu", "tanh (as in the paper), sigmoid, relu, leaky_relu, gelu, silu or elu")
    conditional: bool = knob(False, "tell both sides the class, so that samples can be asked by class")
    likelihood: Literal["auto", "bernoulli", "gaussian"] = knob(
        "auto", "pixels black or white, or normal; auto: black or white for pictures without colour"
    )
    sigma: float = knob(0.0, "gaussian: deviation of the pixels (0 to 1); 0 = learned", low=0)
    axes: bool = knob(True, "gaussian: begin with the principal axes of the pictures; the network learns what they lack")
    beta: float = knob(1.0, "weight of the KL divergence; more than 1 wants fewer numbers in use", low=0)
    warmup: float = knob(0.0, "share of the run in which the weight of the KL rises from 0", low=0, high=1)
    free_bits: float = knob(0.0, "nats of KL that each latent number has free", low=0)
    samples: int = knob(64, "draws per picture of the importance-weighted bound on the test split", low=1)
    augment: Augment = knob(Augment(), "random changes of the training pictures")
    budget: int = knob(2 << 30, "bytes of pictures to keep in memory; more is decoded by worker processes", low=0)
    optim: OptimKnobs = knob(OptimKnobs(name="adam", lr=1e-3), "optimizer and schedule")

    def make_data(self) -> Data:
        """Pixels of 0 to 1, with the random numbers of the loss beside them."""
        data = images(
            self.data, batch=self.batch, seed=self.seed, size=self.size, augment=self.augment, budget=self.budget, scale="unit",
            labels=self.conditional,
        )  # fmt: skip
        spec = data.spec
        assert isinstance(spec, ImageSpec)
        if self.axes and self._gaussian(spec):
            hold(spec, survey(data, self._latent(spec), len(spec.classes) if self.conditional else 0))
            if (rows := data.size("train")) < FEW:
                note = Note("info", f"{rows} training pictures {MIXTURES}")
                data.summary = dataclasses.replace(data.summary, notes=(*data.summary.notes, note))
        pixels = (spec.channels, spec.height, spec.width)
        return Noisy(data, normal={"eps": (self._latent(spec),)}, uniform={"u": pixels}, seed=self.seed)

    def make_task(self, spec: ImageSpec) -> Task:
        """A network, and how likely it holds a pixel to be."""
        classes = len(spec.classes) if self.conditional else 0
        if self.conditional and not classes:
            raise ConfigError("conditional=true needs pictures with classes; give a folder per class")
        shape = (spec.channels, spec.height, spec.width)
        if self.network == "conv" and min(spec.height, spec.width) >> len(self.widths) < 1:
            raise ConfigError(f"widths={self.widths} halve {spec.height} x {spec.width} pixels to nothing; give fewer")
        latent = self._latent(spec)
        if self.network == "dense":
            model = VAE(*shape, latent, self.hidden, self.activation, classes)
        else:
            model = ConvVAE(*shape, latent, self.widths, self.activation, classes=classes)
        if not self._gaussian(spec):
            return Variational(model, Bernoulli(), beta=self.beta, warmup=self.warmup, free_bits=self.free_bits)
        likelihood = Gaussian(self.sigma)
        if self.axes:
            model = PrincipalVAE(model)
            if found := held(spec):  # a run brings them among its weights
                model.start(found)
                likelihood.start(found.seen, found.unseen - found.seen)
        return Variational(model, likelihood, beta=self.beta, warmup=self.warmup, free_bits=self.free_bits)

    def _gaussian(self, spec: ImageSpec) -> bool:
        return self.likelihood == "gaussian" or (self.likelihood == "auto" and spec.channels > 1)

    def _latent(self, spec: ImageSpec) -> int:
        return self.latent or (64 if self._gaussian(spec) else 20)

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for both sides."""
        return {"model": build(task, self.optim)}

    def make_predictor(self, task: Task, spec: ImageSpec) -> Predictor:
        """New pictures, codes, and bounds in nats."""
        assert isinstance(task, Variational)
        return VaePictures(task.model, task.likelihood, spec, spec.classes, self.samples)
