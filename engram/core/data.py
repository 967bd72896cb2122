"""Data: batch k is a pure function of (seed, split, k, part), so an exact resume needs one integer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from engram.core.batch import Batch
from engram.core.spec import Spec


@dataclass(frozen=True)
class Note:
    """Something about the data that the user should know: `level` is 'info' or 'warning'."""

    level: str
    text: str


@dataclass(frozen=True)
class Summary:
    """What `--dry-run`, the report and the run folder say about the data."""

    title: str  # "digits: 1,797 images 8x8x1 in 10 classes"
    rows: dict[str, int]  # split -> rows
    facts: dict[str, Any] = field(default_factory=dict)  # JSON values: classes, balance, columns, bytes ...
    notes: tuple[Note, ...] = ()
    sha256: str = ""  # of the content, so that a run says which data it saw


class Data(ABC):
    """Sources of batches. `batch` rows make one optimizer step, whatever the number of micro-batches and ranks."""

    spec: Spec
    summary: Summary
    batch: int

    @abstractmethod
    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """Batches of 'train' (endless, shuffled anew each epoch), 'val' or 'test' (one pass, in order), from number `start`.

        `part` = (rank, ranks): only the rows of this rank; the parts of batch k together are batch k.
        """

    @abstractmethod
    def size(self, split: str) -> int:
        """Rows in a split; 0 when the split does not exist."""

    def to(self, device: torch.device) -> None:
        """Keep what fits on the training device; sources that stream move batch by batch in the loop."""

    def raw(self, split: str, rows: list[int]) -> list[Any]:
        """The raw inputs of some rows, as `Spec.encode` and the report take them (images as PIL, table rows as dicts)."""
        raise LookupError(f"{type(self).__name__} keeps no raw rows")

    def names(self, split: str, rows: list[int]) -> list[str]:
        """What people call some rows: the names of their files where there are any, else their numbers."""
        return [f"{split} {row}" for row in rows]

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that pass once over the training rows."""
        return -(-self.size("train") // self.batch)
