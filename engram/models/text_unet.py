"""The denoiser of text to image: a U-Net over a grid of codes that looks at the words of a caption.

Papers: the U-Net of Ho et al. 2020 and Dhariwal & Nichol 2021 (time scales and shifts the second norm of a residual block);
at every resolution a Transformer block in which each place of the grid looks at all places and then at the words, as in
Rombach et al. 2022, section 3.3 and appendix E.2.1 (the latent diffusion of Stable Diffusion). Differs: grids are small, so
every place has a learned vector of its own and there is one block per resolution; at the largest, places look at words only,
not at each other; the last layer starts at zero, so that the untrained network answers zero. The cross-attentions are
`engram.nn.attention.Attend`: a forward hook sees what words they look at.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.nn.attention import Attend, join_heads, split_heads
from engram.nn.norm import norm
from engram.nn.strided import Strided
from engram.nn.times import time_features


class TextUNet(nn.Module):
    """Noisy codes (B, channels, *size) at times t, and the words of a caption, to a prediction of the same shape.

    channels, size: of the codes
    text_width:     numbers per word
    widths:         channels at each resolution; each is half the size of the one before
    heads:          heads of each attention
    """

    def __init__(
        self, channels: int, size: tuple[int, int], text_width: int, widths: tuple[int, ...] = (64, 128), heads: int = 4
    ) -> None:
        super().__init__()
        if any(width % heads for width in widths):
            raise ValueError(f"heads must divide all widths; got widths {widths}, heads {heads}")
        self.size, self.features = size, widths[0] + widths[0] % 2
        given = 4 * widths[0]
        self.time = nn.Sequential(nn.Linear(self.features, given), nn.SiLU(), nn.Linear(given, given), nn.SiLU())
        self.first = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.places = nn.Parameter(torch.zeros(widths[0], *size))
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        before = widths[0]
        for number, width in enumerate(widths):
            own = number > 0 or len(widths) == 1
            self.down.append(Stage(before, width, given, text_width, heads, own))
            self.up.insert(0, Stage(2 * width, width, given, text_width, heads, own))
            if number + 1 < len(widths):
                self.shrink.append(Strided(width, width))
                self.grow.insert(0, nn.Conv2d(widths[number + 1], width, 3, padding=1))
            before = width
        self.middle = Stage(before, before, given, text_width, heads, True)
        self.norm, self.out = norm("group", widths[0]), nn.Conv2d(widths[0], channels, 3, padding=1)
        nn.init.normal_(self.places, std=0.1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """(B, channels, *size), times (B,) and words (B, S, text_width + 1) to (B, channels, *size).

        The last number of a word's vector is 1, that of padding 0, as `TextEncoder` gives it; every row has a word.
        """
        words, mask = condition[..., :-1], (condition[..., -1] > 0)[:, None, None]  # mask (B, 1, 1, S)
        given = self.time(time_features(t, self.features).to(x.dtype))
        x = self.first(x) + self.places
        kept: list[Tensor] = []
        for number, stage in enumerate(self.down):
            x = stage(self.shrink[number - 1](x) if number else x, given, words, mask)
            kept.append(x)
        x = self.middle(x, given, words, mask)
        for number, stage in enumerate(self.up):
            skip = kept.pop()
            if number:
                x = self.grow[number - 1](F.interpolate(x, size=skip.shape[2:], mode="nearest"))
            x = stage(torch.cat([x, skip], 1), given, words, mask)
        return self.out(F.silu(self.norm(x)))

    def looks(self) -> list[tuple[Attend, tuple[int, int]]]:
        """The attentions to words, from the first to the last, and the sizes of the grids that look."""
        return [(stage.transformer.cross.attend, size) for stage, size in self._stages()]

    def cost(self, words: int = 8) -> int:
        """Multiply-adds per grid with `words` words: weights once per place or word, then products with keys and values."""
        stages = self._stages()
        areas = [height * width for _, (height, width) in stages[: len(self.down)]]
        total = sum(m.weight.numel() for m in self.time.modules() if isinstance(m, nn.Linear))
        total += areas[0] * (self.first.weight.numel() + self.out.weight.numel())
        for layers, places in ((self.shrink, areas[1:]), (self.grow, areas[-2::-1])):
            total += sum(layer.weight.numel() * area for layer, area in zip(layers, places, strict=True))  # type: ignore[operator]
        return total + sum(stage.cost(height * width, words) for stage, (height, width) in stages)

    def _stages(self) -> list[tuple[Stage, tuple[int, int]]]:
        """All stages, in order, with the size of their grid."""
        sizes = [self.size]
        for _ in self.shrink:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        stages: list[Stage] = [*self.down, self.middle, *self.up]  # type: ignore[list-item]
        return list(zip(stages, (*sizes, sizes[-1], *sizes[::-1]), strict=True))


class Stage(nn.Module):
    """A residual block, then a Transformer block, at one resolution."""

    def __init__(self, before: int, width: int, given: int, text_width: int, heads: int, own: bool) -> None:
        super().__init__()
        self.residual = Residual(before, width, given)
        self.transformer = Transformer(width, text_width, heads, own)

    def forward(self, x: Tensor, given: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        return self.transformer(self.residual(x, given), words, mask)

    def cost(self, area: int, words: int) -> int:
        """Multiply-adds on a grid of `area` places."""
        total = 0
        for name, layer in self.named_modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                once = 1 if name == "residual.time" else words + 1 if name == "transformer.cross.kv" else area
                total += layer.weight.numel() * once
        seen = words + 1 + (area if self.transformer.own is not None else 0)
        return total + 2 * self.transformer.cross.q.out_features * area * seen


class Residual(nn.Module):
    """Two convolutions; what is given (the time) scales and shifts what the second one reads."""

    def __init__(self, before: int, width: int, given: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm("group", before), nn.Conv2d(before, width, 3, padding=1)
        self.time = nn.Linear(given, 2 * width)
        self.norm2, self.conv2 = norm("group", width), nn.Conv2d(width, width, 3, padding=1)
        self.skip = nn.Identity() if before == width else nn.Conv2d(before, width, 1)

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.time(given)[:, :, None, None].chunk(2, dim=1)
        return self.skip(x) + self.conv2(F.silu(self.norm2(y) * (1 + scale) + shift))


class Transformer(nn.Module):
    """Places look at each other (with `own`), then at the words, then think alone; the norm before each."""

    def __init__(self, width: int, text_width: int, heads: int, own: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width) if own else None
        self.own = Look(width, width, heads) if own else None
        self.norm2, self.cross = nn.LayerNorm(width), Look(width, text_width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        places = x.flatten(2).transpose(1, 2)  # (B, H W, C)
        if self.norm1 is not None and self.own is not None:
            normed = self.norm1(places)
            places = places + self.own(normed, normed, None)
        places = places + self.cross(self.norm2(places), words, mask)
        places = places + self.ffn(self.norm3(places))
        return places.transpose(1, 2).unflatten(2, x.shape[2:])


class Look(nn.Module):
    """Attention of x (B, T, width) to y (B, S, other)."""

    def __init__(self, width: int, other: int, heads: int) -> None:
        super().__init__()
        self.heads, self.attend = heads, Attend()
        self.q, self.kv = nn.Linear(width, width, bias=False), nn.Linear(other, 2 * width, bias=False)
        self.join = nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
        q, (k, v) = self.q(x), self.kv(y).chunk(2, dim=-1)
        return self.join(join_heads(self.attend(*(split_heads(part, self.heads) for part in (q, k, v)), mask)))
