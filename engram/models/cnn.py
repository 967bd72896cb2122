"""Convolutional network: stages of convolution and pooling, then a small dense classifier.

Paper: LeCun et al. 1998, "Gradient-based learning applied to document recognition" (LeNet-5). Differs: ReLU, batch norm
and max pooling in place of scaled tanh and trained averages, same-size convolutions, one dense layer. Each stage is

    [convolution k x k -> norm -> activation] x convs_per_stage -> pool 2 x 2

The defaults are two convolutions with fewer than 100,000 parameters on 28 x 28 x 1. A pool that would leave nothing of
the image is skipped, so every image of 4 x 4 or more goes in.
"""

from __future__ import annotations

from torch import Tensor, nn

from engram.nn import activation as activation_named
from engram.nn import initialise
from engram.nn import norm as norm_named

POOLS = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


class CNN(nn.Module):
    """(B, channels, *size) to logits (B, outputs).

    channels:         of the image: 1 grey, 3 colour
    size:             height and width in pixels
    widths:           channels of each stage
    hidden:           widths of dense layers before the last one
    activation:       one of `engram.nn.ACTIVATIONS`
    norm:             one of `engram.nn.NORMS`, after each convolution
    pool:             "max" or "avg", 2 x 2 after each stage
    dropout:          share of features set to zero before each dense layer in training
    init:             one of `engram.nn.SCHEMES`; "auto" suits the activation
    convs_per_stage:  convolutions before each pool
    kernel:           width of the convolutions in pixels, odd
    average:          mean over the map (global average pooling, Lin et al. 2014, section 3.2) in place of all its
                      pixels, which keeps the classifier small on large images
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        outputs: int,
        widths: tuple[int, ...] = (32, 64),
        hidden: tuple[int, ...] = (),
        activation: str = "relu",
        norm: str = "batch",
        pool: str = "max",
        dropout: float = 0.25,
        init: str = "auto",
        convs_per_stage: int = 1,
        kernel: int = 3,
        average: bool = False,
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"unknown pool {pool!r}: choose from {', '.join(POOLS)}")
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, so that a convolution keeps the size of the map; got {kernel}")
        self.size = size
        height, width = size
        stages: list[nn.Module] = []
        for out in widths:
            pools = min(height, width) >= 2
            stages.append(_stage(channels, out, convs_per_stage, kernel, activation, norm, pool if pools else ""))
            channels = out
            if pools:
                height, width = height // 2, width // 2
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1) if average else nn.Identity()
        features = channels if average else channels * height * width
        dense: list[nn.Module] = []
        for out in hidden:
            dense += [nn.Dropout(dropout), nn.Linear(features, out), activation_named(activation)]
            features = out
        self.dense = nn.Sequential(*dense, nn.Dropout(dropout))
        self.head = nn.Linear(features, outputs)
        initialise(self.stages, init, activation)
        initialise(self.dense, init, activation)
        initialise(self.head, init, "linear")

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, outputs)."""
        return self.head(self.dense(self.pool(self.stages(x)).flatten(1)))

    def cost(self) -> int:
        """Multiply-adds per image: a convolution's weights act once per pixel of its map, a dense layer's once."""
        (height, width), total = self.size, self.head.weight.numel()
        for layer in self.stages.modules():
            if isinstance(layer, nn.Conv2d):
                total += layer.weight.numel() * height * width
            elif isinstance(layer, tuple(POOLS.values())):
                height, width = height // 2, width // 2
        return total + sum(layer.weight.numel() for layer in self.dense if isinstance(layer, nn.Linear))


def _stage(channels: int, out: int, convs: int, kernel: int, activation: str, norm: str, pool: str) -> nn.Sequential:
    """(B, channels, H, W) to (B, out, H / 2, W / 2), rounded down; the same size without a pool."""
    layers: list[nn.Module] = []
    for _ in range(convs):
        # Batch norm subtracts the mean, so a bias before it could not change anything.
        layers.append(nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=norm != "batch"))
        layers += [norm_named(norm, out), activation_named(activation)]
        channels = out
    return nn.Sequential(*layers, *([POOLS[pool](2)] if pool else []))
