"""Data that fits in memory: it lives on the training device, and a batch is an index select."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from engram.core.batch import Batch, rows, to_device
from engram.core.data import Data, Summary
from engram.core.spec import Spec
from engram.data.order import Draws, draws, rows_of, walk

Transform = Callable[[Batch, Draws | None], Batch]


def plain(batch: Batch, draws: Draws | None) -> Batch:
    """The batch as it is."""
    return batch


class MemoryData(Data):
    """Tensors per split. Epochs are cut into equal batches of at most `batch` rows, so none is ever a tiny remainder.

    `transform(batch, draws)` prepares a batch (normalise, augment); the draws are None outside training and otherwise seeded by
    (seed, batch number), so that augmentation repeats exactly, on any number of ranks.
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
        names: Callable[[str, list[int]], list[str]] | None = None,
    ):
        self.spec, self.summary, self.splits, self.batch, self.seed = spec, summary, splits, batch, seed
        self.transform, self._raw, self._names = transform, raw, names

    def size(self, split: str) -> int:
        """Rows in a split."""
        return rows(self.splits[split]) if split in self.splits else 0

    def to(self, device: torch.device) -> None:
        """Move every split to the training device once."""
        self.splits = {name: to_device(batch, device) for name, batch in self.splits.items()}

    def raw(self, split: str, rows: list[int]) -> list[Any]:
        """Raw inputs as the source gives them."""
        return self._raw(split, rows) if self._raw else super().raw(split, rows)

    def names(self, split: str, rows: list[int]) -> list[str]:
        """File names where the source has them."""
        return self._names(split, rows) if self._names else super().names(split, rows)

    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """See Data.batches."""
        held, size, augments = self.splits[split], self.size(split), split == "train" and self.transform is not plain
        device = next(iter(held.values())).device
        for number, index in walk(split, size, self.batch, seed=self.seed, start=start, part=part, device=device):
            drawn = draws(self.seed, number, rows_of(size, self.batch, number), part, device) if augments else None
            yield self.transform({name: t.index_select(0, index) for name, t in held.items()}, drawn)
