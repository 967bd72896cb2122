"""What the recipes autoencoder and conv_autoencoder share: everything but the network. Not a recipe itself."""

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
from engram.data.odd import odd_classes, without
from engram.inference.rebuild import Denoiser, Rebuilder
from engram.nn.corrupt import noise_of
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.reconstruct import Noise, Reconstruct

AMOUNTS = {"none": 0.0, "gaussian": 0.5, "masking": 0.5, "salt_and_pepper": 0.3}
WEIGHTS = {"none": 0.0, "l1": 0.01, "kl": 0.1}
CODES = {"none": "linear", "l1": "relu", "kl": "sigmoid"}


@dataclass(frozen=True, kw_only=True)
class AutoencoderRecipe(Recipe):
    """Pictures through a narrow code and back."""

    specs: ClassVar = (ImageSpec,)

    data: Any = knob("digits", "digits, mnist, fashion_mnist, or a folder of pictures")
    epochs: float = knob(50.0, "passes over the training rows", low=0)
    batch: int = knob(64, "rows per optimizer step, over all ranks and micro-batches", low=1)
    size: int = knob(0, "side of the pictures in pixels; 0 = as the data suggests", low=0)
    code: int = knob(32, "numbers in the code", low=1)
    activation: str = knob("relu", "linear, sigmoid, tanh, relu, leaky_relu, gelu, silu or elu")
    code_activation: str = knob("auto", "of the code; auto is linear, with sparse=l1 relu and with sparse=kl sigmoid")
    norm: str = knob("none", "batch, layer, group or none")
    init: str = knob("auto", "auto suits the activation; or xavier_uniform, he_normal, lecun_normal, orthogonal, zeros ...")
    loss: Literal["mse", "bce"] = knob("mse", "squared error, or binary cross-entropy for pixels that are mostly 0 or 1")
    bounded: bool = knob(False, "mse: a sigmoid keeps pixels in 0 to 1; without it they are clipped in use")
    noise: Noise = knob("none", "what the network learns to remove")
    amount: float = knob(0.0, "gaussian: its deviation, else the share of pixels hit; 0 = 0.5, for salt_and_pepper 0.3", low=0)
    sparse: Literal["none", "l1", "kl"] = knob("none", "penalty of the code: mean size, or mean activation off its target")
    sparse_weight: float = knob(0.0, "weight of that penalty; 0 = 0.01 for l1, 0.1 for kl", low=0)
    sparse_target: float = knob(0.05, "kl: mean activation of each number of the code over a batch", low=1e-6, high=1 - 1e-6)
    odd: str = knob("", "classes kept out of training, to be told from the others by their error")
    normal: str = knob("", "the other way round: classes to train on; all others are odd")
    score: Literal["error", "unexplained"] = knob(
        "unexplained", "what makes a picture odd: squared error, or its share of the picture's variance"
    )
    alarms: float = knob(0.05, "share of the validation pictures that may be called odd: sets the threshold", low=0, high=1)
    augment: Augment = knob(Augment(), "random changes of the training pictures")
    budget: int = knob(2 << 30, "bytes of pictures to keep in memory; more is decoded by worker processes", low=0)
    optim: OptimKnobs = knob(OptimKnobs(name="adam", lr=1e-3), "optimizer and schedule")

    @abstractmethod
    def make_model(self, shape: tuple[int, int, int], code_activation: str) -> nn.Module:
        """The network for pictures of (channels, height, width)."""

    def make_data(self) -> Data:
        """Pixels of 0 to 1, without the odd classes; the noise comes with them."""
        data = images(
            self.data, batch=self.batch, seed=self.seed, size=self.size, augment=self.augment, budget=self.budget, scale="unit",
            labels=False,
        )  # fmt: skip
        spec = data.spec
        assert isinstance(spec, ImageSpec)
        data = without(data, odd_classes(spec.classes, self.odd, self.normal))
        if self.noise == "none":
            return data
        law, shape = noise_of(self.noise, (spec.channels, spec.height, spec.width))
        return Noisy(data, **{law: {"noise": shape}}, seed=self.seed)

    def make_task(self, spec: ImageSpec) -> Task:
        """The network with its error, noise and penalty."""
        if self.noise not in ("none", "gaussian") and self.amount > 1:
            raise ConfigError(f"amount={self.amount} must be a share of the pixels, 0 to 1, for noise={self.noise}")
        code = CODES[self.sparse] if self.code_activation == "auto" else self.code_activation
        if self.sparse == "kl" and code not in ("sigmoid", "softmax"):
            raise ConfigError(
                f"sparse=kl compares activations of 0 to 1: code_activation={code} does not go with it, sigmoid does"
            )
        return Reconstruct(
            self.make_model((spec.channels, spec.height, spec.width), code), loss=self.loss, bounded=self.bounded,
            noise=self.noise, amount=self.amount or AMOUNTS[self.noise], sparse=self.sparse,
            weight=self.sparse_weight or WEIGHTS[self.sparse], activation=self.sparse_target, score=self.score,
            alarms=self.alarms,
        )  # fmt: skip

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for both sides."""
        return {"model": build(task, self.optim)}

    def make_predictor(self, task: Task, spec: ImageSpec) -> Predictor:
        """Codes, reconstructions, cleaned pictures, and errors with their threshold."""
        assert isinstance(task, Reconstruct)
        kind = Rebuilder if task.noise == "none" else Denoiser
        return kind(
            task.model, spec, bounded=self.bounded or self.loss == "bce", threshold=float(task.threshold), score=self.score,
            odd=odd_classes(spec.classes, self.odd, self.normal), noise=task.noise, amount=task.amount,
        )  # fmt: skip
