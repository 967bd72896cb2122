"""Positions of tokens: a sinusoidal table, rotary turns, and counting that restarts in each document.

Papers: sinusoids, Vaswani et al. 2017, section 3.5; rotary, Su et al. 2021, Eq. 34, where here number i of a head turns
together with number i + D / 2 (Llama's order) in place of its neighbour, which only renames the numbers of a head.

Everything takes explicit whole positions (B, T), so a cache may continue at another place in each row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoidal(length: int, width: int) -> Tensor:
    """(length, width): sine in even columns, cosine in odd ones, wavelengths from 2 pi to 10000 * 2 pi."""
    place = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    table = torch.empty(length, width)
    table[:, 0::2] = torch.sin(place * rate)
    table[:, 1::2] = torch.cos(place * rate[: width // 2])
    return table


def turns(positions: Tensor, width: int, base: float = 10000.0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Cosines and sines (B, T, width / 2) by which `rotate` turns heads of an even `width` at `positions` (B, T)."""
    rate = base ** (-torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / width)
    angle = positions[..., None].float() * rate  # (B, T, D / 2), in float32 also when the heads are not
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Queries or keys (B, T, H, D) turned by their positions; `cos` and `sin` (B or 1, T, D / 2) come from `turns`."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos[:, :, None].to(x.dtype), sin[:, :, None].to(x.dtype)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def restart(documents: Tensor) -> Tensor:
    """(B, T) document numbers to (B, T) positions that count from 0 wherever the number changes."""
    place = torch.arange(documents.shape[1], device=documents.device)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return place - torch.where(begins, place, 0).cummax(dim=1).values


__all__ = ["restart", "rotate", "sinusoidal", "turns"]
