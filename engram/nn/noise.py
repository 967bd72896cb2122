"""Random numbers row by row: picture i of seed s is the same whatever it is drawn together with."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor


def _seed(seed: int, row: int) -> int:
    """A seed of two numbers: 32 bits, because that is all that torch's CPU generator takes of a seed."""
    return zlib.crc32(f"{seed}/{row}".encode()[::-1] + b"row")


class RowNoise:
    """Successive draws for rows `first` .. `first + rows - 1`, each row with a generator of its own.

    Drawing 4 and then 4 rows gives what drawing 8 gives, and one row alone what it gives among others. Numbers come from the
    CPU's generator and are then moved, so that a seed means the same picture on every device.
    """

    def __init__(self, seed: int, first: int, rows: int, device: torch.device | str = "cpu"):
        self.rows, self.device = rows, device
        self.generators = [torch.Generator().manual_seed(_seed(seed, first + i)) for i in range(rows)]

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers (rows, *shape)."""
        out = torch.empty(self.rows, *shape)
        for row, generator in zip(out, self.generators, strict=True):
            row.normal_(generator=generator)
        return out.to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), (rows, *shape)."""
        out = torch.empty(self.rows, *shape)
        for row, generator in zip(out, self.generators, strict=True):
            row.uniform_(generator=generator)
        return out.to(self.device)

    def integers(self, high: int, *shape: int) -> Tensor:
        """int64 in 0 .. high - 1, (rows, *shape)."""
        out = torch.empty(self.rows, *shape, dtype=torch.int64)
        for row, generator in zip(out, self.generators, strict=True):
            row.random_(0, high, generator=generator)
        return out.to(self.device)


def row_normal(seed: int, first: int, rows: int, shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Standard normal numbers (rows, *shape); row i depends on (seed, first + i) only."""
    return RowNoise(seed, first, rows, device).normal(*shape)
