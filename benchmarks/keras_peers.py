"""Keras 3 as a contender, on its torch and its JAX backend."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.loops import Contestant
from benchmarks.workloads import Workload, figures


class Keras(Contestant):
    """model.compile and model.fit; one model per process, its weights drawn anew and its optimizer reset each round.

    So the functions that the backend compiles are compiled once, in the warm-up ("first" in the table).
    """

    note = "fit() with its progress bar; channels last as Keras does"
    packages = ("keras", "torch")
    backend = "torch"

    def __init__(self, work: Workload, threads: int):
        os.environ["KERAS_BACKEND"] = self.backend
        if threads and self.backend == "jax":
            os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))  # its pool has no knob of its own
        super().__init__(work, threads)
        import keras

        self.keras = keras
        self.x, self.y = _channels_last(work.x), work.y.numpy()
        self.test_x = _channels_last(work.test_x)
        self.model = keras.Sequential([keras.Input(self.x.shape[1:]), *self._layers(work)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.model.compile(keras.optimizers.Adam(work.lr), loss, metrics=["accuracy"])

    def hello(self) -> dict[str, Any]:
        """See Contestant."""
        return super().hello() | ({"threads": len(os.sched_getaffinity(0))} if self.backend == "jax" else {})

    def _layers(self, work: Workload) -> list[Any]:
        layers = self.keras.layers
        if work.hidden:
            return [*(layers.Dense(width, "relu") for width in work.hidden), layers.Dense(work.classes)]
        convolutions = [layers.Conv2D(32, 3, activation="relu"), layers.Conv2D(64, 3, activation="relu")]
        return [*convolutions, layers.MaxPooling2D(), layers.Flatten(), layers.Dense(128, "relu"), layers.Dense(10)]

    def build(self, seed: int) -> None:
        """See Contestant."""
        self.keras.utils.set_random_seed(seed % 2**31)
        draw = self.keras.initializers.GlorotUniform()
        for variable in self.model.trainable_variables:
            variable.assign(draw(variable.shape) if len(variable.shape) > 1 else np.zeros(variable.shape, np.float32))
        for variable in self.model.optimizer.variables:
            if variable.path.endswith("learning_rate"):
                continue
            variable.assign(np.zeros(variable.shape, np.dtype(variable.dtype)))

    def train(self) -> None:
        """See Contestant."""
        self.model.fit(self.x, self.y, batch_size=self.work.batch, epochs=1)

    def measure(self) -> dict[str, float]:
        """See Contestant."""
        predict: Any = self.model.predict  # annotated as taking a text for `verbose`
        logits = iter(torch.from_numpy(predict(self.test_x, batch_size=1000, verbose=0).copy()).split(1000))
        return figures(lambda x: next(logits), self.work)


class KerasJax(Keras):
    """The same on the JAX backend, which compiles the step."""

    note = "fit() with its progress bar; JAX compiles the step in the warm-up"
    packages = ("keras", "jax")
    backend = "jax"


def _channels_last(x: Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).contiguous().numpy() if x.dim() == 4 else x.numpy()
