"""ResNet: residual networks, He et al. 2015, "Deep Residual Learning for Image Recognition".

    y = relu(F(x) + x)                     Eq. 1: F learns the difference from the identity, so depth does no harm

    depth           block        stages                        blocks per stage   width of the first stage
    18, 34          basic        4 of widths 1, 2, 4, 8        table 1            64
    50, 101, 152    bottleneck   4 of widths 1, 2, 4, 8 (x4)   table 1            64
    8, 14, 20, ...  basic        3 of widths 1, 2, 4           (depth - 2) / 6    16        section 4.2, CIFAR

Differs from the paper: the bottleneck strides in its 3 x 3 convolution, not the 1 x 1 (known as v1.5). With `zero_init` the
last norm of each block starts at zero, so that each block starts as the identity (Goyal et al. 2017, section 5.1, for batches
of thousands; with 128 the first epochs learn much more slowly). The weights are named as in torchvision, whose files
therefore fit.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from engram.nn import BatchNorm, initialise
from engram.nn.strided import Strided

BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class ResNet(nn.Module):
    """(B, channels, H, W) images of any size to logits (B, outputs).

    depth:      layers with weights: 18, 34, 50, 101, 152, or 6n + 2 (8, 14, 20, 32, 44, 56, 110)
    stem:       "imagenet": a 7 x 7 convolution of stride 2 and a max pool; "small": 3 x 3 alone, for up to 64 pixels
    width:      channels of the first stage; None for the paper's
    shortcut:   "projection" widens by a 1 x 1 convolution (option B); "pad" by zeros, without weights (option A)
    zero_init:  start each block as the identity: slower at first
    init:       one of `engram.nn.SCHEMES`; "auto" is He's normal
    """

    def __init__(
        self,
        depth: int = 18,
        channels: int = 3,
        outputs: int = 1000,
        stem: str = "imagenet",
        width: int | None = None,
        shortcut: str = "projection",
        zero_init: bool = False,
        init: str = "auto",
    ) -> None:
        super().__init__()
        blocks = _blocks(depth)
        if stem not in ("imagenet", "small"):
            raise ValueError(f"unknown stem {stem!r}: choose imagenet or small")
        if shortcut not in ("projection", "pad"):
            raise ValueError(f"unknown shortcut {shortcut!r}: choose projection or pad")
        if width is None:
            width = 64 if len(blocks) == 4 else 16
        block = Bottleneck if depth in BOTTLENECK else Basic
        if stem == "imagenet":
            self.conv1 = Strided(channels, width, 7, bias=False)
        else:
            self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = BatchNorm(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "imagenet" else nn.Identity()
        features, stages = width, []
        for stage, count in enumerate(blocks):
            layers: list[nn.Module] = []
            for i in range(count):
                layers.append(block(features, width * 2**stage, 2 if stage > 0 and i == 0 else 1, shortcut))
                features = width * 2**stage * block.expansion
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3 = stages[:3]
        self.layer4 = stages[3] if len(stages) == 4 else nn.Identity()
        self.fc = nn.Linear(features, outputs)
        initialise(self, init, "relu")
        initialise(self.fc, init, "linear")
        if zero_init:
            for module in self.modules():
                if isinstance(module, (Basic, Bottleneck)):
                    nn.init.zeros_(module.last_norm().weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, outputs)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))

    def cost(self, size: tuple[int, int]) -> int:
        """Multiply-adds per image of height and width `size`, convolutions and the last layer."""
        imagenet = isinstance(self.maxpool, nn.MaxPool2d)
        size = _halved(size) if imagenet else size
        total = self.conv1.weight.numel() * size[0] * size[1] + self.fc.weight.numel()
        size = _halved(size) if imagenet else size
        for block in self.modules():
            if isinstance(block, (Basic, Bottleneck)):
                after = _halved(size) if block.stride == 2 else size
                for name, layer in block.named_modules():
                    if isinstance(layer, nn.Conv2d):
                        before_stride = isinstance(block, Bottleneck) and name == "conv1"
                        rows, columns = size if before_stride else after
                        total += layer.weight.numel() * rows * columns
                size = after
        return total


class Basic(nn.Module):
    """Two 3 x 3 convolutions and a shortcut: (B, channels, H, W) to (B, width, H / stride, W / stride), rounded up."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = Strided(channels, width, 3, stride, bias=False)
        self.bn1 = BatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = BatchNorm(width)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(channels, width, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.downsample(x))

    def last_norm(self) -> BatchNorm:
        return self.bn2


class Bottleneck(nn.Module):
    """1 x 1 down, 3 x 3, 1 x 1 up: (B, channels, H, W) to (B, 4 width, H / stride, W / stride), rounded up."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = BatchNorm(width)
        self.conv2 = Strided(width, width, 3, stride, bias=False)
        self.bn2 = BatchNorm(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = BatchNorm(4 * width)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(channels, 4 * width, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + self.downsample(x))

    def last_norm(self) -> BatchNorm:
        return self.bn3


class Pad(nn.Module):
    """Every `stride`-th pixel, and channels of zeros after the given ones (option A): no weights."""

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.stride, self.extra = stride, extra

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


def _shortcut(channels: int, out: int, stride: int, kind: str) -> nn.Module:
    if channels == out and stride == 1:
        return nn.Identity()
    if kind == "pad":
        return Pad(stride, out - channels)
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), BatchNorm(out))


def _blocks(depth: int) -> tuple[int, ...]:
    """Blocks in each stage. Raises ValueError for a depth that the paper's rules do not give."""
    if depth in BASIC or depth in BOTTLENECK:
        return (BASIC | BOTTLENECK)[depth]
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"no ResNet of depth {depth}: choose 18, 34, 50, 101, 152 or 6n + 2 (8, 14, 20, 32, 44, 56)")
    return ((depth - 2) // 6,) * 3


def _halved(size: tuple[int, int]) -> tuple[int, int]:
    return (size[0] + 1) // 2, (size[1] + 1) // 2
