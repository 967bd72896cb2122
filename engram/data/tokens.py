"""TokenData: one long row of tokens cut into windows. Every token is a target exactly once in an epoch, and nothing is lost.

Each document begins with <s>, which is also what follows its last token. With `documents` a batch also tells which document
every token belongs to, so that a model can keep them apart; a document cut by the end of a window goes on in another row
without what came before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from engram.core.batch import Batch, fold
from engram.core.data import Data, Summary
from engram.core.spec import Spec
from engram.data.order import walk

Raw = Callable[[str, list[int]], list[Any]]


class TokenData(Data):
    """`splits` name a row of ids each (in memory or memory-mapped); `trained` says which of them are targets (all, if absent).

    `starts` are the positions of the documents' first tokens, and give "documents" in the batches; without them there are none.
    A row of a batch is a window of `context` tokens. In training the cuts move from epoch to epoch.
    """

    def __init__(
        self,
        spec: Spec,
        summary: Summary,
        splits: dict[str, np.ndarray],
        *,
        context: int,
        batch: int,
        seed: int = 0,
        starts: dict[str, np.ndarray] | None = None,
        trained: dict[str, np.ndarray] | None = None,
        raw: Raw | None = None,
    ):
        self.spec, self.summary, self.splits = spec, summary, splits
        self.context, self.batch, self.seed = context, batch, seed
        self.starts, self.trained, self._raw = starts or {}, trained or {}, raw

    def size(self, split: str) -> int:
        """Windows in a split."""
        return -(-len(self.splits[split]) // self.context) if split in self.splits else 0

    def raw(self, split: str, rows: list[int]) -> list[Any]:
        """Prompts: the beginnings of windows."""
        return self._raw(split, rows) if self._raw else super().raw(split, rows)

    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """See Data.batches: {"tokens", "targets"} (B, context), and "documents" where documents are kept apart."""
        if split not in self.splits:
            return
        per_epoch = -(-self.size(split) // self.batch)
        for number, index in walk(split, self.size(split), self.batch, seed=self.seed, start=start, part=part):
            epoch = number // per_epoch
            shift = fold(self.seed, "cut", epoch) % self.context if split == "train" else 0
            yield self.window(split, index.numpy(), shift)

    def window(self, split: str, index: np.ndarray, shift: int = 0) -> Batch:
        """Windows by number. Positions run round the end of the row, so that any cut has equally many windows."""
        ids = self.splits[split]
        count, context = len(ids), self.context
        after = index[:, None] * context + np.arange(context + 1)  # (B, context + 1), counted from the cut
        at = (after + shift) % count
        held = np.asarray(ids[at], np.int64)
        first = at[:, 1:] == 0  # nothing comes before the first token, so it cannot be a target
        over = after[:, 1:] > count  # the last window reaches into the first
        targets = np.where(first | over, -100, held[:, 1:])
        if split in self.trained:
            targets = np.where(self.trained[split][at[:, 1:]], targets, -100)
        batch = {"tokens": torch.from_numpy(np.ascontiguousarray(held[:, :-1])), "targets": torch.from_numpy(targets)}
        if split in self.starts:
            documents = np.searchsorted(self.starts[split], at[:, :-1], side="right")
            batch["documents"] = torch.from_numpy(documents.astype(np.int32))
        return batch
