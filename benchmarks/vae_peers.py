"""Variational autoencoders of others for `images vae`."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.image_peers import CODE, HIDDEN, ROWS, VAE_BATCH, Contestant, pictures


class HandVae(Contestant):
    """A VAE as a tutorial writes it, in a plain loop."""

    note = "plain loop, rows by index, Adam as it comes"
    steps = ROWS // VAE_BATCH

    def build(self) -> None:
        """See Contestant."""
        self.encoder = nn.Sequential(
            nn.Linear(784, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 2 * CODE)
        )
        self.decoder = nn.Sequential(
            nn.Linear(CODE, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 784)
        )
        self.optimizer = torch.optim.Adam([*self.encoder.parameters(), *self.decoder.parameters()], 1e-3)
        self.x = (pictures(VAE_BATCH * self.steps, 28) / 2 + 0.5).flatten(1)

    def go(self) -> dict[str, float]:
        """See Contestant."""
        for index in torch.randperm(len(self.x)).split(VAE_BATCH):
            x = self.x[index].bernoulli()
            mean, log_var = self.encoder(x).chunk(2, 1)
            z = mean + (log_var / 2).exp() * torch.randn_like(mean)
            distortion = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
            loss = (distortion + (mean**2 + log_var.exp() - 1 - log_var).sum() / 2) / len(x)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return {"loss": float(loss.detach())}


class KerasVae(Contestant):
    """model.fit of a VAE whose sampling layer adds the KL divergence, on Keras' torch backend."""

    note = "compile and fit, progress bar off; pixels binarised at every step"
    packages = ("keras", "torch")
    backend = "torch"
    anew = True  # as the other contenders do
    steps = ROWS // VAE_BATCH

    def build(self) -> None:
        """See Contestant."""
        os.environ["KERAS_BACKEND"] = self.backend
        if self.backend == "jax":
            os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: self.threads]))  # its pool has no knob of its own
        import keras

        class Draw(keras.layers.Layer):
            """Mean and log variance to a sample, and the KL divergence as a loss."""

            def __init__(self) -> None:
                super().__init__()
                self.random = keras.random.SeedGenerator(0)

            def call(self, given: Any) -> Any:
                mean, log_var = given[:, :CODE], given[:, CODE:]
                kl = keras.ops.sum(mean**2 + keras.ops.exp(log_var) - 1 - log_var, 1) / 2
                self.add_loss(keras.ops.mean(kl))
                noise = keras.random.normal(keras.ops.shape(mean), seed=self.random)
                return mean + keras.ops.exp(log_var / 2) * noise

        def distortion(x: Any, logits: Any) -> Any:
            return keras.ops.sum(keras.ops.maximum(logits, 0) - logits * x + keras.ops.log1p(keras.ops.exp(-abs(logits))), 1)

        class Binarise(keras.layers.Layer):
            """Grey pixels to black or white ones, by chance, at every step."""

            def __init__(self) -> None:
                super().__init__()
                self.random = keras.random.SeedGenerator(1)

            def call(self, x: Any) -> Any:
                return keras.ops.cast(keras.random.uniform(keras.ops.shape(x), seed=self.random) < x, "float32")

        class Distortion(keras.layers.Layer):
            """-log p(x | z) as a loss, since what is to be met is made on the way."""

            def call(self, x: Any, logits: Any) -> Any:
                self.add_loss(keras.ops.mean(distortion(x, logits)))
                return logits

        layers = keras.layers
        sides = [layers.Dense(HIDDEN, "tanh"), layers.Dense(HIDDEN, "tanh"), layers.Dense(2 * CODE), Draw()]
        back = [layers.Dense(HIDDEN, "tanh"), layers.Dense(HIDDEN, "tanh"), layers.Dense(784)]
        grey = keras.Input((784,))
        x = Binarise()(grey) if self.anew else grey
        logits = keras.Sequential([*sides, *back])(x)
        self.model = keras.Model(grey, Distortion()(x, logits) if self.anew else logits)
        self.model.compile(keras.optimizers.Adam(1e-3), None if self.anew else distortion)
        pixels = (pictures(VAE_BATCH * self.steps, 28) / 2 + 0.5).flatten(1)
        self.x = (pixels if self.anew else pixels.bernoulli(generator=torch.Generator().manual_seed(0))).numpy()

    def go(self) -> dict[str, float]:
        """See Contestant."""
        target = () if self.anew else (self.x,)
        done = self.model.fit(self.x, *target, batch_size=VAE_BATCH, epochs=1, verbose=0)
        return {"loss": float(done.history["loss"][-1])}


class KerasVaeJax(KerasVae):
    """The same on the JAX backend, which compiles the step."""

    note = KerasVae.note + "; JAX compiles the step in the warm-up"
    packages = ("keras", "jax")
    backend = "jax"


class KerasVaeOnce(KerasVaeJax):
    """The same, with less to do."""

    note = "compile and fit, progress bar off; pixels binarised once, before the clock; JAX compiles the step in the warm-up"
    anew = False
