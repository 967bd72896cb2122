"""U-Net of diffusion: what is noise in a picture, seen at several resolutions.

Papers: Ho et al. 2020, "Denoising diffusion probabilistic models", appendix B (residual blocks with group norm, attention where
the map is small, time as sines and cosines); Nichol & Dhariwal 2021, section 3.2 (time scales and shifts the second norm).
The class is added to the time, as in Dhariwal & Nichol 2021; one more class stands for "none" (Ho & Salimans 2022).

    picture -> [blocks -> half the size] per width -> block, attention, block -> [twice the size -> blocks] per width -> answer
                each map on the way down is seen again by the block of that size on the way up

The second convolution of a block, the last layer of an attention and the last layer of all start at zero: every block starts as
the identity and the network answers zero. Differs: a 1 x 1 convolution before each doubling in place of a 3 x 3 one behind
it, which is a quarter of the places and a ninth of the weights; and `patch`, which folds squares of pixels into channels first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.nn.attention import Attend
from engram.nn.strided import Strided
from engram.nn.times import time_features

FEW = 128  # places up to which attention is written out in training: 7 ms where the fused kernel takes 103 (49 places)


class UNet(nn.Module):
    """Noisy pictures (B, channels, *size) at times t, and classes, to a prediction of the same shape.

    channels, size: of the picture; `patch` must divide both sides
    classes:        known classes; 0 = none. The number `classes` stands for no class
    widths:         channels at each resolution; each has half the side of the one before, rounded up
    blocks:         residual blocks per resolution, down and again up
    attend:         attention follows the blocks whose map has at most this side; 0 = only in the middle
    heads:          of each attention, each of at least 8 numbers; fewer where a width has no room or they do not divide it
    dropout:        share of features set to zero before the second convolution of a block in training
    patch:          side of the squares of pixels that become channels: 2 makes all maps a quarter as large
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        classes: int = 0,
        widths: tuple[int, ...] = (32, 64, 128),
        blocks: int = 1,
        attend: int = 8,
        heads: int = 4,
        dropout: float = 0.0,
        patch: int = 1,
    ) -> None:
        super().__init__()
        if size[0] % patch or size[1] % patch:
            raise ValueError(f"patch must divide the picture; got patch {patch}, picture {size[0]} x {size[1]}")
        self.size, self.classes, self.patch, self.features = size, classes, patch, widths[0] + widths[0] % 2
        given = 4 * widths[0]
        self.time = nn.Sequential(nn.Linear(self.features, given), nn.SiLU(), nn.Linear(given, given))
        self.label = nn.Embedding(classes + 1, given) if classes else None
        self.first = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        sides, before = self._sides(len(widths)), widths[0]
        for number, (width, (height, side)) in enumerate(zip(widths, sides, strict=True)):
            looks = max(height, side) <= attend
            ins = [before, *[width] * (blocks - 1)]
            self.down.append(nn.ModuleList(Block(i, width, given, dropout, heads if looks else 0) for i in ins))
            # A list from the widest picture to the smallest map, walked backwards on the way up
            self.up.append(nn.ModuleList(Block(2 * width, width, given, dropout, heads if looks else 0) for _ in ins))
            if number + 1 < len(widths):
                self.shrink.append(Strided(width, width))
                self.grow.append(nn.Conv2d(widths[number + 1], width, 1))
            before = width
        self.middle = nn.ModuleList([Block(before, before, given, dropout, heads), Block(before, before, given, dropout, 0)])
        self.norm, self.out = group_norm(widths[0]), zeroed(nn.Conv2d(widths[0], channels * patch**2, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, channels, *size), times (B,), class numbers (B,) or none to (B, channels, *size)."""
        given = F.silu(self._given(t, condition, self.first.weight.dtype))
        x = self.first(F.pixel_unshuffle(x, self.patch) if self.patch > 1 else x)
        kept: list[Tensor] = []
        for number, level in enumerate(self.down):
            for block in level:  # type: ignore[attr-defined]
                x = block(x, given)
                kept.append(x)
            if number < len(self.shrink):
                x = self.shrink[number](x)
        for block in self.middle:
            x = block(x, given)
        for number in reversed(range(len(self.up))):
            if number < len(self.grow):
                x = F.interpolate(self.grow[number](x), size=kept[-1].shape[2:], mode="nearest")
            for block in self.up[number]:  # type: ignore[attr-defined]
                x = block(torch.cat([x, kept.pop()], 1), given)
        x = self.out(F.silu(self.norm(x), inplace=True))
        return F.pixel_shuffle(x, self.patch) if self.patch > 1 else x

    def cost(self) -> int:
        """Multiply-adds per picture: a convolution's weights act once per place of its map, then attention's products."""
        sides = self._sides(len(self.down))
        areas = [height * width for height, width in sides]
        total = areas[0] * (self.first.weight.numel() + self.out.weight.numel())
        total += sum(layer.weight.numel() for layer in self.time if isinstance(layer, nn.Linear))
        total += sum(_conv(layer) * area for layer, area in zip(self.shrink, areas[1:], strict=True))
        total += sum(_conv(layer) * area for layer, area in zip(self.grow, areas[1:], strict=True))
        for level, area in (*zip(self.down, areas, strict=True), (self.middle, areas[-1]), *zip(self.up, areas, strict=True)):
            total += sum(block.cost(area) for block in level)  # type: ignore[attr-defined]
        return total

    def _given(self, t: Tensor, condition: Tensor | None, dtype: torch.dtype) -> Tensor:
        """(B, 4 * widths[0]): time, and class where the network knows classes."""
        given = self.time(time_features(t, self.features).to(dtype))
        if self.label is None:
            return given
        return given + self.label(torch.full_like(t, self.classes, dtype=torch.int64) if condition is None else condition)

    def _sides(self, levels: int) -> list[tuple[int, int]]:
        sides = [(self.size[0] // self.patch, self.size[1] // self.patch)]
        for _ in range(levels - 1):
            sides.append(((sides[-1][0] + 1) // 2, (sides[-1][1] + 1) // 2))
        return sides


class Block(nn.Module):
    """A residual block, and attention after it where `heads` is not 0. (B, before, H, W) to (B, width, H, W)."""

    def __init__(self, before: int, width: int, given: int, dropout: float, heads: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(before), nn.Conv2d(before, width, 3, padding=1)
        self.modulate = nn.Linear(given, 2 * width)
        self.norm2, self.conv2 = group_norm(width), zeroed(nn.Conv2d(width, width, 3, padding=1))
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if before == width else nn.Conv2d(before, width, 1)
        self.attention = SelfAttention(width, heads) if heads else None

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        """given (B, G): time and class, after SiLU."""
        y = self.conv1(F.silu(self.norm1(x), inplace=True))
        scale, shift = self.modulate(given)[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1) each
        y = F.silu(torch.addcmul(shift, self.norm2(y), 1 + scale), inplace=True)
        x = self.skip(x) + self.conv2(self.dropout(y))
        return x if self.attention is None else self.attention(x)

    def cost(self, area: int) -> int:
        """Multiply-adds on a map of `area` places."""
        total = sum(_conv(m) * area for m in self.modules() if isinstance(m, nn.Conv2d)) + self.modulate.weight.numel()
        return total + (2 * self.conv2.out_channels * area**2 if self.attention is not None else 0)


class SelfAttention(nn.Module):
    """Every place of a map (B, C, H, W) looks at every other; added to what it had."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = next(h for h in range(min(heads, max(width // 8, 1)), 0, -1) if width % h == 0)
        self.norm = group_norm(width)
        self.qkv, self.out = nn.Conv2d(width, 3 * width, 1), zeroed(nn.Conv2d(width, width, 1))
        self.attend = Attend()

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        # Channels last, the map is (B, H W, 3 C) already and nothing is copied.
        places = self.qkv(self.norm(x)).permute(0, 2, 3, 1).contiguous().view(b, h * w, 3, self.heads, c // self.heads)
        q, k, v = places.permute(2, 0, 3, 1, 4)  # (B, heads, H W, C / heads) each
        if q.requires_grad and h * w <= FEW:
            seen = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        else:
            seen = self.attend(q, k, v)
        seen = seen.transpose(1, 2).reshape(b, h, w, c).permute(0, 3, 1, 2)
        return x + self.out(seen)


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of 16 channels, the second setting of Wu & He 2018, Table 3; of fewer or more where 16 does not divide them.

    Channels-last, torch's kernel takes 22 ms for 64 x 32 x 28 x 28 in groups of 2 (bf16, one thread), and 0.5 in groups of 16.
    """
    return nn.GroupNorm(next(g for g in range(max(channels // 16, 1), 0, -1) if channels % g == 0), channels)


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with weights and biases of zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _conv(layer: nn.Module) -> int:
    return layer.weight.numel()  # type: ignore[union-attr]
