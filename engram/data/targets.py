"""What a table is to predict: which column, and whether it is a class or a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from engram.core.data import Note
from engram.core.errors import DataError, did_you_mean
from engram.data.checks import check_varies
from engram.data.columns import Cells, is_text, kind_of, numbers, words

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


def class_names(cells: Cells) -> tuple[str, ...]:
    """The classes in order: numbers by size, else by alphabet."""
    names = sorted(str(n) for n in words(cells).dropna().unique())
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(names)
