"""Spec: what the data says about shapes, names and normalisation. Saved beside the weights, so a run works without its data."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch

from engram.core.batch import Batch
from engram.core.errors import RunError


@dataclass(frozen=True, kw_only=True)
class Spec(ABC):
    """A frozen dataclass of JSON values (numbers, strings, lists/tuples, dicts, None)."""

    @abstractmethod
    def encode(self, raw: Any) -> Batch:
        """Raw input (path, array, tensor, DataFrame, dict or list of them) to the batch that the task's models read.

        Raises DataError that says what is wrong with the input.
        """

    @abstractmethod
    def read(self, source: Any, rows: int = 256) -> Iterator[tuple[list[str], Any]]:
        """Stream a file, folder or '-' (standard input) as chunks of at most `rows`: (row names, raw input)."""

    @abstractmethod
    def labelled(self, source: Any, rows: int = 256) -> Iterator[Batch]:
        """Stream labelled data of the form that the run was trained on as encoded batches with targets "y"."""

    def answered(self, source: Any, rows: int = 256) -> Iterator[list[Any]]:
        """Raw rows of labelled data with their answers, for figures that `labelled` batches do not give."""
        for _, chunk in self.read(source, rows):
            yield list(chunk) if isinstance(chunk, list) else [chunk]

    @abstractmethod
    def example(self, batch: int = 2) -> Batch:
        """A batch of zeros of the right shapes and types, for summaries and cost."""

    def to_json(self) -> dict[str, Any]:
        """The fields, with the class name under `kind`."""
        return {"kind": type(self).__name__} | dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_json`: JSON lists become tuples again. Raises RunError on fields this version does not know."""
        known = {f.name for f in dataclasses.fields(cls)}
        given = {k: _tuples(v) for k, v in values.items() if k != "kind"}
        if extra := sorted(given.keys() - known):
            raise RunError(f"the run's spec has fields this version does not know: {', '.join(extra)}; upgrade Engram")
        return cls(**given)


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return value


def as_tensor(array: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """An array, nested list or tensor as a tensor of `dtype` on the CPU."""
    return torch.as_tensor(array).to("cpu", dtype)
