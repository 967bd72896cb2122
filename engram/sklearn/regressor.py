"""A network that predicts a number per row, as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin
from torch import Tensor

from engram.sklearn.base import Estimator, Hidden, Seed


class Regressor(RegressorMixin, Estimator):
    """A multi-layer perceptron that gives each row one number.

    X is an array of numbers or a DataFrame, whose columns may also hold text, categories, booleans or dates. Missing cells are
    fine, infinite ones are not. Columns and y need no scaling.

    hidden:              widths of the hidden layers; () is linear regression
    activation:          relu, tanh, sigmoid, gelu, silu, elu, leaky_relu, linear, softmax or step
    norm:                batch, layer or none, before each activation
    dropout:             share of hidden values set to zero in training
    bins:                also tell the network in which quantile bin each number lies (for targets that jump)
    epochs:              passes over the training rows
    batch:               rows per update; "auto": 32, and from 2,000 rows on about 64 updates per epoch, of at most 256 rows
    optimizer:           adamw, adam, nadam, muon, sgd, momentum, nesterov, rmsprop, adagrad, adadelta or lbfgs
    lr, weight_decay:    None takes the optimizer's usual value; the rate given here suits the Adam family
    schedule:            how the rate moves over the run: cosine, constant, step, linear or onecycle
    ema:                 decay of the moving average of the weights; 0 = none
    validation_fraction: share of the rows held back to choose the best epoch and to stop early; "auto": 0.1 from 5,000 rows
                         on, else none
    patience:            evaluations (one per epoch) without improvement before stopping early; 0 = never
    loss:                mse, mae, or huber (less moved by outliers), on the standardised y
    random_state:        an int gives the same network every time; None another one at each fit
    device:              "cpu" or "cuda"; predictions are always made on the device of `model_`, which is the CPU after fit
    threads:             processor threads; 0 = as many as torch is set to. Small networks are fastest on one
    verbose:             1 prints a line per epoch to standard error

    After fit: `model_` (the plain nn.Module; it takes the tensors that `spec_.encode(frame)` gives), `spec_` (how rows become
    these tensors), `n_features_in_`, `feature_names_in_` (where X had names), `n_iter_` (epochs made), `loss_curve_`
    (training loss of each epoch), `validation_curve_` (a dict of metrics per epoch; empty without validation rows).

    Raises ConfigError on a parameter out of range, DataError on cells that cannot be read, Diverged when training goes wrong,
    and ValueError where scikit-learn's own estimators do.
    """

    def __init__(
        self,
        hidden: Hidden = (100,),
        *,
        activation: str = "relu",
        norm: str = "none",
        dropout: float = 0.2,
        bins: bool = False,
        epochs: float = 60,
        batch: int | Literal["auto"] = "auto",
        optimizer: str = "adamw",
        lr: float | None = 5e-3,
        weight_decay: float | None = None,
        schedule: str = "cosine",
        ema: float = 0.0,
        validation_fraction: float | Literal["auto"] = "auto",
        patience: int = 10,
        loss: str = "mse",
        random_state: Seed = None,
        device: str = "cpu",
        threads: int = 1,
        verbose: int = 0,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.norm = norm
        self.dropout = dropout
        self.bins = bins
        self.epochs = epochs
        self.batch = batch
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.ema = ema
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.loss = loss
        self.random_state = random_state
        self.device = device
        self.threads = threads
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Train on X (rows, columns) and y (rows,), one number per row."""
        return self._fit(X, y, numeric=True)

    def predict(self, X: Any) -> np.ndarray:
        """One number per row in the units of y, float64 (rows,)."""
        return (self._outputs(X)[:, 0] * self.spec_.target_std + self.spec_.target_mean).numpy()

    def _target(self, y: np.ndarray) -> tuple[Tensor, dict[str, Any]]:
        y = y.astype(np.float64)
        mean, std = float(y.mean()), float(y.std()) or 1.0
        about = {"problem": "regression", "target_mean": mean, "target_std": std}
        return torch.from_numpy(((y - mean) / std).astype(np.float32))[:, None], about

    def _knobs(self) -> dict[str, Any]:
        return {"loss": self.loss}
