"""Predictor: a trained network in use. `takes` and `gives` declare inputs and outputs once: CLI, HTTP and web form follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor

from engram.core.batch import Batch
from engram.core.spec import Spec


@dataclass(frozen=True)
class Field:
    """One declared input or output: `kind` is 'input' (what the Spec encodes), 'label', 'probabilities', 'number' ..."""

    kind: str
    doc: str


@dataclass(frozen=True)
class Figure:
    """A figure over many rows.

    `statistic` maps sums of the rows' parts (N, K) to values (N,), so that its interval can be had by resampling rows.
    """

    words: str  # "perplexity per token"
    statistic: Callable[[Tensor], Tensor]
    form: Literal["number", "percent"] = "number"


@dataclass(frozen=True)
class Scores:
    """What a predictor reaches on rows with known answers, where probabilities of classes or numbers do not say it all."""

    figures: dict[str, Figure]  # the first is the headline
    parts: Tensor  # (rows, K) float64: what each row adds to the sums that the figures are made of
    of: str = "rows"  # what the rows are called
    beside: str = ""  # what knowing nothing would reach: "guessing evenly has 71"
    examples: list[dict[str, Any]] = field(default_factory=list)  # {"input", "target", "prediction"} as text


@dataclass(frozen=True)
class View:
    """A look inside, drawn as PNG and kept as JSON. `data` are JSON values, by kind:

    points {"x", "y", "label"}; lines {"x", "series": {name: [...]}, "xlabel", "ylabel"}; bars {"names", "values", "ylabel"};
    heat {"values": rows of numbers, "rows", "columns": names}; pictures {"columns": int, "captions": [...]}.
    """

    name: str  # "latent-map": the stem of its files
    title: str
    kind: Literal["pictures", "points", "lines", "bars", "heat"]
    data: dict[str, Any]
    pictures: Tensor | None = None  # uint8 (N, C, H, W)


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

    def scores(self, batches: Iterable[Batch], rows: Iterable[list[Any]]) -> Scores | None:
        """Figures of rows with answers, given as encoded batches and as raw rows: read whichever is needed, once.

        None where `outputs` says it all (classes and numbers).
        """
        return None

    def views(self, batches: Callable[[], Iterable[Batch]]) -> Iterator[View]:
        """Looks inside, made in seconds; `batches()` begins a pass over the test split, or over what was given."""
        yield from ()

    def tune(self, *, bf16: bool, channels_last: bool) -> None:
        """Prepare for speed on this machine; the outputs stay the same within the number format."""

    @abstractmethod
    def __call__(self, **inputs: Any) -> dict[str, list[Any]] | Iterator[dict[str, list[Any]]]:
        """Outputs as plain Python values under the names in `gives`."""
