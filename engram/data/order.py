"""The order of rows: which rows make batch k, for every kind of data, as a pure function of (seed, split, k, part)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.core.batch import fold


def walk(
    split: str,
    size: int,
    batch: int,
    *,
    seed: int,
    start: int = 0,
    part: tuple[int, int] = (0, 1),
    device: torch.device | str = "cpu",
) -> Iterator[tuple[int, Tensor]]:
    """(batch number, its row numbers for this part) from batch `start`; endless and shuffled anew each epoch for 'train'.

    Epochs are cut into equal batches of at most `batch` rows, so none is ever a tiny remainder.
    """
    per_epoch = -(-size // batch)
    if split != "train":
        cuts = torch.arange(size, device=device).tensor_split(per_epoch)
        for number in range(start, per_epoch):
            yield number, share(cuts[number], part)
        return
    for epoch in itertools.count(start // per_epoch):
        order = torch.randperm(size, generator=torch.Generator().manual_seed(fold(seed, "order", epoch))).to(device)
        cuts = order.tensor_split(per_epoch)
        for number in range(max(start - epoch * per_epoch, 0), per_epoch):
            yield epoch * per_epoch + number, share(cuts[number], part)


def share(index: Tensor, part: tuple[int, int]) -> Tensor:
    """The rows of one rank: consecutive pieces of the whole batch."""
    rank, ranks = part
    return index if ranks == 1 else index.tensor_split(ranks)[rank]


def rows_of(size: int, batch: int, number: int) -> int:
    """How many rows batch `number` has over all ranks, as `walk` cuts epochs of `size` rows."""
    per_epoch = -(-size // batch)
    return size // per_epoch + (number % per_epoch < size % per_epoch)


@dataclass(frozen=True)
class Draws:
    """Random numbers that augment a training batch: drawn for all its rows, of which a rank takes its own."""

    generator: torch.Generator
    rows: int  # of the whole batch, over all ranks
    part: tuple[int, int] = (0, 1)

    def uniform(self, *shape: int) -> Tensor:
        """(rows of this rank, *shape) float32 in 0..1, on the generator's device."""
        return share(torch.rand(self.rows, *shape, generator=self.generator, device=self.generator.device), self.part)


def draws(seed: int, number: int, rows: int, part: tuple[int, int], device: torch.device | str = "cpu") -> Draws:
    """Those of batch `number`, which has `rows` rows over all ranks: a pure function of the arguments."""
    # (0, 1) is the one process whose numbers all ranks share
    return Draws(torch.Generator(device).manual_seed(fold(seed, "augment", number, (0, 1))), rows, part)
