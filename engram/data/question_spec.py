"""QuestionSpec: how a question and its text become rows of tokens, and tokens places in the text again.

A row is <s> question <sep> text. A text that is longer than a row is read in windows that overlap (Devlin et al. 2019, in the
released code). Every token has a kind: 0 of the question or 1 of the text, and 2 or 4 more when its word stands on the other
side too, alike in its first letters or as a whole (exact match, Chen et al. 2017, section 3.2; lower case and a cut in place of
lemmas).
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from engram.core.batch import Batch
from engram.core.errors import DataError, did_you_mean
from engram.core.spec import Spec
from engram.data.pretrained import Pretrained
from engram.data.sentence_spec import labelled_rows
from engram.data.text_input import read_text_file, text_records
from engram.data.text_sets import is_set
from engram.data.text_tables import Names
from engram.data.vocabulary import SEP, START, Vocabulary, checked, split_words

KINDS = 6  # what a token may be
STEM = 5  # letters in which words must agree to be alike
KEYS = ("question", "context")


@dataclass(frozen=True)
class Pieces:
    """Tokens of a text: ids, the characters that each stands for [starts, ends), and the number of its word."""

    ids: list[int]
    starts: list[int]
    ends: list[int]
    words: list[str]  # of each token, the word that it belongs to


@dataclass(frozen=True)
class Window:
    """A row: tokens and kinds; its text begins at token `first` with piece `begin` of the whole text and has `count` pieces."""

    tokens: list[int]
    kinds: list[int]
    first: int
    begin: int
    count: int


@dataclass(frozen=True, kw_only=True)
class QuestionSpec(Pretrained, Spec):
    """A batch holds "tokens" and "segments" (B, T) int64 padded with 0, "lengths" (B,), and answers as tokens: "starts" and
    "ends" (B,) int64, the first and the last; both 0 where the row holds no answer."""

    vocab: dict[str, Any]  # Vocabulary.to_json()
    context: int  # tokens of a row
    stride: int  # tokens of the text from one window to the next
    longest: int = 64  # tokens of a question; what is longer is cut
    unanswerable: bool = False  # some training questions have no answer
    chance: float = 0.0  # mean over training rows of the log of the number of places
    title: str = ""
    vector_width: int = 0  # of the pre-trained vectors; 0 without

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary at work."""
        return Vocabulary.from_json(self.vocab)

    def windows(self, question: str, pieces: Pieces) -> list[Window]:
        """The rows of a question and the pieces of its text."""
        asked = cut(self.vocabulary, question)
        most = min(self.longest, self.context // 2 - 2)
        room = self.context - 2 - min(len(asked.ids), most)
        kinds = [2 * alike for alike in matches(asked.words[:most], pieces.words)]
        beside = [1 + 2 * alike for alike in matches(pieces.words, asked.words)]
        head, head_kinds = [START, *asked.ids[:most], SEP], [0, *kinds, 0]
        rows, begin = [], 0
        while True:
            part = slice(begin, begin + room)
            ids = pieces.ids[part]
            rows.append(Window(head + ids, head_kinds + beside[part], len(head), begin, len(ids)))
            if begin + room >= len(pieces.ids):
                return rows
            begin += min(self.stride, room)

    def pieces(self, context: str) -> Pieces:
        """The pieces of a text."""
        return cut(self.vocabulary, context)

    def target(self, window: Window, pieces: Pieces, start: int, end: int) -> tuple[int, int]:
        """The first and the last token of characters [start, end) in a window; (0, 0) when they are not all in it."""
        first = bisect_right(pieces.ends, start)
        last = bisect_left(pieces.starts, end) - 1
        if first < window.begin or last >= window.begin + window.count or first > last:
            return 0, 0
        return first - window.begin + window.first, last - window.begin + window.first

    def rows(self, raw: Any) -> list[dict[str, Any]]:
        """The questions in what the user gave, as dicts with question and context (and answers): one, several, or a Path.

        Raises DataError.
        """
        if isinstance(raw, os.PathLike):
            return [row for _, row in _records(raw)]
        if isinstance(raw, str) and raw.lstrip().startswith(("{", "[")):
            raw = _json(raw, "the question")
        if not isinstance(raw, str) and type(raw).__name__ == "DataFrame":
            raw = raw.to_dict("records")
        if isinstance(raw, Mapping):
            return [_checked(raw, "")]
        if isinstance(raw, str):
            raise DataError(f'a question needs its text: {{"question": {json.dumps(raw[:40])}, "context": "..."}}')
        if isinstance(raw, Sequence) and not isinstance(raw, bytes) and len(raw):
            return [row for one in raw for row in self.rows(one)]
        what = "an empty list" if isinstance(raw, Sequence) and not len(raw) else type(raw).__name__
        raise DataError(f'this run takes {{"question": ..., "context": ...}}, a list of these, or a path to a file; got {what}')

    def encode(self, raw: Any) -> Batch:
        """Every window of every question: {"tokens", "segments", "lengths"}. Raises DataError."""
        return stack([w for row in self.rows(raw) for w in self.windows(row["question"], self.pieces(row["context"]))])

    def read(self, source: Any, rows: int = 256) -> Iterator[tuple[list[str], Any]]:
        """Questions of SQuAD's JSON, of JSON lines or a table, of a built-in set, or one written as JSON. Raises DataError."""
        names: list[str] = []
        chunk: list[Any] = []
        for name, row in _records(source) if isinstance(source, (str, os.PathLike)) else enumerate(self.rows(source), 1):
            names.append(str(name))
            chunk.append(row)
            if len(chunk) == rows:
                yield names, chunk
                names, chunk = [], []
        if chunk:
            yield names, chunk

    def labelled(self, source: Any, rows: int = 64) -> Iterator[Batch]:
        """Windows with "starts" and "ends" of questions with answers. Raises DataError."""
        found = labelled_rows(source, "questions", Names())
        for first in range(0, len(found), rows):
            part = [one for row in found[first : first + rows] for one in self.examples(row)]
            batch = stack([w for w, _, _ in part])
            yield batch | {"starts": torch.tensor([s for _, s, _ in part]), "ends": torch.tensor([e for _, _, e in part])}

    def answered(self, source: Any, rows: int = 256) -> Iterator[list[Any]]:
        """Questions with all their known answers. Raises DataError."""
        found = labelled_rows(source, "questions", Names())
        for first in range(0, len(found), rows):
            yield list(found[first : first + rows])

    def examples(self, row: Mapping[str, Any], pieces: Pieces | None = None) -> list[tuple[Window, int, int]]:
        """The windows of a question with the first and last token of its commonest answer."""
        pieces = pieces or self.pieces(row["context"])
        spans = [(a["start"], a["start"] + len(a["text"])) for a in row["answers"]]
        start, end = max(spans, key=spans.count) if spans else (0, 0)
        found = self.windows(row["question"], pieces)
        ends = [self.target(w, pieces, start, end) if end else (0, 0) for w in found]
        return [(w, first, last) for w, (first, last) in zip(found, ends, strict=True)]

    def example(self, batch: int = 2) -> Batch:
        """Rows of token 0 as long as the context, at most 256."""
        tokens = torch.zeros(batch, min(self.context, 256), dtype=torch.int64)
        return {"tokens": tokens, "segments": tokens, "lengths": torch.full((batch,), tokens.shape[1])}


def stack(windows: Sequence[Window]) -> Batch:
    """Windows as a padded batch."""
    tokens = torch.zeros(2, len(windows), max(len(w.tokens) for w in windows), dtype=torch.int64)
    for number, w in enumerate(windows):
        tokens[:, number, : len(w.tokens)] = torch.tensor([w.tokens, w.kinds])
    return {"tokens": tokens[0], "segments": tokens[1], "lengths": torch.tensor([len(w.tokens) for w in windows])}


def cut(vocabulary: Vocabulary, text: str) -> Pieces:
    """A text as tokens that know their characters and words."""
    words, at = [], 0
    for word in split_words(checked(text)):
        start = text.index(word, at)
        at = start + len(word)
        words.append((start, at, word))
    if vocabulary.kind == "word":
        ids = vocabulary.encode_words([w for _, _, w in words])
        return Pieces(ids, [s for s, _, _ in words], [e for _, e, _ in words], [w for _, _, w in words])
    ids = vocabulary.encode(text)
    if vocabulary.kind == "char":
        starts, ends = list(range(len(ids))), list(range(1, len(ids) + 1))
    else:
        place = [n for n, c in enumerate(text) for _ in (c.lower() if vocabulary.lower else c).encode()]  # of each byte
        sizes = [len(vocabulary.raw(i)) for i in ids]
        ends_at, starts, ends = 0, [], []
        for size in sizes:
            starts.append(place[min(ends_at, len(place) - 1)])
            ends_at += size
            ends.append(place[min(ends_at, len(place)) - 1] + 1)
    ends_of = [e for _, e, _ in words]
    owner = [bisect_right(ends_of, max(s, e - 1)) for s, e in zip(starts, ends, strict=True)]
    owned = [words[n][2] if n < len(words) and words[n][0] < e else "" for n, e in zip(owner, ends, strict=True)]
    return Pieces(ids, starts, ends, owned)


def matches(words: Sequence[str], others: Sequence[str]) -> list[int]:
    """For each word 2 when it is among the others, 1 when one begins like it, else 0; signs and case do not count."""
    whole = {w.lower() for w in others if w[:1].isalnum()}
    stems = {w[:STEM] for w in whole if len(w) >= STEM}
    low = [w.lower() for w in words]
    return [2 if w in whole else int(len(w) >= STEM and w[:STEM] in stems) for w in low]


def _records(source: str | os.PathLike[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, row) of a file, a built-in set or JSON text."""
    text = str(source)
    path = Path(text)
    if text.lstrip().startswith(("{", "[")):
        found = _json(text, "the question")
        yield from (("question", _checked(one, "")) for one in (found if isinstance(found, list) else [found]))
    elif is_set(text) and not path.exists():
        yield from ((row["id"], row) for row in labelled_rows(text, "questions", Names()))
    elif path.suffix.lower() == ".json" and path.is_file():
        found = _json(read_text_file(path)[0], path.name)
        yield from _squad(found, path.name)
    else:
        for name, record in text_records(source, KEYS):
            yield name, _checked(record, f"{name}: ")


def _squad(found: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(found, list):
        yield from ((f"{name}:{n}", _checked(one, f"{name}, question {n}: ")) for n, one in enumerate(found, 1))
        return
    try:
        for article in found["data"] if "data" in found else [{"paragraphs": [{"context": found["context"], "qas": [found]}]}]:
            for paragraph in article["paragraphs"]:
                for q in paragraph["qas"]:
                    row = {"context": paragraph["context"], "question": q["question"], "answers": q.get("answers", [])}
                    yield str(q.get("id", q["question"])), _checked(row, f"{name}: ")
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{name} is not in SQuAD's form: {error} is missing or of another type") from None


def _checked(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise DataError(f'{where}a question needs its text: {{"question": ..., "context": ...}}; got {str(row)[:40]!r}')
    for key in KEYS:
        if key not in row:
            raise DataError(
                f"{where}a question is {{'question', 'context'}}, and there is no {key!r}{did_you_mean(key, map(str, row))}"
            )
        if not str(row[key] if row[key] == row[key] and row[key] is not None else "").strip():
            raise DataError(
                f"{where}the {key} is empty; {'ask something' if key == 'question' else 'give the text to look in'}"
            )
    return dict(row) | {key: str(row[key]) for key in KEYS}


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f'{name} is not JSON ({error}); write {{"question": "...", "context": "..."}}') from None
