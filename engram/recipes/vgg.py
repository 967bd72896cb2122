"""Images to classes with VGG-11, 13 or 16: plain stacks of 3x3 convolutions.

    engram train vgg data=fashion_mnist
    engram train vgg data=photos/ depth=16 batch_norm=true
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
from engram.models.vgg import VGG
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.classify import Classify
from engram.tasks.weights import balanced


@dataclass(frozen=True, kw_only=True)
class Vgg(Recipe):
    """Depth from nothing but 3x3 convolutions and pooling (Simonyan & Zisserman 2014)."""

    tiny: ClassVar = {"depth": 11, "width": 4, "epochs": 1, "batch": 128, "dropout": 0.0}
    specs: ClassVar = (ImageSpec,)
    watch: ClassVar = ("accuracy", "max")

    data: Any = knob("digits", "digits, mnist, fashion_mnist, or a folder of images per class")
    epochs: float = knob(15.0, "passes over the training rows", low=0)
    batch: int = knob(64, "rows per optimizer step, over all ranks and micro-batches", low=1)
    size: int = knob(0, "side of the images in pixels; 0 = as the data suggests", low=0)
    depth: Literal[11, 13, 16, 19] = knob(11, "layers with weights")
    batch_norm: bool = knob(True, "batch normalisation after each convolution")
    head: Literal["auto", "small", "imagenet"] = knob("auto", "imagenet: two dense layers of 4096; small: one; auto by size")
    width: int = knob(64, "channels of the first stage", low=1)
    dropout: float = knob(0.5, "share of features dropped in the classifier", low=0, high=0.95)
    init: str = knob("auto", "auto suits the activation; or he_normal, xavier_uniform, orthogonal ...")
    label_smoothing: float = knob(0.0, "share of the target spread over all classes", low=0, high=0.99)
    class_weights: Literal["none", "balanced"] = knob("none", "balanced: rare classes count as much as common ones")
    augment: Augment = knob(Augment(shift=1), "random changes of the training images")
    budget: int = knob(2 << 30, "bytes of images to keep in memory; more is decoded by worker processes", low=0)
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=1e-3), "optimizer and schedule")

    def make_data(self) -> Data:
        """Images of one size in memory, or streamed when they exceed the budget."""
        return images(self.data, batch=self.batch, seed=self.seed, size=self.size, augment=self.augment, budget=self.budget)

    def make_task(self, spec: ImageSpec) -> Task:
        """A VGG with one logit per class and cross entropy."""
        small = min(spec.height, spec.width) <= 64
        model = VGG(
            self.depth, spec.channels, len(spec.classes), self.batch_norm,
            ("small" if small else "imagenet") if self.head == "auto" else self.head,
            self.width, (spec.height, spec.width), self.dropout, self.init,
        )  # fmt: skip
        weights = balanced(spec.class_counts) if self.class_weights == "balanced" else None
        return Classify(model, class_weights=weights, label_smoothing=self.label_smoothing)

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for the network."""
        return {"model": build(task, self.optim)}

    def make_predictor(self, task: Task, spec: ImageSpec) -> Predictor:
        """Classes with probabilities."""
        return Classifier(task.get_submodule("model"), spec, spec.classes)
