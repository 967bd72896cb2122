"""TableSpec: how rows of a table become tensors, learned from the training rows and saved beside the weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from engram.core.batch import Batch
from engram.core.errors import DataError, did_you_mean
from engram.core.spec import Spec
from engram.data.checks import LARGEST
from engram.data.columns import Cells, date_parts, dates, numbers, truths, words
from engram.data.known import Known, are_numbers, known_words, target_words
from engram.data.readers import read_chunks, read_frame

_FARTHEST = 1e15  # standard deviations: beyond, float32 activations overflow


@dataclass(frozen=True, kw_only=True)
class TableSpec(Spec):
    """Input columns, the features made of them, and the target. A batch has

    numeric (B, F) float32: standardised; missing cells take the training median and have a feature of their own;
    categorical (B, C) int64: index 0 is unknown or missing, index k is `categories[column][k - 1]`;
    y: int64 (B,) classes, or float32 (B, 1) standardised numbers (see `encode_target`).
    """

    columns: dict[str, str]  # input column -> number, category, boolean or date, in the order of training
    day_first: tuple[str, ...]  # date columns such as 31.12.2024
    numeric: tuple[str, ...]  # the F features: 'age', 'age is missing', 'sold: year'
    median: tuple[float, ...]  # in the column's units
    tail: tuple[float, ...]  # s > 0: heavy-tailed, so x becomes asinh((x - median) / s) before standardising; 0: as it is
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bins: tuple[tuple[float, ...], ...]  # rising edges, from lowest to highest, of the standardised feature (quantiles)
    categories: dict[str, tuple[str, ...]]  # the C categorical columns -> known values
    target: str
    problem: str  # classification or regression
    classes: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()  # training rows of each class
    target_mean: float = 0.0
    target_std: float = 1.0
    loose: tuple[str, ...] = ()  # number columns with words or infinities in training: these cells are missing
    decimal: str = "."  # decimal mark of the training file, for files that leave it open

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Rows of an embedding table per categorical column, index 0 included."""
        return tuple(len(known) + 1 for known in self.categories.values())

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Columns that files must give as text, because '01' is not 1 there."""
        numeric_classes = all(_is_number(name) for name in self.classes)
        return tuple(n for n, kind in self.columns.items() if kind != "number") + (() if numeric_classes else (self.target,))

    @property
    def known(self) -> Known:
        """How files are read as in training."""
        return Known(self.text_columns, self.target if "None" in self.classes else "", self.decimal)

    def target_words(self, cells: Cells) -> Cells:
        """The target's cells as words, NaN where missing as in training."""
        return target_words(cells, self.problem == "regression" or are_numbers(self.classes))

    def encode(self, raw: Any) -> Batch:
        """{'numeric': float32 (B, F), 'categorical': int64 (B, C)} of a DataFrame, a dict (one row, or lists), a list of dicts,
        a Series (one row), a 2-D array or tensor with the columns in the order of training, or a path.

        Columns that training did not use are ignored. Raises DataError on missing columns and cells of the wrong kind.
        """
        frame = self.frame(raw)
        made = raw_features(frame, self.columns, self.day_first, self.loose)
        numeric = np.empty((len(frame), len(self.numeric)))
        for i, name in enumerate(self.numeric):
            values = made[name]
            filled = np.where(np.isnan(values), self.median[i], values)
            numeric[:, i] = (squash(filled, self.median[i], self.tail[i]) - self.mean[i]) / self.std[i]
            if (far := np.abs(numeric[:, i]) > _FARTHEST).any():
                row = int(np.argmax(far))
                text = f"column {name!r} is {filled[row]:g}, far outside of what training saw; give a usual number or none"
                raise DataError(f"row {_number_of(frame, row)}: {text}")
        categorical = np.zeros((len(frame), len(self.categories)), dtype=np.int64)
        for i, (name, known) in enumerate(self.categories.items()):
            index = {word: k for k, word in enumerate(known, 1)}
            categorical[:, i] = category_words(frame[name], self.columns[name], known).map(index).fillna(0).to_numpy(np.int64)
        return {"numeric": torch.from_numpy(numeric.astype(np.float32)), "categorical": torch.from_numpy(categorical)}

    def frame(self, raw: Any) -> pd.DataFrame:
        """Any input that `encode` takes as a DataFrame with at least the columns of training. Raises DataError."""
        names = list(self.columns)
        if isinstance(raw, (str, os.PathLike)):
            raw = read_frame(raw, self.known)[0]
        elif isinstance(raw, Mapping):
            nested = any(isinstance(v, (list, tuple, np.ndarray, Tensor, pd.Series)) for v in raw.values())
            raw = pd.DataFrame(dict(raw)) if nested else pd.DataFrame([dict(raw)])
        elif isinstance(raw, pd.Series):
            raw = pd.DataFrame([raw.to_dict()])
        elif isinstance(raw, Sequence) and len(raw) and all(isinstance(row, (Mapping, pd.Series)) for row in raw):
            raw = pd.DataFrame([dict(row) for row in raw])
        elif not isinstance(raw, pd.DataFrame):
            array = np.asarray(raw.detach().cpu() if isinstance(raw, Tensor) else raw)
            array = array[None] if array.ndim == 1 else array
            if array.ndim != 2 or array.shape[1] != len(names):
                shape = "x".join(map(str, array.shape))
                raise DataError(f"an array of shape {shape} is not rows of the {len(names)} columns {_list(names)}")
            raw = pd.DataFrame(array, columns=pd.Index(names)).infer_objects()
        frame = raw.rename(columns=str)
        if absent := [name for name in names if name not in frame.columns]:
            others = [str(c) for c in frame.columns if str(c) not in self.columns]
            near = did_you_mean(absent[0], others).replace("did you mean", "is it")
            raise DataError(f"the input has no column {absent[0]!r}{near}; it needs {_list(names)}")
        if not len(frame):
            raise DataError("the input has no rows")
        return frame

    def encode_target(self, values: Any) -> Tensor:
        """Targets as int64 (B,) class indices or standardised float32 (B, 1). Raises DataError on unknown classes and words."""
        cells = values if isinstance(values, pd.Series) else pd.Series(list(values))
        if self.problem == "regression":
            array, bad = numbers(cells)
            if bad.any() or not np.isfinite(array).all():
                row = int(np.argmin(np.isfinite(array)))
                raise DataError(f"row {row + 1}: the target {self.target!r} is {cells.iloc[row]!r}, not a number")
            return torch.from_numpy(((array - self.target_mean) / self.target_std).astype(np.float32))[:, None]
        names = known_words(cells, self.classes)
        index: Cells = names.map({name: k for k, name in enumerate(self.classes)})
        if index.isna().any():
            word = str(names[index.isna()].iloc[0])
            raise DataError(
                f"{word!r} is no class of {self.target!r}{did_you_mean(word, self.classes)}; known: {_list(self.classes)}"
            )
        return torch.from_numpy(index.to_numpy(np.int64, copy=True))

    def decode(self, y: Tensor) -> list[str] | list[float]:
        """The inverse of `encode_target`: class names of indices (B,), or numbers in the target's units of (B, 1) or (B,)."""
        flat = y.detach().cpu().reshape(-1)
        if self.problem == "classification":
            return [self.classes[int(k)] for k in flat]
        return (flat.double() * self.target_std + self.target_mean).tolist()

    def read(self, source: Any, rows: int = 256) -> Iterator[tuple[list[str], Any]]:
        """CSV, JSON lines or Parquet (a path, or '-' for CSV or JSON lines on standard input), or anything `encode` takes, as
        (row numbers from 1, DataFrame) of at most `rows` rows; files are never held whole. Raises DataError."""
        if isinstance(source, (str, os.PathLike)):
            chunks = read_chunks(os.fspath(source), rows, self.known)
        else:
            frame = self.frame(source)
            chunks = (frame.iloc[i : i + rows] for i in range(0, len(frame), rows))
        done = 0
        for chunk in chunks:
            names = range(done, done + len(chunk))
            yield [str(i + 1) for i in names], chunk.set_axis(pd.RangeIndex(names.start, names.stop), axis=0)
            done += len(chunk)

    def labelled(self, source: Any, rows: int = 256) -> Iterator[Batch]:
        """Encoded batches with targets "y" from what `read` takes; rows without a target are left out. Raises DataError."""
        for _, chunk in self.read(source, rows):
            frame = chunk.rename(columns=str)
            if self.target not in frame.columns:
                near = did_you_mean(self.target, [c for c in frame.columns if c not in self.columns]).replace(
                    "did you mean", "is it"
                )
                raise DataError(f"the data has no column {self.target!r} to compare with{near}")
            there = self.target_words(frame[self.target]).notna().to_numpy()
            frame = frame if there.all() else frame[there]
            if len(frame):
                yield self.encode(frame) | {"y": self.encode_target(frame[self.target])}

    def example(self, batch: int = 2) -> Batch:
        """Zeros: average numbers, unknown categories."""
        return {
            "numeric": torch.zeros(batch, len(self.numeric)),
            "categorical": torch.zeros(batch, len(self.categories), dtype=torch.int64),
        }


