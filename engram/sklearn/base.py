"""What the two estimators share: from X and y to a trained network, and from X to its outputs."""

from __future__ import annotations

import copy
import dataclasses
import numbers
import secrets
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, check_X_y
from torch import Tensor, nn

from engram.core.data import Summary
from engram.core.errors import ConfigError
from engram.core.knobs import build
from engram.core.task import Task
from engram.data.memory import MemoryData
from engram.data.split import split_rows
from engram.data.table_fit import fit_spec
from engram.data.table_spec import TableSpec
from engram.recipes.mlp import Mlp
from engram.sklearn.rows import columns_of, to_frame
from engram.sklearn.training import device_named, train, undisturbed
from engram.training.seed import seed_generators

VALIDATE_FROM = 5000  # rows from which validation_fraction="auto" holds some back
BATCHES = 64  # batch="auto": about so many updates per epoch, of 32 to 256 rows
CHUNK = 4096  # rows that are predicted at once

Hidden = tuple[int, ...] | int
Seed = int | np.random.RandomState | None


class Estimator(BaseEstimator, ABC):
    """A multi-layer perceptron behind fit and predict. Subclasses say what y is."""

    bins: bool
    epochs: float
    batch: int | Literal["auto"]
    validation_fraction: float | Literal["auto"]
    random_state: Seed
    threads: int
    verbose: int
    model_: nn.Module
    spec_: TableSpec

    # Parameters with a knob of the same name in the recipe `mlp`, and those that it calls something else.
    _SAME: ClassVar = ("hidden", "activation", "norm", "dropout", "epochs", "ema", "patience", "device", "threads")
    _OTHER: ClassVar = {"optimizer": "optim.name", "lr": "optim.lr", "weight_decay": "optim.weight_decay",
                        "schedule": "optim.schedule"}  # fmt: skip

    @abstractmethod
    def _target(self, y: np.ndarray) -> tuple[Tensor, dict[str, Any]]:
        """y as the task reads it, and the fields of TableSpec about it; learns what predict needs."""

    @abstractmethod
    def _knobs(self) -> dict[str, Any]:
        """Knobs of the recipe that only this kind has."""

    def _task(self, recipe: Mlp, spec: TableSpec) -> Task:
        return recipe.make_task(spec)

    def _fit(self, X: Any, y: Any, numeric: bool) -> Self:
        frame = to_frame(self, X, reset=True)
        _, y = check_X_y(np.zeros((len(frame), 1)), y, y_numeric=numeric, estimator=self)
        target, about = self._target(np.asarray(y))
        share = self._validation_share(len(frame))
        recipe = self._recipe(len(frame), evaluate=share > 0)
        parts = split_rows(len(frame), None if numeric else y, (1 - share, share, 0.0), recipe.seed)
        parts = {name: np.sort(index) for name, index in parts.items() if len(index)}
        spec = fit_spec(frame.iloc[parts["train"]], columns_of(frame), target="y", **about)
        if not self.bins:
            spec = dataclasses.replace(spec, bins=((),) * len(spec.numeric))
        encoded = spec.encode(frame) | {"y": target}
        splits = {name: {key: t[torch.from_numpy(index)] for key, t in encoded.items()} for name, index in parts.items()}
        summary = Summary(type(self).__name__, {name: len(index) for name, index in parts.items()})
        data = MemoryData(spec, summary, splits, batch=recipe.batch, seed=recipe.seed)
        device = device_named(recipe.device)
        with undisturbed(recipe.threads, device):
            seed_generators(device, recipe.seed)
            try:
                task = self._task(recipe, spec)
            except ValueError as error:  # a layer that refuses its size or name
                raise ConfigError(f"{type(self).__name__}: {error}") from error
            self.model_, history = train(recipe, task, data, device, self.verbose)
        self.spec_, self._columns = spec, tuple(frame.columns)
        self.n_iter_, self.loss_curve_, self.validation_curve_ = len(history.losses), history.losses, history.metrics
        return self

    def _recipe(self, rows: int, evaluate: bool) -> Mlp:
        """The parameters as the knobs of a recipe, checked."""
        values = {name: getattr(self, name) for name in self._SAME} | self._knobs()
        values |= {knob: getattr(self, name) for name, knob in self._OTHER.items() if getattr(self, name) is not None}
        values["batch"] = min(max(rows // BATCHES, 32), 256) if self.batch == "auto" else self.batch
        recipe = build(Mlp, values | {"seed": _seed(self.random_state)}, type(self).__name__)
        return dataclasses.replace(recipe, evals=max(1, round(recipe.epochs)) if evaluate else 1)

    def _validation_share(self, rows: int) -> float:
        share = self.validation_fraction
        if share == "auto":
            return 0.1 if rows >= VALIDATE_FROM else 0.0
        if not isinstance(share, numbers.Real) or not 0 <= share < 1:
            raise ConfigError(f"validation_fraction={share!r} is neither 'auto' nor a share from 0 to below 1")
        return float(share)

    def _outputs(self, X: Any) -> Tensor:
        """What the network gives, float64 (rows, outputs). Its weights are taken in float64 too, so that the outputs of a row
        do not depend on the rows beside it: in float32 they would, by a unit or two in the last place."""
        check_is_fitted(self)
        batch = self.spec_.encode(to_frame(self, X, reset=False).set_axis(list(self._columns), axis=1))
        model = copy.deepcopy(self.model_).double().eval()
        device = next(model.parameters()).device
        numeric, categorical = batch["numeric"].double().to(device), batch["categorical"].to(device)
        with undisturbed(int(self.threads), device), torch.inference_mode():
            pieces = zip(numeric.split(CHUNK), categorical.split(CHUNK), strict=True)
            return torch.cat([model(n, c) for n, c in pieces]).cpu()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # `categorical` stays unset: it promises that numbers in arrays are read as categories. Here they are numbers;
        # categories are the columns of a DataFrame that hold text, booleans or pandas' own categories.
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags


def _seed(random_state: Seed) -> int:
    """A seed from what scikit-learn calls random_state. None draws a new one from the system, so that numpy's global generator
    is neither read nor moved."""
    if random_state is None:
        return secrets.randbelow(2**31)
    if isinstance(random_state, numbers.Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))
