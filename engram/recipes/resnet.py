"""Images to classes with a residual network: ResNet-18, 34, 50 and the small variants for 28 to 32 pixels.

    engram train resnet data=fashion_mnist
    engram train resnet data=photos/ depth=18
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
from engram.models.resnet import ResNet
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.classify import Classify
from engram.tasks.weights import balanced


@dataclass(frozen=True, kw_only=True)
class Resnet(Recipe):
    """Blocks that add what they compute to what they were given (He et al. 2015)."""

    tiny: ClassVar = {"depth": 8, "width": 4, "epochs": 1, "batch": 128}
    specs: ClassVar = (ImageSpec,)
    watch: ClassVar = ("accuracy", "max")

    data: Any = knob("digits", "digits, mnist, fashion_mnist, or a folder of images per class")
    epochs: float = knob(15.0, "passes over the training rows", low=0)
    batch: int = knob(128, "rows per optimizer step, over all ranks and micro-batches", low=1)
    size: int = knob(0, "side of the images in pixels; 0 = as the data suggests", low=0)
    depth: Literal[8, 14, 18, 20, 32, 34, 44, 50, 56] = knob(18, "18, 34, 50; or 6n+2 for small images")
    stem: Literal["auto", "small", "imagenet"] = knob("auto", "small keeps the resolution of images up to 64 pixels")
    width: int = knob(0, "channels of the first stage; 0 = the paper's (64, or 16 for 6n+2)", low=0)
    init: str = knob("auto", "auto suits the activation; or he_normal, xavier_uniform, orthogonal ...")
    zero_init: bool = knob(False, "start every block as the identity: slower at first, for very large batches")
    label_smoothing: float = knob(0.0, "share of the target spread over all classes", low=0, high=0.99)
    class_weights: Literal["none", "balanced"] = knob("none", "balanced: rare classes count as much as common ones")
    augment: Augment = knob(Augment(shift=2, flip=True), "random changes of the training images")
    budget: int = knob(2 << 30, "bytes of images to keep in memory; more is decoded by worker processes", low=0)
    optim: OptimKnobs = knob(OptimKnobs(name="nesterov", lr=0.1, weight_decay=5e-4), "optimizer and schedule")

    def make_data(self) -> Data:
        """Images of one size in memory, or streamed when they exceed the budget."""
        return images(self.data, batch=self.batch, seed=self.seed, size=self.size, augment=self.augment, budget=self.budget)

    def make_task(self, spec: ImageSpec) -> Task:
        """A ResNet with one logit per class and cross entropy."""
        small = min(spec.height, spec.width) <= 64
        stem = ("small" if small else "imagenet") if self.stem == "auto" else self.stem
        model = ResNet(
            self.depth, spec.channels, len(spec.classes), stem=stem,
            width=self.width or None, zero_init=self.zero_init, init=self.init,
        )  # fmt: skip
        weights = balanced(spec.class_counts) if self.class_weights == "balanced" else None
        return Classify(model, class_weights=weights, label_smoothing=self.label_smoothing)

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for the network."""
        return {"model": build(task, self.optim)}

    def make_predictor(self, task: Task, spec: ImageSpec) -> Predictor:
        """Classes with probabilities."""
        return Classifier(task.get_submodule("model"), spec, spec.classes)
