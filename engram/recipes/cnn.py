"""Images to classes with a small convolutional network: digits, clothes, your own folder of pictures.

    engram train cnn
    engram train cnn data=photos/ epochs=20
"""

from __future__ import annotations

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
from engram.inference.classify import Classifier
from engram.models.cnn import CNN
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.classify import Classify
from engram.tasks.weights import balanced


@dataclass(frozen=True, kw_only=True)
class Cnn(Recipe):
    """Stages of convolution, normalisation, activation and pooling, then a linear classifier (LeCun et al. 1998)."""

    tiny: ClassVar = {"widths": (4, 8), "epochs": 2, "batch": 128, "dropout": 0.0, "augment.shift": 0, "augment.rotate": 0.0}
    specs: ClassVar = (ImageSpec,)

    data: Any = knob("digits", "digits, mnist, fashion_mnist, or a folder of images per class")
    epochs: float = knob(30.0, "passes over the training rows", low=0)
    batch: int = knob(64, "rows per optimizer step, over all ranks and micro-batches", low=1)
    ema: float = knob(0.98, "decay of the moving average of the weights; 0 = none", low=0, high=0.999999)
    size: int = knob(0, "side of the images in pixels; 0 = as the data suggests", low=0)
    widths: tuple[int, ...] = knob((32, 64), "channels of each stage", low=1)
    convs_per_stage: int = knob(2, "convolutions before each pool", low=1)
    kernel: int = knob(3, "side of the convolutions in pixels, odd", low=1)
    hidden: tuple[int, ...] = knob((), "widths of dense layers before the last", low=1)
    activation: str = knob("relu", "step, linear, sigmoid, tanh, relu, leaky_relu, softmax, gelu, silu or elu")
    norm: str = knob("batch", "batch, layer, group or none")
    pool: Literal["max", "avg"] = knob("max", "pooling")
    dropout: float = knob(0.25, "share of features dropped before the classifier", low=0, high=0.95)
    init: str = knob("auto", "auto suits the activation; or xavier_uniform, he_normal, lecun_normal, orthogonal, zeros ...")
    label_smoothing: float = knob(0.0, "share of the target spread over all classes", low=0, high=0.99)
    class_weights: Literal["none", "balanced"] = knob("none", "balanced: rare classes count as much as common ones")
    augment: Augment = knob(Augment(shift=1, rotate=10.0), "random changes of the training images")
    budget: int = knob(2 << 30, "bytes of images to keep in memory; more is decoded by worker processes", low=0)
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=2e-3), "optimizer and schedule")

    def make_data(self) -> Data:
        """Images of one size in memory, or streamed when they exceed the budget."""
        return images(self.data, batch=self.batch, seed=self.seed, size=self.size, augment=self.augment, budget=self.budget)

    def make_task(self, spec: ImageSpec) -> Task:
        """A CNN with one logit per class and cross entropy."""
        model = CNN(
            spec.channels, (spec.height, spec.width), len(spec.classes), self.widths, self.hidden, self.activation,
            self.norm, self.pool, self.dropout, self.init, self.convs_per_stage, self.kernel,
        )  # fmt: skip
        weights = balanced(spec.class_counts) if self.class_weights == "balanced" else None
        return Classify(model, class_weights=weights, label_smoothing=self.label_smoothing)

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for the network."""
        return {"model": build(task, self.optim)}

    def make_predictor(self, task: Task, spec: ImageSpec) -> Predictor:
        """Classes with probabilities."""
        return Classifier(task.get_submodule("model"), spec, spec.classes)