def raw_features(
    frame: pd.DataFrame, columns: Mapping[str, str], day_first: Sequence[str], loose: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Every numeric feature in the column's units, NaN where missing: numbers, parts of dates, and 'is missing' (0 or 1).

    Raises DataError on a cell that is not a number or date; in the columns `loose` words and infinities are missing.
    """
    made: dict[str, np.ndarray] = {}
    for name, kind in columns.items():
        cells: Cells = frame[name]
        if kind == "number":
            values, bad = numbers(cells)
            if name in loose:
                values, bad = np.where(np.abs(values) > LARGEST, np.nan, values), np.zeros_like(bad)
            parts = {name: values}
        elif kind == "date":
            moments = dates(cells, name in day_first)
            bad = (moments.isna() & words(cells).notna()).to_numpy()
            parts = {f"{name}: {part}": v for part, v in date_parts(moments).items()}
        else:
            continue
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(f"row {_number_of(frame, row)}: column {name!r} is {cells.iloc[row]!r}, not a {kind}")
        made |= parts
        made[f"{name} is missing"] = np.isnan(next(iter(parts.values()))).astype(np.float64)
    return made


def category_words(cells: Cells, kind: str, known: Sequence[str] = ()) -> Cells:
    """The cells of a category or boolean column as the words that `categories` lists (`known`)."""
    return truths(cells) if kind == "boolean" else known_words(cells, known)


def squash(values: np.ndarray, median: float, tail: float) -> np.ndarray:
    """asinh((x - median) / tail): linear near the median, logarithmic far out; x itself when tail is 0."""
    return np.arcsinh((values - median) / tail) if tail else values


def _number_of(frame: pd.DataFrame, row: int) -> int:
    """The number of a row from 1; chunks of a stream carry their place in it."""
    return (frame.index.start if isinstance(frame.index, pd.RangeIndex) else 0) + row + 1


def _is_number(text: str) -> bool:
    return text.lstrip("+-").replace(".", "", 1).isdigit()


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
