"""Variational autoencoder of dense layers: a picture to a normal distribution of a few numbers, and these numbers to a picture.

Paper: Kingma & Welling 2014, "Auto-encoding variational Bayes", appendix C; the defaults are the network with one stochastic
layer of Burda et al. 2016, "Importance weighted autoencoders", section 5: two layers of 200 tanh units on each side, 50 latent
numbers. With `classes` both sides are also told the class (Sohn et al. 2015; M2 of Kingma et al. 2014). Differs: the last layer
starts small, so that an untrained network gives about even odds for every pixel.
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from engram.nn import activation as activation_named
from engram.nn import initialise
from engram.nn.gaussian import told


class VAE(nn.Module):
    """(B, channels, height, width) to the same shape, by way of `latent` numbers.

    latent:      numbers of the code
    hidden:      widths of the encoder's layers; the decoder's are the same, backwards
    activation:  one of `engram.nn.ACTIVATIONS`
    classes:     how many classes both sides are told of; 0 = none
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        latent: int = 50,
        hidden: tuple[int, ...] = (200, 200),
        activation: str = "tanh",
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.latent, self.classes = (channels, height, width), latent, classes
        pixels = math.prod(self.shape)
        self.encoder = _dense((pixels + classes, *hidden), activation)
        self.posterior = nn.Linear(hidden[-1] if hidden else pixels + classes, 2 * latent)
        self.decoder = _dense((latent + classes, *hidden[::-1]), activation)
        self.pixels = nn.Linear(hidden[0] if hidden else latent + classes, pixels)
        initialise(self.encoder, "auto", activation)
        initialise(self.decoder, "auto", activation)
        initialise(self.posterior, "auto", "linear")
        initialise(self.pixels, "auto", "linear", scale=0.1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Pictures, and their classes (B,) where the network is told, to what the mean of their code decodes to."""
        return self.decode(self.encode(x, y)[0], y)

    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to the posterior's mean and log variance, (B, latent) each."""
        mean, log_var = self.posterior(self.encoder(told(x.flatten(1), y, self.classes))).chunk(2, 1)
        return mean, log_var

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, latent) to (B, C, H, W): the log-odds of white, or the mean, as the likelihood reads it."""
        return self.pixels(self.decoder(told(z, y, self.classes))).unflatten(1, self.shape)

    def last(self) -> tuple[nn.Module, nn.Module]:
        """The last layer of each side."""
        return self.posterior, self.pixels

    def cost(self) -> int:
        """Multiply-adds per picture, there and back."""
        return sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear))


def _dense(widths: tuple[int, ...], activation: str) -> nn.Sequential:
    return nn.Sequential(*(layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), activation_named(activation))))
