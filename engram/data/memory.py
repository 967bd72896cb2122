"""Data that fits in memory: it lives on the training device, and a batch is an index select."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from engram.core.batch import Batch, fold, rows, to_device
from engram.core.data import Data, Summary
from engram.core.spec import Spec

Transform = Callable[[Batch, torch.Generator | None], Batch]


def plain(batch: Batch, generator: torch.Generator | None) -> Batch:
    """The batch as it is."""
    return batch


class MemoryData(Data):
    """Tensors per split. Epochs are cut into equal batches of at most `batch` rows, so none is ever a tiny remainder.

    `transform(batch, generator)` prepares a batch (normalise, augment); the generator is None outside training and otherwise
    seeded by (seed, batch number), so that augmentation repeats exactly.
    """

    def __init__(
        self,
        spec: Spec,
        summary: Summary,
        splits: dict[str, Batch],
        *,
        batch: int,
        seed: int = 0,
        transform: Transform = plain,
        raw: Callable[[str, list[int]], list[Any]] | None = None,
    ):
        self.spec, self.summary, self.splits, self.batch, self.seed = spec, summary, splits, batch, seed
        self.transform, self._raw = transform, raw

    def size(self, split: str) -> int:
        """Rows in a split."""
        return rows(self.splits[split]) if split in self.splits else 0

    def to(self, device: torch.device) -> None:
        """Move every split to the training device once."""
        self.splits = {name: to_device(batch, device) for name, batch in self.splits.items()}

    def raw(self, split: str, rows: list[int]) -> list[Any]:
        """Raw inputs as the source gives them."""
        return self._raw(split, rows) if self._raw else super().raw(split, rows)

    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """See Data.batches."""
        held, size = self.splits[split], self.size(split)
        device = next(iter(held.values())).device
        per_epoch = -(-size // self.batch)
        if split != "train":
            for index in torch.arange(size, device=device).tensor_split(per_epoch)[start:]:
                yield self._take(held, share(index, part), None)
            return
        for epoch in itertools.count(start // per_epoch):
            order = torch.randperm(size, generator=torch.Generator().manual_seed(fold(self.seed, "order", epoch))).to(device)
            cuts = order.tensor_split(per_epoch)
            for number in range(max(start - epoch * per_epoch, 0), per_epoch):
                generator = None
                if self.transform is not plain:
                    key = fold(self.seed, "augment", epoch * per_epoch + number, part)
                    generator = torch.Generator(device).manual_seed(key)
                yield self._take(held, share(cuts[number], part), generator)

    def _take(self, held: Batch, index: Tensor, generator: torch.Generator | None) -> Batch:
        return self.transform({name: t.index_select(0, index) for name, t in held.items()}, generator)


def share(index: Tensor, part: tuple[int, int]) -> Tensor:
    """The rows of one rank: consecutive pieces of the whole batch."""
    rank, ranks = part
    return index if ranks == 1 else index.tensor_split(ranks)[rank]
