"""SpanSpec: what a model that fills gaps must know: the vocabulary with its sentinels <x0>, <x1> ..., and its context."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from engram.data.text_input import text_records
from engram.data.vocabulary import END, START, Vocabulary

KEYS = ("source", "text", "input", "prompt")
_GAP = re.compile(r"<x(\d+)>")


@dataclass(frozen=True, kw_only=True)
class SpanSpec(Pretrained, Spec):
    """`vocab` is `Vocabulary.to_json()`; `context` and `target_context` the most tokens of a source and of a target."""

    vocab: dict[str, Any]
    context: int
    target_context: int
    title: str = ""
    vector_width: int = 0  # of the pre-trained vectors; 0 without

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary at work."""
        return Vocabulary.from_json(self.vocab)

    @cached_property
    def sentinels(self) -> tuple[int, ...]:
        """Ids of <x0>, <x1> ..."""
        return sentinel_ids(self.vocabulary)

    def gaps(self, text: str) -> list[str]:
        """The text cut at its gaps <x0>, <x1> ...: one piece more than there are gaps. A text without one has it at its end.

        Raises DataError when the numbers are not 0, 1, 2 ... in this order, or more than the vocabulary has.
        """
        if not text.strip():
            raise DataError("the text is empty; write some words around a gap: The <x0> of the house")
        pieces = _GAP.split(text)
        numbers = [int(n) for n in pieces[1::2]]
        if numbers != list(range(len(numbers))):
            raise DataError(
                f"gaps are numbered <x0>, <x1> ... from left to right; this text has {', '.join(f'<x{n}>' for n in numbers)}"
            )
        if len(numbers) > len(self.sentinels):
            raise DataError(
                f"{len(numbers)} gaps in one text, and this run knows {len(self.sentinels)}; give the text in parts"
            )
        return pieces[::2] if numbers else [text, ""]

    def source_ids(self, text: str) -> list[int]:
        """A text with gaps as ids and </s>; what is beyond the context is cut off."""
        pieces = self.gaps(text)
        ids: list[int] = []
        for number, piece in enumerate(pieces):
            last = number + 1 == len(pieces)
            ids += self.vocabulary.encode(piece if last else self.tight(piece))
            ids += [] if last else [self.sentinels[number]]
        return [*ids[: self.context - 1], END]

    def tight(self, piece: str) -> str:
        """What stands before a gap: a byte-pair token has its space in front, so the space before a gap belongs into it."""
        return piece.removesuffix(" ") if self.vocabulary.kind == "bpe" else piece

    def target_ids(self, text: str) -> list[int]:
        """The gaps' texts, "<x0> first <x1> second", as <s>, ids and </s>."""
        ids: list[int] = []
        for number, piece in enumerate(_GAP.split(text)):
            ids += [self.sentinels[int(piece)]] if number % 2 else self.vocabulary.encode(piece)
        return [START, *ids[: self.target_context - 1], END]

    def too_long(self, text: str) -> int:
        """How many tokens of a text are beyond the context, and are not read."""
        return max(len(self.vocabulary.encode(text)) - (self.context - 1), 0)

    def texts(self, raw: Any) -> list[str]:
        """The texts in what the user gave: a text, a row {"source"}, a path to a file of lines, or a list of these."""
        if isinstance(raw, str):
            return [raw]
        if isinstance(raw, PathLike):
            return [self._text(one) for _, one in text_records(Path(raw), KEYS)]
        if isinstance(raw, Mapping):
            return [self._text(raw)]
        if isinstance(raw, Sequence) and not isinstance(raw, bytes) and len(raw):
            return [text for item in raw for text in self.texts(item)]
        what = "an empty list" if isinstance(raw, Sequence) and not len(raw) else type(raw).__name__
        raise DataError(
            f"this run takes text with gaps <x0>: a string, a list of them, or a path to a file of lines; got {what}"
        )

    def encode(self, raw: Any) -> Batch:
        """{"source" (B, S) padded with 0, "source_lengths" (B,)}; see `texts`. Raises DataError."""
        found = pad_rows([self.source_ids(text) for text in self.texts(raw)])
        return {"source": found["tokens"], "source_lengths": found["lengths"]}

    def read(self, source: Any, rows: int = 256) -> Iterator[tuple[list[str], Any]]:
        """Lines of a text file, rows of a table, or the text itself."""
        names: list[str] = []
        chunk: list[Any] = []
        for name, record in text_records(source, KEYS):
            names.append(name)
            chunk.append(record)
            if len(chunk) == rows:
                yield names, chunk
                names, chunk = [], []
        if chunk:
            yield names, chunk

    def labelled(self, source: Any, rows: int = 64) -> Iterator[Batch]:
        """Rows {"source", "target"} of a table or of JSON lines as batches with the gaps' texts. Raises DataError."""
        for _, chunk in self.read(source, rows):
            if not all(isinstance(row, Mapping) and "target" in row for row in chunk):
                raise DataError('to measure, every row needs "source" (text with gaps) and "target" ("<x0> first <x1> second")')
            targets = pad_rows([self.target_ids(str(row["target"])) for row in chunk])
            yield self.encode(chunk) | {"target": targets["tokens"], "target_lengths": targets["lengths"]}

    def example(self, batch: int = 2) -> Batch:
        """Token 0 as long as the contexts, at most 64."""
        source = torch.zeros(batch, min(self.context, 64), dtype=torch.int64)
        target = torch.zeros(batch, min(self.target_context, 64), dtype=torch.int64)
        return {
            "source": source, "source_lengths": torch.full((batch,), source.shape[1]),
            "target": target, "target_lengths": torch.full((batch,), target.shape[1]),
        }  # fmt: skip

    def _text(self, row: Any) -> str:
        if not isinstance(row, Mapping):
            return str(row)
        for key in KEYS:
            if key in row:
                return str(row[key])
        raise DataError(f"a row has no source{did_you_mean('source', list(map(str, row)))}: it has {', '.join(map(str, row))}")


def sentinel_names(count: int) -> tuple[str, ...]:
    """<x0>, <x1> ..."""
    return tuple(f"<x{n}>" for n in range(count))


def sentinel_ids(vocabulary: Vocabulary) -> tuple[int, ...]:
    """Ids of <x0>, <x1> ... of a vocabulary, as many as it has."""
    known = {name: number for number, name in enumerate(vocabulary.specials)}
    return tuple(known[f"<x{n}>"] for n in range(len(known)) if f"<x{n}>" in known)
