"""Inception-v3 (Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision"): the eyes of published FIDs.

The weights are the user's. Their names are those of torchvision's `inception_v3`, which gives 2,048 features after the last
average pool ("pool3"). Two variants of the same names:

- "plain": torchvision's network;
- "fid": the network of the first FID code (Heusel et al. 2017), as its ports to PyTorch hold it. It differs in its pools only:
  averages do not count the padding, and the very last block pools by maximum. Its classifier has 1,008 rows.

Pictures are brought to 299 x 299 by bilinear interpolation without smoothing and to -1..1, as those ports do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 299
Pool = Callable[[Tensor], Tensor]


class Inception(nn.Module):
    """Pictures (B, 3 or 1, H, W) of -1..1 to features (B, 2048).

    variant:  "plain" or "fid": see the head of this file
    classes:  rows of the classifier; 0 leaves it out
    aux:      with the auxiliary classifier of training, which features do not need
    """

    def __init__(self, variant: str = "plain", classes: int = 0, aux: bool = False) -> None:
        super().__init__()
        if variant not in ("plain", "fid"):
            raise ValueError(f"unknown variant {variant!r}: choose from plain, fid")
        self.variant = variant
        mean = _mean if variant == "plain" else _mean_of_inner
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Unit(32, 32, 3)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3, pad=1)
        self.Conv2d_3b_1x1 = Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3)
        self.Mixed_5b = BlockA(192, 32, mean)
        self.Mixed_5c = BlockA(256, 64, mean)
        self.Mixed_5d = BlockA(288, 64, mean)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(768, 128, mean)
        self.Mixed_6c = BlockC(768, 160, mean)
        self.Mixed_6d = BlockC(768, 160, mean)
        self.Mixed_6e = BlockC(768, 192, mean)
        if aux:
            self.AuxLogits = Aux(768, classes)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b = BlockE(1280, mean)
        self.Mixed_7c = BlockE(2048, mean if variant == "plain" else _largest)
        if classes:
            self.fc = nn.Linear(2048, classes)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3 or 1, H, W) to (B, 2048)."""
        x = x.expand(-1, 3, -1, -1)
        if x.shape[2:] != (SIDE, SIDE):
            x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (B, 64, 147, 147)
        x = F.max_pool2d(x, 3, 2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)  # (B, 192, 35, 35)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (B, 288, 35, 35)
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))  # (B, 768, 17, 17)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (B, 2048, 8, 8)
        return x.mean((2, 3))


def from_weights(weights: dict[str, Tensor]) -> Inception:
    """The network of a file of weights by torchvision's names; 1,008 rows of the classifier mean the variant "fid".

    Classifiers are left out. Raises ValueError that names what is missing or does not fit.
    """
    rows = len(weights["fc.weight"]) if "fc.weight" in weights else 0
    network = Inception("fid" if rows == 1008 else "plain")
    wanted = network.state_dict()
    counters = [name for name in wanted if name.endswith("num_batches_tracked")]
    given = {n: t for n, t in weights.items() if n in wanted} | {n: wanted[n] for n in counters if n not in weights}
    for name, t in wanted.items():
        if name not in given:
            raise ValueError(f"these are no weights of Inception-v3 by torchvision's names: {name} is missing")
        if given[name].shape != t.shape:
            raise ValueError(f"{name} has shape {tuple(given[name].shape)}, Inception-v3 needs {tuple(t.shape)}")
    network.load_state_dict(given)
    return network


class Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, before: int, after: int, kernel: int | tuple[int, int], stride: int = 1, pad: int | tuple[int, int] = 0):
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, pad, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class BlockA(nn.Module):
    """Figure 5 of the paper: 1 x 1, 5 x 5, two 3 x 3 and a pool side by side."""

    def __init__(self, before: int, pooled: int, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self.branch1x1 = Unit(before, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Unit(before, 48, 1), Unit(48, 64, 5, pad=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(before, 64, 1), Unit(64, 96, 3, pad=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, pad=1)
        self.branch_pool = Unit(before, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(self.pool(x))], 1)


class BlockB(nn.Module):
    """Figure 10: to half the side."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.branch3x3 = Unit(before, 384, 3, stride=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(before, 64, 1), Unit(64, 96, 3, pad=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class BlockC(nn.Module):
    """Figure 6: 7 x 7 as 1 x 7 and 7 x 1, once and twice."""

    def __init__(self, before: int, inner: int, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        wide, tall = ((1, 7), (0, 3)), ((7, 1), (3, 0))
        self.branch1x1 = Unit(before, 192, 1)
        self.branch7x7_1 = Unit(before, inner, 1)
        self.branch7x7_2, self.branch7x7_3 = _long(inner, inner, *wide), _long(inner, 192, *tall)
        self.branch7x7dbl_1 = Unit(before, inner, 1)
        self.branch7x7dbl_2, self.branch7x7dbl_3 = _long(inner, inner, *tall), _long(inner, inner, *wide)
        self.branch7x7dbl_4, self.branch7x7dbl_5 = _long(inner, inner, *tall), _long(inner, 192, *wide)
        self.branch_pool = Unit(before, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), once, twice, self.branch_pool(self.pool(x))], 1)


class BlockD(nn.Module):
    """To half the side again."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Unit(before, 192, 1), Unit(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Unit(before, 192, 1)
        self.branch7x7x3_2, self.branch7x7x3_3 = _long(192, 192, (1, 7), (0, 3)), _long(192, 192, (7, 1), (3, 0))
        self.branch7x7x3_4 = Unit(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, F.max_pool2d(x, 3, 2)], 1)


class BlockE(nn.Module):
    """Figure 7: branches that fork at their ends."""

    def __init__(self, before: int, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        wide, tall = ((1, 3), (0, 1)), ((3, 1), (1, 0))
        self.branch1x1 = Unit(before, 320, 1)
        self.branch3x3_1 = Unit(before, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = _long(384, 384, *wide), _long(384, 384, *tall)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(before, 448, 1), Unit(448, 384, 3, pad=1)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = _long(384, 384, *wide), _long(384, 384, *tall)
        self.branch_pool = Unit(before, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        forks = [self.branch3x3_2a(three), self.branch3x3_2b(three), self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *forks, self.branch_pool(self.pool(x))], 1)


class Aux(nn.Module):
    """The auxiliary classifier of training, here only so that its weights have a place."""

    def __init__(self, before: int, classes: int) -> None:
        super().__init__()
        self.conv0, self.conv1 = Unit(before, 128, 1), Unit(128, 768, 5)
        self.fc = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 768, 17, 17) to (B, classes)."""
        return self.fc(self.conv1(self.conv0(F.avg_pool2d(x, 5, 3))).mean((2, 3)))


def _long(before: int, after: int, kernel: tuple[int, int], pad: tuple[int, int]) -> Unit:
    return Unit(before, after, kernel, pad=pad)


def _mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1)


def _mean_of_inner(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _largest(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 1, 1)
