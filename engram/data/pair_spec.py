"""PairSpec: what a model from text to text must know: the vocabulary of each side, and how long a text may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from engram.core.batch import Batch
from engram.core.errors import DataError, did_you_mean
from engram.core.spec import Spec
from engram.data.language_spec import pad_rows
from engram.data.pretrained import Pretrained
from engram.data.text_files import from_python, two_files
from engram.data.text_input import text_records
from engram.data.text_tables import Names
from engram.data.vocabulary import END, START, Vocabulary

SOURCE_KEYS = ("source", "text", "input", "src")
TARGET_KEYS = ("target", "tgt")


@dataclass(frozen=True, kw_only=True)
class PairSpec(Pretrained, Spec):
    """`vocab` is `Vocabulary.to_json()` of the source, `target_vocab` that of the target, {} when both share one.

    `context` and `target_context` are the most tokens of a source and of a target, each with its </s>; `columns` what the two
    sides were called in the user's table.
    """

    vocab: dict[str, Any]
    target_vocab: dict[str, Any] = field(default_factory=dict)
    context: int
    target_context: int
    columns: tuple[str, str] = ("source", "target")
    title: str = ""
    vector_width: int = 0  # of the pre-trained vectors, of the words of `vocab`; 0 without

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Of the source."""
        return Vocabulary.from_json(self.vocab)

    @cached_property
    def target_vocabulary(self) -> Vocabulary:
        """Of the target; the same object where it is shared."""
        return Vocabulary.from_json(self.target_vocab) if self.target_vocab else self.vocabulary

    @property
    def shared(self) -> bool:
        """Whether both sides have one vocabulary."""
        return not self.target_vocab

    def source_ids(self, text: str) -> list[int]:
        """A source as ids and </s>; what is beyond the context is cut off. Raises DataError when there is no text."""
        if not text.strip():
            raise DataError("the source is empty; give it some text, or leave the row out")
        return [*self.vocabulary.encode(text)[: self.context - 1], END]

    def target_ids(self, text: str) -> list[int]:
        """A target as <s>, ids and </s>; what is beyond the context is cut off."""
        return [START, *self.target_vocabulary.encode(text)[: self.target_context - 1], END]

    def too_long(self, text: str) -> int:
        """How many tokens of a source are beyond the context, and are not read."""
        return max(len(self.vocabulary.encode(text)) - (self.context - 1), 0)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids."""
        return self.target_vocabulary.decode(ids)

    def texts(self, raw: Any) -> list[str]:
        """The sources in what the user gave: a text, a row {"source"}, a path to a file of lines, or a list of these.

        Raises DataError.
        """
        if isinstance(raw, str):
            return [raw]
        if isinstance(raw, PathLike):
            return [self.source_of(one) for _, one in text_records(Path(raw), SOURCE_KEYS)]
        if isinstance(raw, Mapping):
            return [self.source_of(raw)]
        if isinstance(raw, Sequence) and not isinstance(raw, bytes) and len(raw):
            return [text for item in raw for text in self.texts(item)]
        what = "an empty list" if isinstance(raw, Sequence) and not len(raw) else type(raw).__name__
        raise DataError(f"this run takes text: a string, a list of them, or a path to a file of lines; got {what}")

    def encode(self, raw: Any) -> Batch:
        """{"source" (B, S) padded with 0, "source_lengths" (B,)}; see `texts`."""
        found = pad_rows([self.source_ids(text) for text in self.texts(raw)])
        return {"source": found["tokens"], "source_lengths": found["lengths"]}

    def encode_pairs(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Rows {"source", "target"} as the batch of training. Raises DataError when one has no target."""
        targets = pad_rows([self.target_ids(self.references(row)[0]) for row in rows])
        return self.encode(list(rows)) | {"target": targets["tokens"], "target_lengths": targets["lengths"]}

    def source_of(self, row: Any) -> str:
        """The source of a row: a text, or a dict."""
        if not isinstance(row, Mapping):
            return str(row)
        return str(_value(row, (*SOURCE_KEYS[:1], self.columns[0], *SOURCE_KEYS[1:]), "source"))

    def references(self, row: Any) -> list[str]:
        """The good targets of a row, one or several. Raises DataError when it has none."""
        if not isinstance(row, Mapping):
            raise DataError(
                "to measure, every source needs its target: give two files (a.en,a.de) or a table with both columns"
            )
        if row.get("references"):
            return [str(r) for r in row["references"]]
        return [str(_value(row, (*TARGET_KEYS[:1], self.columns[1], *TARGET_KEYS[1:]), "target"))]

    def read(self, source: Any, rows: int = 256) -> Iterator[tuple[list[str], Any]]:
        """Lines of a text file, rows of a table (their source column), a pair of files, or the text itself."""
        names: list[str] = []
        chunk: list[Any] = []
        for name, record in self._records(source):
            names.append(name)
            chunk.append(record)
            if len(chunk) == rows:
                yield names, chunk
                names, chunk = [], []
        if chunk:
            yield names, chunk

    def labelled(self, source: Any, rows: int = 64) -> Iterator[Batch]:
        """Rows with both sides as batches: a pair of files (a.en,a.de), or a table with the two columns. Raises DataError."""
        for _, chunk in self.read(source, rows):
            yield self.encode_pairs(chunk)

    def example(self, batch: int = 2) -> Batch:
        """Token 0 as long as the contexts, at most 64."""
        source = torch.zeros(batch, min(self.context, 64), dtype=torch.int64)
        target = torch.zeros(batch, min(self.target_context, 64), dtype=torch.int64)
        return {
            "source": source, "source_lengths": torch.full((batch,), source.shape[1]),
            "target": target, "target_lengths": torch.full((batch,), target.shape[1]),
        }  # fmt: skip

    def _records(self, source: Any) -> Iterator[tuple[str, Any]]:
        if not isinstance(source, (str, PathLike)):
            rows = source if isinstance(source, (list, tuple)) else self._frame(source)
            yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))
            return
        if isinstance(source, str) and "," in source and (both := two_files(source, Names())):
            yield from ((f"row {number}", row) for number, row in enumerate(both.splits["train"], 1))
            return
        yield from text_records(source, SOURCE_KEYS)

    def _frame(self, source: Any) -> list[dict[str, Any]]:
        found = from_python(source, "pairs", Names(source=self.columns[0], target=self.columns[1]))
        if found is None:
            raise DataError(f"this run reads a path, a list of rows or a DataFrame, not {type(source).__name__}")
        return found.splits["train"]


def _value(row: Mapping[str, Any], keys: Sequence[str], what: str) -> Any:
    found = next((row[key] for key in keys if key in row), None)
    if found is None:
        near = did_you_mean(keys[1], [str(k) for k in row])
        raise DataError(f"a row has no {what}{near}: it has {', '.join(map(str, row))}, and {keys[1]!r} is needed")
    return found
