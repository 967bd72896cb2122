"""RaggedData: rows of unequal length in memory, padded batch by batch; rows of like length go together to pad little."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engram.core.batch import Batch, fold
from engram.core.data import Data, Summary
from engram.core.spec import Spec
from engram.data.order import share, walk

WINDOW = 64  # batches whose rows are sorted by length together: enough to pad little, few enough to stay random

Rows = Sequence[Mapping[str, Any]]  # of each row: numbers, or sequences of ids, under the same names


class RaggedData(Data):
    """`splits` hold encoded rows: under each name a sequence of ids or a single number.

    A batch holds, for each sequence, a tensor (B, T) padded at the right with `pads[name]` (0 if not named), and lengths (B,)
    under `lengths[name]` where that is given. Training batches hold rows of like length (by the first name in `lengths`), in an
    order that is a pure function of (seed, epoch); other splits keep their order. `finish` may change a batch at the end.
    """

    def __init__(
        self,
        spec: Spec,
        summary: Summary,
        splits: dict[str, Rows],
        *,
        batch: int,
        lengths: Mapping[str, str],
        pads: Mapping[str, int] | None = None,
        seed: int = 0,
        raw: Callable[[str, list[int]], list[Any]] | None = None,
        finish: Callable[[Batch, torch.Generator | None], Batch] | None = None,
    ):
        self.spec, self.summary, self.batch, self.seed = spec, summary, batch, seed
        self.lengths, self.pads, self._raw, self._finish = dict(lengths), dict(pads or {}), raw, finish
        self.splits = {name: _Columns(rows) for name, rows in splits.items() if len(rows)}
        self._order: tuple[int, np.ndarray] | None = None

    def size(self, split: str) -> int:
        """Rows in a split."""
        return self.splits[split].rows if split in self.splits else 0

    def raw(self, split: str, rows: list[int]) -> list[Any]:
        """Raw rows as the source gives them."""
        return self._raw(split, rows) if self._raw else super().raw(split, rows)

    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """See Data.batches."""
        if split != "train":
            if split in self.splits:
                for _, index in walk(split, self.size(split), self.batch, seed=self.seed, start=start, part=part):
                    yield self.rows(split, index)
            return
        size = self.size(split)
        per_epoch = -(-size // self.batch)
        for epoch in itertools.count(start // per_epoch):
            cuts = torch.from_numpy(self.order(epoch)).tensor_split(per_epoch)
            turns = torch.randperm(per_epoch, generator=torch.Generator().manual_seed(fold(self.seed, "turns", epoch)))
            for number in range(max(start - epoch * per_epoch, 0), per_epoch):
                index = cuts[int(turns[number])]
                if not self._finish:
                    yield self.rows(split, share(index, part))
                    continue
                # Finished whole, then shared: what is drawn for a row does not depend on the rank that has it. (0, 1) is the
                # one process whose numbers all ranks share.
                seed = fold(self.seed, "finish", epoch * per_epoch + number, (0, 1))
                whole = self._finish(self.rows(split, index), torch.Generator().manual_seed(seed))
                yield {name: share(t, part) for name, t in whole.items()}

    def order(self, epoch: int) -> np.ndarray:
        """Training rows shuffled, then sorted by length within windows of some batches."""
        if self._order is None or self._order[0] != epoch:
            size = self.size("train")
            order = torch.randperm(size, generator=torch.Generator().manual_seed(fold(self.seed, "order", epoch))).numpy()
            long = self.splits["train"].length(next(iter(self.lengths)))
            step = self.batch * WINDOW
            pieces = [order[i : i + step] for i in range(0, size, step)]
            self._order = epoch, np.concatenate([p[np.argsort(long[p], kind="stable")] for p in pieces])
        return self._order[1]

    def rows(self, split: str, index: Tensor) -> Batch:
        """Some rows as a padded batch."""
        batch = self.splits[split].take(index.numpy(), self.pads, self.lengths)
        return self._finish(batch, None) if self._finish and split != "train" else batch


class _Columns:
    """Rows by name: numbers as one array, sequences end to end with the places where they begin."""

    def __init__(self, rows: Rows):
        self.rows = len(rows)
        self.numbers: dict[str, np.ndarray] = {}
        self.sequences: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name, first in rows[0].items():
            values = [row[name] for row in rows]
            if np.ndim(first) == 0:
                kind = np.float32 if isinstance(first, float) else np.int64
                self.numbers[name] = np.array(values, kind)
            else:
                arrays = [np.asarray(v, np.int32) for v in values]
                self.sequences[name] = np.concatenate(arrays), np.cumsum([0, *map(len, arrays)])

    def length(self, name: str) -> np.ndarray:
        """How long each row's sequence is."""
        return np.diff(self.sequences[name][1])

    def take(self, index: np.ndarray, pads: Mapping[str, int], lengths: Mapping[str, str]) -> Batch:
        batch: Batch = {}
        for name, (flat, starts) in self.sequences.items():
            begin, long = starts[index], starts[index + 1] - starts[index]
            inside = np.arange(max(int(long.max(initial=0)), 1))
            at = (begin[:, None] + inside).clip(max=max(len(flat) - 1, 0))
            held = np.where(inside < long[:, None], flat[at] if len(flat) else 0, pads.get(name, 0))
            batch[name] = torch.from_numpy(held.astype(np.int64))
            if name in lengths:
                batch[lengths[name]] = torch.from_numpy(long.astype(np.int64))
        for name, values in self.numbers.items():
            batch[name] = torch.from_numpy(values[index])
        return batch
