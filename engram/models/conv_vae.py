"""Variational autoencoder of convolutions, for pictures of colour or more than about 32 pixels.

Paper: Kingma & Welling 2014, "Auto-encoding variational Bayes", with the strided convolutions of Radford et al. 2016 (DCGAN) in
place of dense layers. Each stage halves height and width:

    conv 4 x 4, stride 2 -> group norm -> SiLU          and its mirror image with transposed convolutions

Differs from the dense one (`engram/models/vae.py`) in nothing that the training sees: the code is one vector, both sides may be
told the class, and the last layer starts small.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from engram.nn import activation as activation_named
from engram.nn import initialise
from engram.nn import norm as norm_named
from engram.nn.gaussian import told


class ConvVAE(nn.Module):
    """(B, channels, height, width) to the same shape, by way of `latent` numbers.

    latent:      numbers of the code
    widths:      channels of each stage
    activation:  one of `engram.nn.ACTIVATIONS`
    norm:        one of `engram.nn.NORMS`; group keeps rows apart
    classes:     how many classes both sides are told of; 0 = none
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        latent: int = 64,
        widths: tuple[int, ...] = (32, 64),
        activation: str = "silu",
        norm: str = "group",
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.latent, self.classes = (channels, height, width), latent, classes
        sizes = [(height >> n, width >> n) for n in range(len(widths) + 1)]
        if min(sizes[-1]) < 1:
            raise ValueError(f"{len(widths)} stages of halving leave nothing of {height} x {width} pixels; use fewer widths")
        self.smallest = (widths[-1], *sizes[-1])
        features, ins = math.prod(self.smallest), (channels, *widths)
        down: list[nn.Module] = []
        for a, b in zip(ins[:-1], widths, strict=True):
            down += [nn.Conv2d(a, b, 4, 2, 1), norm_named(norm, b), activation_named(activation)]
        up: list[nn.Module] = []
        for n in reversed(range(len(widths))):
            odd = (sizes[n][0] % 2, sizes[n][1] % 2)  # the row that the halving dropped
            up += [norm_named(norm, widths[n]), activation_named(activation)]
            up.append(nn.ConvTranspose2d(widths[n], ins[n], 4, 2, 1, output_padding=odd))
        self.encoder = nn.Sequential(*down)
        self.posterior = nn.Linear(features + classes, 2 * latent)
        self.start = nn.Linear(latent + classes, features)
        self.decoder = nn.Sequential(*up)
        for part in (self.encoder, self.start, self.decoder):
            initialise(part, "auto", activation)
        initialise(self.posterior, "auto", "linear")
        initialise(self.decoder[-1], "auto", "linear", scale=0.1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Pictures, and their classes (B,) where the network is told, to what the mean of their code decodes to."""
        return self.decode(self.encode(x, y)[0], y)

    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to the posterior's mean and log variance, (B, latent) each."""
        mean, log_var = self.posterior(told(self.encoder(x).flatten(1), y, self.classes)).chunk(2, 1)
        return mean, log_var

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, latent) to (B, C, H, W): the log-odds of white, or the mean, as the likelihood reads it."""
        return self.decoder(self.start(told(z, y, self.classes)).unflatten(1, self.smallest))

    def last(self) -> tuple[nn.Module, nn.Module]:
        """The last layer of each side."""
        return self.posterior, self.decoder[-1]

    def cost(self) -> int:
        """Multiply-adds per picture, there and back: a convolution's weights act once per pixel of the smaller map."""
        (_, height, width), total = self.shape, self.posterior.weight.numel() + self.start.weight.numel()
        for layer in self.encoder:
            if isinstance(layer, nn.Conv2d):
                height, width = height // 2, width // 2
                total += layer.weight.numel() * height * width
        for layer in self.decoder:
            if isinstance(layer, nn.ConvTranspose2d):
                total += layer.weight.numel() * height * width
                height, width = 2 * height + layer.output_padding[0], 2 * width + layer.output_padding[1]
        return total
