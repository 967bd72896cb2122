"""Predictor: a trained network in use. `takes` and `gives` declare inputs and outputs once: CLI, HTTP and web form follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from engram.core.batch import Batch
from engram.core.spec import Spec


@dataclass(frozen=True)
class Field:
    """One declared input or output: `kind` is 'input' (what the Spec encodes), 'label', 'probabilities', 'number' ..."""

    kind: str
    doc: str


class Predictor(ABC):
    """Calls take keyword inputs and return a dict of lists (one entry per row), or an iterator of such dicts."""

    takes: ClassVar[dict[str, Field]]
    gives: ClassVar[dict[str, Field]]

    spec: Spec

    @abstractmethod
    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """Raw outputs for an encoded batch, one row each, on the CPU: what evaluation and reports measure.

        Known names: "probabilities" (B, classes), "values" (B,), and "targets" when the batch holds them; {} if none.
        """

    def tune(self, *, bf16: bool, channels_last: bool) -> None:
        """Prepare for speed on this machine; the outputs stay the same within the number format."""

    @abstractmethod
    def __call__(self, **inputs: Any) -> dict[str, list[Any]] | Iterator[dict[str, list[Any]]]:
        """Outputs as plain Python values under the names in `gives`."""
