"""WordSpec: the words that have a vector, how often each was seen, and how text is cut into words."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from engram.core.batch import Batch
from engram.core.errors import DataError, did_you_mean
from engram.core.spec import Spec

WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")  # letters and digits of any script; an apostrophe inside belongs to the word


def cut(line: str, lower: bool, spaces: bool) -> list[str]:
    """The words of a line: what stands between spaces, or only runs of letters and digits."""
    line = line.lower() if lower else line
    return line.split() if spaces else WORD.findall(line)


@dataclass(frozen=True, kw_only=True)
class WordSpec(Spec):
    """Word number i is `words[i]`, most frequent first, and was seen `counts[i]` times."""

    words: tuple[str, ...]
    counts: tuple[int, ...]
    lower: bool = True
    spaces: bool = False
    chance: float = 0.0  # loss of vectors that say nothing, where the data decides it (GloVe)

    @cached_property
    def index(self) -> dict[str, int]:
        """Word -> number."""
        return {word: number for number, word in enumerate(self.words)}

    def number(self, word: str) -> int:
        """The number of a word, capitals taken as small letters when the words are. Raises DataError with the nearest word."""
        found = self.index.get(word)
        if found is None and self.lower:
            found = self.index.get(word.lower())
        if found is None:
            near = did_you_mean(word.lower(), islice(self.words, 20_000))
            raise DataError(f"{word!r} is not among the {len(self.words):,} words of this run{near}")
        return found

    def encode(self, raw: Any) -> Batch:
        """A word, or a list of words and of lists of words, to {"words": (B, L) int64}, short rows ended with -1.

        A list of words inside the list is one row, what they have in common. Raises DataError.
        """
        rows = [raw] if isinstance(raw, str) else raw
        if not isinstance(rows, (list, tuple)) or not rows:
            said = "an empty list" if isinstance(raw, (list, tuple)) else type(raw).__name__
            raise DataError(f"word vectors take a word or a list of words, not {said}")
        lists = [[row] if isinstance(row, str) else row for row in rows]
        for row in lists:
            if not isinstance(row, (list, tuple)) or not row or not all(isinstance(word, str) for word in row):
                raise DataError(f"word vectors take words, not {type(row).__name__}")
        longest = max(map(len, lists))
        return {"words": torch.tensor([[*map(self.number, row), *[-1] * (longest - len(row))] for row in lists])}

    def read(self, source: Any, rows: int = 256) -> Iterator[tuple[list[str], Any]]:
        """The words of a text file or of standard input, in order, `rows` at a time. Raises DataError."""
        kept: list[str] = []
        for line in _lines(source):
            kept += cut(line, self.lower, self.spaces)
            while len(kept) >= rows:
                yield kept[:rows], kept[:rows]
                kept = kept[rows:]
        if kept:
            yield kept, kept

    def labelled(self, source: Any, rows: int = 256) -> Iterator[Batch]:
        """Word vectors have no labelled rows: they are measured on judged pairs and analogies."""
        raise DataError("word vectors have no labels to compare with; `engram neighbours RUN --evaluate` measures them")
        yield {}

    def example(self, batch: int = 2) -> Batch:
        """{"words": (batch, 1)} of zeros."""
        return {"words": torch.zeros(batch, 1, dtype=torch.int64)}


def _lines(source: Any) -> Iterator[str]:
    if source == "-":
        yield from sys.stdin
        return
    if not isinstance(source, (str, os.PathLike)):
        raise DataError(f"word vectors read words from a text file, not from {type(source).__name__}")
    try:
        with Path(source).expanduser().open(encoding="utf-8-sig") as stream:
            yield from stream
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8 text (byte {error.start:,} of a piece); convert it first") from None
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror})") from None
