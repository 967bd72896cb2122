"""Guards that run before training: data that would teach the network nothing, or something false, stops here with advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from engram.core.data import Note
from engram.core.errors import ConfigError, DataError, did_you_mean
from engram.data.columns import is_text, numbers

ALLOW = {
    "leak": "keep an input column that gives the target away",
    "infinite": "treat infinite numbers as missing",
    "tiny": "train on fewer than 10 rows",
}
LARGEST = 1e100
FEWEST, FEW = 10, 100  # rows below which a table is refused, and below which its score is said to be a rough guess


def check_allow(allow: Sequence[str]) -> None:
    """Raises ConfigError on a word of the `allow` knob that no guard knows."""
    for word in allow:
        if word not in ALLOW:
            raise ConfigError(f"allow={word} is not a guard{did_you_mean(word, ALLOW)}; there are {', '.join(ALLOW)}")


def check_size(rows: int, where: str, allow: Sequence[str] = ()) -> list[Note]:
    """Raises DataError below 10 rows (3 with allow=tiny); a warning below 100."""
    if rows < 3:
        raise DataError(f"{where} has {rows} usable row{'s' * (rows != 1)}; training, validation and test need at least 3")
    if rows < FEWEST and "tiny" not in allow:
        raise DataError(
            f"{where} has only {rows} usable rows, too few to learn and to test; add rows (allow=tiny trains anyway)"
        )
    if rows < FEW:
        return [Note("warning", f"only {rows} rows: validation and test scores are rough guesses")]
    return []


def check_classes(labels: Sequence[Any] | np.ndarray | pd.Series, where: str) -> dict[str, int]:
    """Rows of each class, in order of name. Raises DataError when there is only one class."""
    names, counts = np.unique(np.asarray([str(v) for v in labels], dtype=object), return_counts=True)
    if len(names) == 1:
        raise DataError(
            f"{where} has one class only ({names[0]!r} in all {counts[0]:,} rows): there is nothing to tell apart; add others"
        )
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def check_varies(values: np.ndarray, where: str) -> None:
    """Raises DataError when a number to predict is the same in every row."""
    if len(values) and np.ptp(values) == 0:
        raise DataError(f"{where} is {values[0]:g} in every row, so there is nothing to learn; choose another target")


def check_finite(values: np.ndarray, where: str, allow: Sequence[str] = (), index: Any = None) -> list[Note]:
    """Raises DataError on infinite numbers and names the first row (from 1); with allow=infinite a warning. NaN is missing.

    Beyond 1e100 counts as infinite: squares would overflow.

    `index` gives the rows their numbers in the source (from 0).
    """
    bad = np.flatnonzero(np.abs(values) > LARGEST)
    if not len(bad):
        return []
    if "infinite" in allow:
        return [Note("warning", f"{where}: {len(bad):,} infinite numbers are treated as missing")]
    first = bad[0] if index is None else index[bad[0]]
    raise DataError(
        f"{where} holds {len(bad):,} infinite number{'s' * (len(bad) > 1)} (first in data row {first + 1}); "
        "mend or empty the cells, or allow=infinite treats them as missing"
    )


def check_leaks(inputs: pd.DataFrame, target: Any, allow: Sequence[str] = ()) -> list[Note]:
    """Raises DataError when an input column is the target in disguise: a copy, a 1:1 renaming or `a * target + b`.

    With allow=leak each is a warning. Rows where either is missing are left out of the comparison.
    """
    notes = []
    for name in inputs.columns:
        how = _gives_away(inputs[name], target)
        if how and "leak" not in allow:
            raise DataError(
                f"input column {name!r} {how} the target {str(target.name)!r}, so the network would only learn to copy it; "
                f"leave it out with drop={name} (or allow=leak keeps it)"
            )
        if how:
            notes.append(Note("warning", f"input column {name!r} {how} the target: the score says nothing"))
    return notes


def _gives_away(column: Any, target: Any) -> str:
    """How the column gives the target away, or ''."""
    both = (column.notna() & target.notna()).to_numpy()
    if both.sum() < max(3, len(both) // 2):
        return ""
    x, y = column[both], target[both]
    codes_x, kinds_x = pd.factorize(x)
    codes_y, kinds_y = pd.factorize(y)
    if len(kinds_y) < 2 or len(kinds_x) < 2:
        return ""
    if _is_amount(y):  # between amounts 1:1 means nothing
        if not _is_amount(x):
            return ""
        a, b = x.to_numpy(np.float64), y.to_numpy(np.float64)
        if np.array_equal(a, b):
            return "is a copy of"
        if len(kinds_x) == len(kinds_y) > 2 and np.isfinite(a).all() and np.isfinite(b).all():
            a, b = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
            slope = np.sign(a @ b)
            if np.abs(a - slope * b).max() < 1e-4:  # in standard deviations; a copy may have been rounded
                return "is a straight-line function of"
        return ""
    if is_text(x) and is_text(y) and (x.astype(object) == y.astype(object)).all():
        return "is a copy of"
    # When nearly all values differ, any two columns are 1:1 and it means nothing.
    if len(kinds_x) == len(kinds_y) <= len(x) // 2:
        pairs = len(np.unique(codes_x.astype(np.int64) * len(kinds_y) + codes_y))
        if pairs == len(kinds_y):
            return "is a 1:1 renaming of"
    return ""


def _is_amount(cells: Any) -> bool:
    return pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells)


def balance_notes(counts: Mapping[str, int]) -> list[Note]:
    """Imbalance: the majority's share is the accuracy of always guessing it. Nothing is said when classes are about equal."""
    total, (name, most) = sum(counts.values()), max(counts.items(), key=lambda item: item[1])
    share = most / total
    if most <= 1.5 * min(counts.values()):
        return []
    text = f"classes are unequal: {share:.1%} of the rows are {name!r}, so always guessing it is already {share:.1%} accurate"
    return [Note("warning" if share >= 0.9 else "info", text)]


