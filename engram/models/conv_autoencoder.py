"""Convolutional autoencoder: stages that halve a picture down to a code, and transposed ones that double it again.

Paper: Masci et al. 2011, "Stacked convolutional auto-encoders". Differs: strides of 2 in place of max pooling, one network
trained at once, and transposed convolutions of kernel 4 and stride 2, whose taps cover every pixel equally often, so that
they draw no checkerboard (Odena et al. 2016, "Deconvolution and checkerboard artifacts").

    encoder   [convolution 3 x 3, stride 2 -> norm -> activation, (3 x 3 -> norm -> activation) x (convs - 1)] x stages -> code
    decoder   code -> [(3 x 3 -> norm -> activation) x (convs - 1), transposed 4 x 4 stride 2 -> norm -> activation] x stages

The code is a vector, which knows nothing of places, or with `spatial` a map of the smallest size, which keeps them. Sides
that are odd are halved upwards (7 to 4), and the decoder crops what it doubled. What comes out are plain numbers: a
sigmoid, where one is wanted, belongs to the loss.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from engram.nn import activation as activation_named
from engram.nn import initialise
from engram.nn import norm as norm_named
from engram.nn.strided import Strided


class ConvAutoencoder(nn.Module):
    """(B, C, H, W) to the picture that the code gives back (B, C, H, W), and the code (B, code) or (B, code, h, w).

    shape:            of a picture: channels, height, width
    code:             numbers in the code, with `spatial` per place of the smallest map
    widths:           channels of each stage; each halves the sides
    convs_per_stage:  convolutions at each size
    spatial:          the code is a map (B, code, h, w)
    activation:       one of `engram.nn.ACTIVATIONS`
    code_activation:  likewise, of the code: "sigmoid" bounds it, "relu" makes exact zeros possible
    norm:             one of `engram.nn.NORMS`, after each convolution
    init:             one of `engram.nn.SCHEMES`; "auto" suits the activation
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        code: int = 32,
        widths: tuple[int, ...] = (32, 64),
        convs_per_stage: int = 1,
        spatial: bool = False,
        activation: str = "relu",
        code_activation: str = "linear",
        norm: str = "none",
        init: str = "auto",
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("widths must name at least one stage, such as 32,64")
        self.shape = shape
        channels = (shape[0], *widths)
        sizes = [shape[1:]]
        for _ in widths:
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        self.sizes = sizes
        bias = norm != "batch"  # batch norm subtracts the mean, so a bias before it could not change anything

        def block(layer: nn.Module, out: int) -> list[nn.Module]:
            return [layer, *([norm_named(norm, out)] if norm != "none" else []), activation_named(activation)]

        def plain(width: int) -> list[nn.Module]:
            return [
                m for _ in range(convs_per_stage - 1) for m in block(nn.Conv2d(width, width, 3, padding=1, bias=bias), width)
            ]

        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for stage, (a, b) in enumerate(zip(channels, widths, strict=False)):
            down += [*block(Strided(a, b, bias=bias), b), *plain(b)]
            double = [nn.ConvTranspose2d(b, a, 4, 2, 1, bias=bias or not stage), Crop(sizes[stage])]
            up = [*plain(b), *(block(nn.Sequential(*double), a) if stage else double), *up]
        smallest = (widths[-1], *sizes[-1])
        if spatial:
            to_code: list[nn.Module] = [nn.Conv2d(widths[-1], code, 1)]
            from_code = block(nn.Conv2d(code, widths[-1], 1, bias=bias), widths[-1])
        else:
            to_code = [nn.Flatten(), nn.Linear(math.prod(smallest), code)]
            from_code = block(nn.Sequential(nn.Linear(code, math.prod(smallest)), nn.Unflatten(1, smallest)), widths[-1])
        self.encoder = nn.Sequential(*down, *to_code, activation_named(code_activation))
        self.decoder = nn.Sequential(*from_code, *up)
        initialise(self, init, activation)
        initialise(to_code[-1], init, code_activation)
        initialise(up[-2], init, "linear")

    def encode(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) to codes."""
        return self.encoder(x)

    def decode(self, code: Tensor) -> Tensor:
        """Codes to pictures (B, C, H, W)."""
        return self.decoder(code)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, C, H, W) to (pictures again, their codes)."""
        code = self.encoder(x)
        return self.decoder(code), code

    def cost(self) -> int:
        """Multiply-adds per picture: weights act once per place of a convolution's output or a transposed one's input."""
        total, at = 0, 0
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                total += layer.weight.numel()
            elif isinstance(layer, nn.ConvTranspose2d):
                total += layer.weight.numel() * math.prod(self.sizes[at])
                at -= 1
            elif isinstance(layer, nn.Conv2d):
                at += layer.stride[0] > 1
                total += layer.weight.numel() * math.prod(self.sizes[at])
        return total


class Crop(nn.Module):
    """The top left `size` of a map."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, *size)."""
        height, width = self.size
        return x[:, :, :height, :width] if x.shape[2:] != self.size else x
