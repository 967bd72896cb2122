"""Autoencoder of linear layers: a picture through a narrow code and back.

Paper: Hinton & Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks". Differs: trained as one
network from scaled random weights, with no pretraining layer by layer, and rectifiers in place of logistic units.

    encoder   picture -> [linear -> norm -> activation] x hidden -> linear -> code activation -> code
    decoder   code -> [linear -> norm -> activation] x hidden, in reverse -> linear -> picture

With `hidden=()` and a linear code it is linear from end to end, and trained on the squared error it spans the space of
the first principal components (Baldi & Hornik 1989, section 2). What comes out are plain numbers: a sigmoid, where one
is wanted, belongs to the loss.
"""

from __future__ import annotations

import itertools
import math

from torch import Tensor, nn

from engram.nn import activation as activation_named
from engram.nn import initialise
from engram.nn import norm as norm_named


class Autoencoder(nn.Module):
    """(B, C, H, W) to the picture that the code gives back (B, C, H, W), and the code (B, code).

    shape:            of a picture: channels, height, width
    code:             numbers in the code
    hidden:           widths of the encoder's layers before the code; the decoder has them in reverse
    activation:       one of `engram.nn.ACTIVATIONS`, after each hidden layer
    code_activation:  likewise, of the code: "sigmoid" bounds it, "relu" makes exact zeros possible
    norm:             one of `engram.nn.NORMS`, before each activation
    init:             one of `engram.nn.SCHEMES`; "auto" suits the activation
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        code: int = 32,
        hidden: tuple[int, ...] = (512, 256),
        activation: str = "relu",
        code_activation: str = "linear",
        norm: str = "none",
        init: str = "auto",
    ) -> None:
        super().__init__()
        self.shape = shape
        widths = (math.prod(shape), *hidden)
        self.encoder = nn.Sequential(
            nn.Flatten(), *_layers(widths, activation, norm), nn.Linear(widths[-1], code), activation_named(code_activation)
        )
        widths = (code, *reversed(hidden))
        head = nn.Linear(widths[-1], math.prod(shape))
        self.decoder = nn.Sequential(*_layers(widths, activation, norm), head, nn.Unflatten(1, shape))
        initialise(self, init, activation)
        initialise(self.encoder[-2], init, code_activation)
        initialise(head, init, "linear")

    def encode(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) to codes (B, code)."""
        return self.encoder(x)

    def decode(self, code: Tensor) -> Tensor:
        """Codes (B, code) to pictures (B, C, H, W)."""
        return self.decoder(code)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, C, H, W) to (pictures again, their codes)."""
        code = self.encoder(x)
        return self.decoder(code), code

    def cost(self) -> int:
        """Multiply-adds per picture of all linear layers."""
        return sum(layer.weight.numel() for layer in self.modules() if isinstance(layer, nn.Linear))


def _layers(widths: tuple[int, ...], activation: str, norm: str) -> list[nn.Module]:
    """Hidden layers between consecutive widths; none for a single width."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        # Batch norm subtracts the mean, so a bias before it could not change anything.
        layers.append(nn.Linear(a, b, bias=norm != "batch"))
        layers += [norm_named(norm, b, image=False)] if norm != "none" else []
        layers.append(activation_named(activation))
    return layers
