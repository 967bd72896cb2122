"""TextSpec: what a classifier of texts must know: the vocabulary, the classes, which of them is out of scope, the columns."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engram.core.batch import Batch
from engram.core.errors import DataError, did_you_mean
from engram.core.spec import Spec
from engram.data.grams import hashed
from engram.data.language_spec import pad_rows
from engram.data.pretrained import Pretrained
from engram.data.text_files import from_python, read_file
from engram.data.text_folders import read_folder
from engram.data.text_input import text_records
from engram.data.text_rows import LAYOUT, Row, as_form
from engram.data.text_sets import is_set, read_set
from engram.data.text_tables import TEXT, Names
from engram.data.vocabulary import Vocabulary, split_words


@dataclass(frozen=True, kw_only=True)
class TextSpec(Pretrained, Spec):
    """`classes` in the order of the network's outputs; with `held_out` the last one, `out_of_scope`, has no output.

    A batch holds "tokens" (B, T) int64 padded at the right with 0, "lengths" (B,) int64, and classes "y" (B,) int64; and, where
    `grams` is set, "grams" (B, G) int64 below that number: the n-grams of each text, padded with 0.
    """

    vocab: dict[str, Any]  # Vocabulary.to_json()
    context: int  # longest text in tokens; what is longer is cut
    classes: tuple[str, ...]
    class_counts: tuple[int, ...]  # training rows of each class
    out_of_scope: str = ""  # the class of texts that belong to none of the others; always last; '' when there is none
    held_out: bool = False  # no text of that class was trained: the probability of the others tells
    text: str = ""  # columns of the table trained on; '' for the usual names
    label: str = ""
    vector_width: int = 0  # of the pre-trained vectors; 0 without
    grams: int = 0  # numbers that n-grams are hashed to; 0 without

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary at work."""
        return Vocabulary.from_json(self.vocab)

    @property
    def outputs(self) -> int:
        """Classes that the network tells apart."""
        return len(self.classes) - self.held_out

    @property
    def inputs(self) -> tuple[str, ...]:
        """What of a batch a network reads."""
        return ("tokens", "lengths", "grams") if self.grams else ("tokens", "lengths")

    def encode(self, raw: Any) -> Batch:
        """{"tokens" (B, T), "lengths" (B,)} of a text, a list of texts, a dict or rows with a text column, a DataFrame, or a
        Path of a file with a text on each line. Raises DataError, also for an empty text."""
        texts = self.texts(raw)
        return self._batch(texts, [f"text {n}" if len(texts) > 1 else "the text" for n in range(1, len(texts) + 1)])

    def ids(self, text: str, name: str) -> list[int]:
        """At most `context` ids of a text. Raises DataError when it holds no token."""
        ids = self.vocabulary.encode(text)[: self.context]
        if not ids:
            raise DataError(f"{name} is empty; leave it out or write some words")
        return ids

    def grams_of(self, text: str) -> np.ndarray:
        """The numbers of the n-grams of a text, of its first `context` words."""
        return hashed(split_words(text.lower() if self.vocabulary.lower else text)[: self.context], self.grams)

    def texts(self, raw: Any) -> list[str]:
        """The texts in what the user gave. Raises DataError."""
        return [text_of(one, self.text) for one in items(raw)]

    def read(self, source: Any, rows: int = 256) -> Iterator[tuple[list[str], Any]]:
        """Texts of a CSV or JSON-lines file, the lines of another file or of '-', or the text itself. Raises DataError."""
        for names, chunk in chunks(source, rows):
            found = [text_of(one, self.text, name) for name, one in zip(names, chunk, strict=True)]
            for name, text in zip(names, found, strict=True):
                self.ids(text, name[:80])
            yield names, found

    def labelled(self, source: Any, rows: int = 256) -> Iterator[Batch]:
        """Batches with "y" of labelled texts: a table, a folder per class, rows in Python, or the test rows of a built-in set.

        Raises DataError on a label that training did not have.
        """
        found = labelled_rows(source, "labelled", Names(self.text, self.label))
        for first in range(0, len(found), rows):
            part = found[first : first + rows]
            batch = self._batch([r["text"] for r in part], [f"text {n}" for n in range(first + 1, first + len(part) + 1)])
            yield batch | {"y": torch.tensor([self.number(r["label"]) for r in part])}

    def number(self, label: str) -> int:
        """The number of a class. Raises DataError when there is none."""
        if label not in self.classes:
            shown = ", ".join(self.classes[:8]) + (f" and {len(self.classes) - 8} more" if len(self.classes) > 8 else "")
            raise DataError(f"{label!r} is no class of this run{did_you_mean(label, self.classes)}; known: {shown}")
        return self.classes.index(label)

    def example(self, batch: int = 2) -> Batch:
        """Texts of padding, as long as the context but at most 32 tokens."""
        length = min(self.context, 32)
        grams = {"grams": torch.zeros(batch, length, dtype=torch.int64)} if self.grams else {}
        return {"tokens": torch.zeros(batch, length, dtype=torch.int64), "lengths": torch.full((batch,), length)} | grams

    def _batch(self, texts: Sequence[str], names: Sequence[str]) -> Batch:
        batch = pad_rows([self.ids(text, name) for text, name in zip(texts, names, strict=True)])
        return batch | ({"grams": pad_rows([self.grams_of(t).tolist() for t in texts])["tokens"]} if self.grams else {})


