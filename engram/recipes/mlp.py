"""Tables (and small images) to classes or numbers with a multi-layer perceptron, the plain artificial neural network.

    engram train mlp data=houses.csv target=price
    engram train mlp data=mnist
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from engram.core.data import Data
from engram.core.knobs import knob
from engram.core.optim import Optim
from engram.core.predictor import Predictor
from engram.core.recipe import Recipe
from engram.core.spec import Spec
from engram.core.task import Task
from engram.data.image_spec import ImageSpec
from engram.data.images import images
from engram.data.sources import BUILT_IN
from engram.data.table_spec import TableSpec
from engram.data.tables import table
from engram.inference.classify import Classifier
from engram.inference.regress import Regressor
from engram.models.mlp import MLP
from engram.nn.columns import Columns
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.classify import Classify
from engram.tasks.regress import Regress
from engram.tasks.weights import balanced


@dataclass(frozen=True, kw_only=True)
class Mlp(Recipe):
    """Layers of neurons: weighted sums, then an activation. `hidden=` nothing is the perceptron, or logistic regression."""

    tiny: ClassVar = {"data": "iris", "hidden": (16,), "epochs": 3, "batch": 32, "dropout": 0.0}
    specs: ClassVar = (TableSpec, ImageSpec)

    data: Any = knob("breast_cancer", "a built-in table or image set, a CSV or Parquet file, or a DataFrame")
    target: str = knob("", "the column to predict")
    kind: Literal["auto", "classification", "regression"] = knob("auto", "what the target is; auto looks at it")
    test: str = knob("", "a file of its own for the test split")
    drop: tuple[str, ...] = knob((), "columns to leave out")
    allow: tuple[str, ...] = knob((), "guards to overrule: leak, infinite ...")
    epochs: float = knob(30.0, "passes over the training rows", low=0)
    batch: int = knob(0, "rows per optimizer step, over all ranks and micro-batches; 0 = by the rows, 16 to 256", low=0)
    patience: int = knob(8, "evaluations without improvement before stopping early; 0 = never", low=0)
    hidden: tuple[int, ...] = knob((256, 128), "widths of the hidden layers", low=1)
    activation: str = knob("relu", "step, linear, sigmoid, tanh, relu, leaky_relu, softmax, gelu, silu or elu")
    norm: str = knob("none", "batch, layer or none")
    dropout: float = knob(0.1, "share of hidden values dropped", low=0, high=0.95)
    skip: bool = knob(False, "add a layer's input to its output where widths agree")
    init: str = knob("auto", "auto suits the activation; or xavier_uniform, he_normal, lecun_normal, orthogonal, zeros ...")
    embed: int = knob(0, "width of an embedding of each numeric column; 0 = none", low=0)
    loss: Literal["mse", "mae", "huber"] = knob("mse", "for numbers: squared, absolute, or huber")
    label_smoothing: float = knob(0.0, "for classes: share of the target spread over all", low=0, high=0.99)
    class_weights: Literal["none", "balanced"] = knob("none", "balanced: rare classes count as much as common ones")
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=1e-3), "optimizer and schedule")

    def make_data(self) -> Data:
        """A table, or images where the data is a built-in image set or a folder."""
        source = self.data
        if isinstance(source, (str, Path)) and (
            (str(source) in BUILT_IN and BUILT_IN[str(source)].kind == "image") or Path(source).is_dir()
        ):
            data = images(source, batch=self.batch or 1, seed=self.seed)
        else:
            data = table(
                source, target=self.target, kind=self.kind, test=self.test or None, batch=self.batch or 1, seed=self.seed,
                drop=self.drop, allow=self.allow,
            )  # fmt: skip
        data.batch = self.batch or usual_batch(data.size("train"))
        return data

    def make_task(self, spec: Spec) -> Task:
        """One output per class with cross entropy, or one number with `loss`."""
        assert isinstance(spec, (TableSpec, ImageSpec))
        weights = balanced(spec.class_counts) if self.class_weights == "balanced" and spec.classes else None
        if isinstance(spec, ImageSpec):
            model = self._mlp(spec.channels * spec.height * spec.width, len(spec.classes), None)
            return Classify(model, class_weights=weights, label_smoothing=self.label_smoothing)
        columns = Columns([list(b) for b in spec.bins], list(spec.cardinalities), self.embed or None)
        inputs = ("numeric", "categorical")
        if spec.classes:
            model = self._mlp(columns.out_features, len(spec.classes), columns)
            return Classify(model, inputs=inputs, class_weights=weights, label_smoothing=self.label_smoothing)
        model = self._mlp(columns.out_features, 1, columns)
        return Regress(model, inputs=inputs, loss=self.loss, mean=spec.target_mean, std=spec.target_std)

    def _mlp(self, features: int, outputs: int, columns: Columns | None) -> MLP:
        return MLP(
            features, outputs, self.hidden, self.activation, self.norm, self.dropout, self.init, self.skip, columns
        )

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for the network."""
        return {"model": build(task, self.optim)}

    def make_predictor(self, task: Task, spec: Spec) -> Predictor:
        """Classes with probabilities, or values in the target's units."""
        model = task.get_submodule("model")
        if isinstance(spec, TableSpec):
            inputs = ("numeric", "categorical")
            if not spec.classes:
                return Regressor(model, spec, spec.target_mean, spec.target_std, inputs)
            return Classifier(model, spec, spec.classes, inputs)
        assert isinstance(spec, ImageSpec)
        return Classifier(model, spec, spec.classes)


def usual_batch(rows: int) -> int:
    """A power of two from 16 to 256 that leaves some thirty steps per epoch: small tables need steps, large ones speed."""
    return min(256, max(16, 2 ** round(math.log2(max(rows, 1) / 30))))
