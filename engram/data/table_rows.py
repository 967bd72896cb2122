"""Rows of a table as they were read: from a file, a DataFrame or a built-in set."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from pandas.util import hash_pandas_object

from engram.core.data import Note
from engram.core.errors import DataError, did_you_mean
from engram.data.checks import check_headers
from engram.data.columns import decimal_points, is_text, kind_of
from engram.data.known import Known
from engram.data.readers import existing, read_frame
from engram.data.sniff import Format
from engram.data.sources import BUILT_IN, table_frames

Source = str | os.PathLike[str] | pd.DataFrame


@dataclass(frozen=True)
class Loaded:
    """Rows as they were read."""

    name: str
    frame: pd.DataFrame
    sha256: str
    target: str = ""  # a built-in set's
    test: pd.DataFrame | None = None  # a built-in set's official test rows
    format: str = ""
    notes: tuple[Note, ...] = ()
    path: Path | None = None  # a file
    layout: Format = Format("parquet")  # how a file is written


def load_rows(source: Source, known: Known | None = None) -> Loaded:
    """Read a table, a file in the way that is `known` from another.

    Raises DataError as `read_frame` does, on a second header, and on what is neither file nor built-in.
    """
    if isinstance(source, pd.DataFrame):
        frame = source.reset_index(drop=True)
        frame.columns = [" ".join(map(str, c)) if isinstance(c, tuple) else str(c) for c in frame.columns]
        if not frame.columns.is_unique:
            raise DataError(f"the DataFrame has more than one column called {frame.columns[frame.columns.duplicated()][0]!r}")
        if not len(frame) or not len(frame.columns):
            raise DataError("the DataFrame has no rows or no columns")
        return Loaded("DataFrame", frame, frame_sha256(frame))
    if not str(source):
        raise DataError("no data given: name a CSV, JSON lines or Parquet file, or a built-in set such as iris")
    if str(source) in BUILT_IN and not Path(source).exists():
        frame, target, test = table_frames(str(source))
        return Loaded(str(source), frame, frame_sha256(frame), target, test, BUILT_IN[str(source)].description)
    try:
        frame, fmt, sha256 = read_frame(source, known)
    except DataError as error:
        if Path(source).exists() or Path(source).suffix or not (near := did_you_mean(str(source), BUILT_IN)):
            raise
        raise DataError(f"{source!r} is neither a file nor a built-in data set{near}") from error
    notes: list[Note] = []
    if fmt.encoding in ("cp1252", "latin-1"):
        notes.append(Note("warning", f"not UTF-8: read as {fmt.encoding}; check the accents, or save it as UTF-8"))
    if fmt.decimal == ",":
        notes.append(Note("info", "numbers are read with a decimal comma: 1,5 is one and a half"))
        frame = frame if known else _decimal_points(frame, notes)
    check_headers(frame, Path(source).name)
    return Loaded(Path(source).name, frame, sha256, "", None, fmt.describe(), tuple(notes), existing(source), fmt)


def _decimal_points(frame: pd.DataFrame, notes: list[Note]) -> pd.DataFrame:
    """A frame from a file with decimal commas: columns of text that hold numbers get points; that is said."""
    made = {}
    for name in (n for n in frame.columns if is_text(frame[n])):
        cells = decimal_points(frame[name])
        changed = (cells.notna() & (cells != frame[name])).to_numpy()
        present = cells.dropna()
        if changed.any() and kind_of(present, int(present.nunique()))[0] == "number":
            made[name], row = cells, int(changed.argmax())
            notes.append(Note("info", f"column {name!r}: {frame[name].iloc[row]!r} is read as {cells.iloc[row]}"))
    return frame.assign(**made)


def row_hashes(frame: Any) -> np.ndarray:
    """One 64-bit hash per row over all cells, (rows, 1)."""
    hashes = cast(Any, hash_pandas_object)(frame.apply(_hashable), index=False)
    return hashes.to_numpy()[:, None]


def _hashable(cells: Any) -> Any:
    return cells.astype(object).map(str) if is_text(cells) else cells


def frame_sha256(frame: pd.DataFrame) -> str:
    """The sha256 of the column names and of a hash of every row."""
    digest = hashlib.sha256("\n".join(map(str, frame.columns)).encode())
    digest.update(row_hashes(frame).tobytes())
    return digest.hexdigest()
