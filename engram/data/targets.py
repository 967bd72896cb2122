"""What a table is to predict: which column, and whether it is a class or a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from engram.core.data import Note
from engram.core.errors import DataError, did_you_mean
from engram.data.checks import check_finite, check_varies
from engram.data.columns import Cells, is_text, kind_of, numbers, words
from engram.data.known import are_numbers, known_words, target_words
from engram.data.readers import read_column
from engram.data.table_rows import Loaded

TargetKind = Literal["auto", "classification", "regression"]
_USUAL = ("target", "label", "class", "y")
_MOST_INTEGERS = 20  # more different whole numbers are amounts, fewer are classes


def choose_target(columns: Sequence[str], target: str, where: str) -> tuple[str, list[Note]]:
    """The column to predict. Without a name: the one called target, label, class or y, else the last; the choice is said.

    Raises DataError with the nearest name when there is no such column.
    """
    if target:
        if target not in columns:
            raise DataError(
                f"{where} has no column {target!r}{did_you_mean(target, columns)}; it has {', '.join(columns[:12])}"
            )
        return target, []
    for name in _USUAL:
        if found := [c for c in columns if c.lower() == name]:
            return found[0], [Note("info", f"predicting the column {found[0]!r}; for another, set target=")]
    return columns[-1], [Note("info", f"predicting {columns[-1]!r}, the last column; for another, set target=")]


def choose_kind(cells: Cells, kind: TargetKind) -> tuple[str, list[Note]]:
    """'classification' or 'regression' for a target without missing cells, and why.

    Text, true/false and few different whole numbers are classes; other numbers are amounts; `kind` overrules. Raises DataError
    when the target is a date, text that hardly repeats, constant, or text where a number is asked for.
    """
    name, distinct = repr(str(cells.name)), int(cells.nunique())
    what = kind_of(cells, distinct)[0]
    if what == "date":
        raise DataError(f"the target {name} is a date; choose another with target=, or make it a number (days until ...)")
    if what in ("category", "boolean"):
        if kind == "regression":
            raise DataError(
                f"the target {name} is {cells.iloc[0]!r} in the first row and not a number; leave out kind=regression"
            )
        if distinct > max(20, len(cells) // 2):
            raise DataError(
                f"the target {name} has {distinct:,} different texts in {len(cells):,} rows: these are no classes; set target="
            )
        return "classification", [Note("info", f"{name} is {'text' if is_text(cells) else 'true or false'}: classification")]
    values = numbers(cells)[0]
    check_varies(values[np.isfinite(values)], f"the target {name}")
    values = values[~np.isnan(values)]
    whole = bool((values == np.round(values)).all())
    if kind == "classification":
        if distinct > max(20, len(cells) // 2):
            raise DataError(
                f"the target {name} has {distinct:,} different values in {len(cells):,} rows: no classes; set kind=regression"
            )
        return kind, []
    if kind == "auto" and whole and distinct <= min(_MOST_INTEGERS, len(cells) // 2):
        text = f"{name} has {distinct} different whole numbers: classification; to predict it as a number, set kind=regression"
        return "classification", [Note("info", text)]
    if kind == "auto":
        numbers_are = "many different whole numbers" if whole else "numbers with fractions"
        return "regression", [
            Note("info", f"{name} has {numbers_are}: regression; to predict classes, set kind=classification")
        ]
    return "regression", []


def with_target(loaded: Loaded, target: str, notes: list[Note], numeric: bool | None = None) -> Any:
    """The rows that have a target; how many have not, and the words that stand there, is said in `notes`.

    "None" among other words is a word. Beside numbers (`numeric`; None looks) it is missing, as 'unknown', '-' and others are.
    """
    frame: Any = loaded.frame
    if target not in frame.columns:
        raise DataError(f"{loaded.name} has no column {target!r}{did_you_mean(target, frame.columns)}")
    written: Cells = frame[target]
    if loaded.path and loaded.layout.kind == "csv" and is_text(written) and written.isna().any():
        written = read_column(loaded.path, loaded.layout, target)  # "None" and "NA" were read as missing
        present = frame[target].dropna()
        if kind_of(present, int(present.nunique()))[0] == "category":
            frame = frame.assign(**{target: frame[target].where(written != "None", "None")})
    names = words(frame[target])
    numeric = are_numbers(names.dropna().unique()) if numeric is None else numeric
    there = target_words(frame[target], numeric).notna().to_numpy()
    if not there.any():
        raise DataError(f"the target {target!r} is empty in every row of {loaded.name}")
    if not there.all():
        said = ", ".join(map(repr, words(written[~there]).dropna().unique()[:5]))
        text = f"{loaded.name}: {(~there).sum():,} rows without a target ({target!r}) are left out"
        notes.append(Note("warning", text + (f"; taken as missing: {said}" if said else "")))
    return frame[there]


def clean_target(frame: pd.DataFrame, target: str, kind: str, where: str, known: Sequence[str] = ()) -> Any:
    """The target as class names (spelt as `known`) or finite float64."""
    if kind == "classification":
        return frame.assign(**{target: known_words(frame[target], known)})
    values, bad = numbers(frame[target])
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"data row {frame.index[row] + 1} of {where}: the target {target!r} is {frame[target].iloc[row]!r}, not a number"
        )
    check_finite(values, f"the target {target!r} of {where}", (), frame.index)
    there = ~np.isnan(values)
    return frame.assign(**{target: values})[there]


def class_names(cells: Cells) -> tuple[str, ...]:
    """The classes in order: numbers by size, else by alphabet."""
    names = sorted(str(n) for n in words(cells).dropna().unique())
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(names)
