"""What training found out about a table, so that other rows are read the same way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from engram.data.columns import MISSING_NUMBER, Cells, numbers, words


@dataclass(frozen=True)
class Known:
    """How files are read."""

    text: tuple[str, ...] = ()  # columns that stay text; other columns of text hold numbers
    none: str = ""  # the text column where "None" is a word and no missing cell
    decimal: str = "."  # the mark where 1,234 and 1.234 may be thousands too


def known_words(series: Cells, known: Sequence[str]) -> Cells:
    """`words` as `known` spells them: files write TRUE for True, and 1.50 for the one value 1.5 of a flag."""
    names = words(series)
    spelt = {_plain(name, known): name for name in known}
    found = {name: spelt.get(_plain(name, known)) for name in set(names.dropna().unique()) - set(known)}
    others = {name: other for name, other in found.items() if other is not None}
    return names.map(lambda name: others.get(name, name), na_action="ignore") if others else names


def _plain(name: str, known: Sequence[str]) -> str:
    if len(known) == 1 and re.fullmatch(r"[+-]?\d+(\.\d*)?", name):
        return str(float(name))
    return name.lower() if name.lower() in ("true", "false") else name


def target_words(series: Cells, numeric: bool) -> Cells:
    """`words` of a target; beside numbers 'unknown', '-' and the like are missing too."""
    names = words(series)
    return names.mask(names.str.lower().isin(MISSING_NUMBER)) if numeric else names


def are_numbers(names: Iterable[str]) -> bool:
    """Whether the names of classes are numbers, words for missing ones aside."""
    present = [name for name in names if name.lower() not in MISSING_NUMBER]
    return bool(present) and not numbers(pd.Series(present, dtype=object))[1].any()