def order_notes(labels: Sequence[Any] | np.ndarray | pd.Series) -> list[Note]:
    """Rows sorted by class: the file's order must not decide the split."""
    codes = pd.factorize(np.asarray(labels))[0]
    if len(codes) > codes.max() + 1 and (np.diff(codes) != 0).sum() == codes.max():
        return [Note("info", "rows are sorted by class; shuffled before splitting")]
    return []


def check_same_classes(train: Sequence[str], other: Sequence[str], split: str) -> list[Note]:
    """Own files per split: raises DataError when no class of `split` is in train; a warning when some are not."""
    extra = sorted(set(other) - set(train))
    if other and len(extra) == len(set(other)):
        raise DataError(
            f"the {split} rows have none of the classes in train ({_few(extra)} against {_few(sorted(train))}): "
            "put the files together and let Engram shuffle and split them"
        )
    if extra:
        return [Note("warning", f"classes {_few(extra)} are in {split} but not in train: those rows cannot be answered right")]
    return []


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def check_headers(frame: pd.DataFrame, where: str) -> None:
    """Raises DataError when a row repeats the column names, or the first rows are a second header above numbers."""
    text = [name for name in frame.columns if is_text(frame[name])]
    if len(text) == len(frame.columns):
        same = np.logical_and.reduce([(frame[name].astype(object) == name).to_numpy() for name in text])
        if same.any():
            line = int(np.argmax(same)) + 2
            raise DataError(f"line {line} of {where} repeats the column names; delete that line (were files put together?)")
    for name in text:
        if numbers(frame[name].iloc[3:100])[1].any():  # a word further down: the column is text
            continue
        values, bad = numbers(frame[name])
        rows = np.flatnonzero(bad)
        if 1 <= len(rows) <= 3 and rows[-1] == len(rows) - 1 and (~np.isnan(values)).sum() >= 5:
            lines = f"line {rows[0] + 2}" if len(rows) == 1 else f"lines {rows[0] + 2} to {rows[-1] + 2}"
            cell = str(frame[name].iloc[0])
            raise DataError(
                f"{lines} of {where} look{'s' * (len(rows) == 1)} like a second header: "
                f"column {name!r} holds {cell!r} there and numbers below; "
                "keep one line of column names"
            )