def items(raw: Any) -> list[Any]:
    """What the user gave, one by one: texts, or rows as dicts. Raises DataError when it is nothing of that kind."""
    if isinstance(raw, (str, Mapping)):
        return [raw]
    if isinstance(raw, os.PathLike):
        return [one for _, one in text_records(Path(raw), TEXT)]
    if type(raw).__name__ == "DataFrame":
        raw = raw.to_dict("records")
    if isinstance(raw, Sequence) and not isinstance(raw, bytes) and len(raw):
        return [one for item in raw for one in (items(item) if isinstance(item, os.PathLike) else [item])]
    what = "an empty list" if isinstance(raw, Sequence) and not len(raw) else f"{type(raw).__name__}"
    raise DataError(
        f"this run takes text: a string, a list of strings, rows with a text column, or the path of a file; got {what}"
    )


def chunks(source: Any, rows: int) -> Iterator[tuple[list[str], list[Any]]]:
    """(names, texts or dicts) of a source, at most `rows` at a time. Raises DataError."""
    streams = isinstance(source, (str, os.PathLike))
    found = text_records(source, TEXT) if streams else ((str(n), one) for n, one in enumerate(items(source), 1))
    names: list[str] = []
    chunk: list[Any] = []
    for name, one in found:
        names.append(name)
        chunk.append(one)
        if len(chunk) == rows:
            yield names, chunk
            names, chunk = [], []
    if chunk:
        yield names, chunk


def text_of(one: Any, column: str, name: str = "") -> str:
    """The text of a string or of a row with a text column. Raises DataError."""
    if isinstance(one, str):
        return one
    where = f"{name}: " if name else ""
    if not isinstance(one, Mapping):
        raise DataError(
            f"{where}this run takes text, and {type(one).__name__} is none; give a string, or a row with a text column"
        )
    keys = {str(k).lower(): k for k in reversed(list(one))}
    usual = next((keys[t] for t in TEXT if t in keys), next(iter(one)) if len(one) == 1 else None)
    key = column if column in one else usual
    if key is None:
        near = did_you_mean(column, map(str, one)).replace("did you mean", "is it") if column else ""
        raise DataError(f"{where}there is no column {column or 'text'!r}{near}; there are {', '.join(map(str, list(one)[:8]))}")
    value = one[key]
    return "" if value is None or value != value else str(value)


def labelled_rows(source: Any, form: str, names: Names) -> list[Row]:
    """Rows with answers of a source, in order, whatever their classes. Raises DataError."""
    path = Path(source).expanduser() if isinstance(source, (str, os.PathLike)) else None
    if path is None:
        texts = from_python(source, form, names)
    elif path.is_dir():
        texts = read_folder(path, form, names)
    elif path.is_file():
        texts = read_file(path, form, names)
    else:
        texts = read_set(str(source)) if is_set(str(source)) else None
    if texts is None:
        raise DataError(f"there is no file or folder {str(source)[:80]!r}; {form} data is {LAYOUT[form]}")
    splits = as_form(texts, form, str(source)[:80]).splits
    return splits.get("test") or splits.get("val") or splits["train"]
