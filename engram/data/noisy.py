"""Random numbers that a loss needs as part of the batch, so that N micro-batches and R ranks equal one batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engram.core.batch import Batch, fold
from engram.core.data import Data
from engram.data.order import rows_of, share

Shapes = Mapping[str, tuple[int, ...]]


class Noisy(Data):
    """Any Data whose batches also hold `normal` and `uniform` numbers (B, *shape) by name, a function of (seed, split, k).

    The numbers of a whole batch are drawn at once and shared out among ranks as its rows are. Validation and test batches
    get the same numbers at every pass, so that their figures compare over a run.
    """

    def __init__(self, data: Data, normal: Shapes | None = None, uniform: Shapes | None = None, seed: int = 0):
        self.data, self.normal, self.uniform, self.seed = data, dict(normal or {}), dict(uniform or {}), seed
        self.spec, self.summary, self.batch = data.spec, data.summary, data.batch

    def size(self, split: str) -> int:
        """Rows in a split."""
        return self.data.size(split)

    def to(self, device: torch.device) -> None:
        """Keep what fits on the training device."""
        self.data.to(device)

    def raw(self, split: str, rows: list[int]) -> list[Any]:
        """Raw inputs as the source gives them."""
        return self.data.raw(split, rows)

    def names(self, split: str, rows: list[int]) -> list[str]:
        """File names where the source has them."""
        return self.data.names(split, rows)

    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """See Data.batches."""
        for number, batch in enumerate(self.data.batches(split, start, part), start):
            yield batch | self._drawn(split, number, part, next(iter(batch.values())).device)

    def _drawn(self, split: str, number: int, part: tuple[int, int], device: torch.device) -> Batch:
        rows = rows_of(self.size(split), self.batch, number)
        random = torch.Generator(device).manual_seed(fold(self.seed, "noise", split, number))
        drawn = {n: torch.randn(rows, *shape, generator=random, device=device) for n, shape in self.normal.items()}
        for name, shape in self.uniform.items():
            if shape and device.type == "cpu":
                drawn[name] = quick_uniform(fold(self.seed, "uniform", split, number, name), rows, *shape)
            else:
                drawn[name] = torch.rand(rows, *shape, generator=random, device=device)
        if part[1] == 1:
            return drawn
        mine = share(torch.arange(rows, device=device), part)
        return {name: t[mine] for name, t in drawn.items()}


def quick_uniform(seed: int, *shape: int) -> Tensor:
    """Numbers k / 2^23 of [0, 1), at a third of the price of torch.rand: the bits of numpy's SFC64.

    A whole picture of them per row costs as much as a tenth of the matrix products of a small network. All is done in the
    memory of the bits, because three more arrays of this size would push the rest of the step out of the cache.
    """
    count = math.prod(shape)
    bits = np.random.SFC64(seed).random_raw((count + 1) // 2).view(np.uint32)[:count]
    bits >>= 9
    bits |= 0x3F800000  # the numbers of [1, 2) are those with this sign and exponent
    return torch.from_numpy(bits.view(np.float32)).sub_(1).view(shape)
