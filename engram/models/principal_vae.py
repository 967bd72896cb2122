"""Variational autoencoder whose two sides are principal axes plus a network, which learns what the axes lack.

Papers: Kingma & Welling 2014; the axes are the best linear one (Lucas et al. 2019, "Don't blame the ELBO", section 3; Tipping &
Bishop 1999). With lambda the variance of the pictures along axis v and s^2 that of a pixel beside the axes:

    mean of the code   v.(x - m) sqrt(lambda - s^2) / lambda + network        log variance   log(s^2 / lambda) + network
    picture            m + sum of z sqrt(lambda - s^2) v + network

The axes stay as they are; m is the mean picture, or that of the class. Until `start` is called or weights are loaded the axes
are 0, and the network is alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from engram.nn import initialise
from engram.nn.principal import Principal

LITTLE = 1 / 255  # the deviation of pixels that are all alike, so that nothing is divided by 0


class PrincipalVAE(nn.Module):
    """(B, channels, height, width) to the same shape, by way of `latent` numbers.

    net:     the network of both sides, a `VAE` or `ConvVAE`: its `shape`, `latent` and `classes` are those of the whole
    """

    mean: Tensor
    axes: Tensor
    into: Tensor
    out: Tensor
    log_var: Tensor
    deviation: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.shape: tuple[int, int, int] = net.shape  # type: ignore[assignment]
        self.latent: int = net.latent  # type: ignore[assignment]
        self.classes: int = net.classes  # type: ignore[assignment]
        pixels = math.prod(self.shape)
        self.register_buffer("mean", torch.zeros(max(1, self.classes), pixels))
        self.register_buffer("axes", torch.zeros(self.latent, pixels))
        for name in ("into", "out", "log_var"):
            self.register_buffer(name, torch.zeros(self.latent))
        self.register_buffer("deviation", torch.ones(()))  # of the pixels: the network reads and gives them in its units

    @torch.no_grad()
    def start(self, found: Principal) -> None:
        """Take the axes, and silence the network's last layers, which begin as a small correction of them."""
        left = (found.spread - found.unseen).clamp(min=0)
        used = left > 0
        self.mean.copy_(found.mean)
        self.axes.copy_(found.axes)
        self.out.copy_(left.sqrt())
        self.into.copy_(torch.where(used, left.sqrt() / found.spread, 0.0))
        self.log_var.copy_(torch.where(used, (found.unseen / found.spread).clamp(min=1e-6).log(), 0.0))
        total = found.spread.sum().item() / found.axes.shape[1] + found.seen
        self.deviation.fill_(max(math.sqrt(total), LITTLE))
        for last in self.net.last():  # type: ignore[operator]
            initialise(last, "auto", "linear", scale=0.01)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Pictures, and their classes (B,) where the network is told, to what the mean of their code decodes to."""
        return self.decode(self.encode(x, y)[0], y)

    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to the posterior's mean and log variance, (B, latent) each."""
        rest = x.flatten(1) - self._mean(y)
        mean, log_var = self.net.encode((rest / self.deviation).unflatten(1, self.shape), y)  # type: ignore[operator]
        return (rest @ self.axes.T) * self.into + mean, self.log_var + log_var

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, latent) to (B, C, H, W): the mean of the pixels."""
        drawn = self._mean(y) + (z * self.out) @ self.axes
        return drawn.unflatten(1, self.shape) + self.deviation * self.net.decode(z, y)  # type: ignore[operator]

    def cost(self) -> int:
        """Multiply-adds per picture, there and back."""
        return 2 * self.axes.numel() + self.net.cost()  # type: ignore[operator]

    def _mean(self, y: Tensor | None) -> Tensor:
        if not self.classes:
            return self.mean
        if y is None:
            raise ValueError("a VAE that is told classes needs y")
        return self.mean[y]
