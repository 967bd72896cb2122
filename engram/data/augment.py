"""Light augmentation of image batches on their device: shift, mirror, rotate, scale, erase. A pure function of the draws.

Every image is changed by its own draws, and no Python loop runs over images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from engram.core.knobs import knob

DRAWS = 9  # random numbers per image, drawn whatever is switched on: one option never changes the draws of another


@dataclass(frozen=True)
class Augment:
    """Random changes that leave the class of a picture the same. The default changes nothing."""

    shift: int = knob(0, "largest shift in pixels", low=0)
    flip: bool = knob(False, "mirror left and right, half of the images")
    rotate: float = knob(0.0, "largest rotation in degrees", low=0, high=180)
    scale: float = knob(0.0, "largest change of size, as a share", low=0, high=0.9)
    erase: float = knob(0.0, "chance to blank a square patch", low=0, high=1)
    fill: Literal["zero", "reflect"] = knob("zero", "what is outside the image: the value 0, or its mirror image")

    def __bool__(self) -> bool:
        """Whether anything is changed."""
        return bool(self.shift or self.flip or self.rotate or self.scale or self.erase)

    def __call__(self, x: Tensor, draws: Tensor) -> Tensor:
        """(B, C, H, W) uint8 or float to the same shape and dtype, by `draws` (B, DRAWS) of 0..1 on the device of `x`.

        Row i of the result depends on row i of both only.
        """
        if not len(x):  # a rank that has no row of this batch
            return x
        draw = draws.unbind(1)
        if self.rotate or self.scale:
            x = turned(x, (draw[0] * 2 - 1) * math.radians(self.rotate), 1 + (draw[1] * 2 - 1) * self.scale, self.fill)
        if self.shift:
            places = 2 * self.shift + 1
            x = shifted(x, (draw[2] * places).long(), (draw[3] * places).long(), self.shift, self.fill)
        if self.flip:
            x = torch.where((draw[4] < 0.5)[:, None, None, None], x.flip(3), x)
        if self.erase:
            x = erased(x, draw[5] < self.erase, draw[6], draw[7], draw[8])
        return x


def shifted(x: Tensor, dy: Tensor, dx: Tensor, most: int, fill: str) -> Tensor:
    """Image i moved by (dy[i] - most, dx[i] - most) pixels down and right; dy, dx (B,) int64 in 0..2 * most."""
    height, width = x.shape[2:]
    if fill == "reflect":
        x = x.index_select(2, _mirror(height, most, x.device)).index_select(3, _mirror(width, most, x.device))
    else:
        x = F.pad(x, (most, most, most, most))
    windows = x.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, 2 most + 1, 2 most + 1, H, W), a view
    return windows[torch.arange(len(x), device=x.device), :, 2 * most - dy, 2 * most - dx]


def turned(x: Tensor, angle: Tensor, size: Tensor, fill: str) -> Tensor:
    """Image i rotated counter-clockwise by angle[i] radians about its centre and enlarged by size[i], bilinear."""
    height, width = x.shape[2:]
    cos, sin, zero = angle.cos() / size, angle.sin() / size, torch.zeros_like(angle)
    # Where each pixel comes from, in coordinates of -1..1 along both sides, hence the ratios of the sides.
    theta = torch.stack([cos, -sin * height / width, zero, sin * width / height, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    mode = "reflection" if fill == "reflect" else "zeros"
    out = F.grid_sample(x.to(grid.dtype), grid, padding_mode=mode, align_corners=False)
    return out.to(x.dtype) if x.is_floating_point() else out.round_().clamp_(0, 255).to(x.dtype)


def erased(x: Tensor, chosen: Tensor, side: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """A square of 1/8 to 1/2 of the shorter side in the mean colour of its image (Cutout, DeVries & Taylor 2017).

    `chosen` (B,) bool picks the images; `side`, `top` and `left` (B,) in 0..1 place the square inside.
    """
    height, width = x.shape[2:]
    edge = ((1 / 8 + side * 3 / 8) * min(height, width)).round().clamp(min=1)
    rows = _within(height, edge, top, x.device)[:, :, None]  # (B, H, 1)
    columns = _within(width, edge, left, x.device)[:, None, :]  # (B, 1, W)
    mean = x.float().mean((2, 3), keepdim=True)
    colour = mean.to(x.dtype) if x.is_floating_point() else mean.round().to(x.dtype)
    return torch.where((rows & columns & chosen[:, None, None])[:, None], colour, x)


def _within(length: int, edge: Tensor, place: Tensor, device: torch.device) -> Tensor:
    """(B, length) bool: which pixels along one side belong to the square."""
    start = (place * (length - edge + 1)).floor()[:, None]
    at = torch.arange(length, device=device)
    return (at >= start) & (at < start + edge[:, None])


def _mirror(length: int, most: int, device: torch.device) -> Tensor:
    """Pixel numbers -most..length + most - 1 reflected at the edge pixels."""
    at = torch.arange(-most, length + most, device=device).abs()
    return (length - 1 - (length - 1 - at).abs()).clamp(min=0)
