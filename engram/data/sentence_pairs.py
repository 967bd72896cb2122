"""Texts that belong together, for sentence embeddings: pairs, questions with their paragraphs, or passages of plain text.

Plain text has no pairs. A passage then stands beside itself and the network's dropout makes the two differ (SimCSE, Gao et al.
2021, section 3), or its first half beside its second (views="halves"; as the crops of Izacard et al. 2022, section 3.1).
Validation and test always ask for the second half of a passage by its first, so that there is something to find.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from engram.core.batch import Batch
from engram.core.data import Note, Summary
from engram.core.errors import ConfigError, DataError
from engram.core.spec import Spec
from engram.data.corpus import make_vocabulary, vocabulary_of
from engram.data.language_spec import pad_rows
from engram.data.pretrained import Pretrained, read_vectors
from engram.data.ragged import RaggedData
from engram.data.sentence_spec import chunks, items, labelled_rows, text_of
from engram.data.text_rows import Row, Texts, counted, plain
from engram.data.text_tables import Names
from engram.data.texts import read_texts
from engram.data.vocabulary import START, UNK, Vocabulary

SIDES = ("source", "target")
FEWEST = 8  # words of a passage of plain text
_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, kw_only=True)
class EmbedSpec(Pretrained, Spec):
    """A batch holds "source" (B, S) and "target" (B, T) int64, <s> first, padded with 0, with "source_lengths" and
    "target_lengths" (B,); inputs to embed are "source" alone."""

    vocab: dict[str, Any]  # Vocabulary.to_json(), of both sides
    context: int  # tokens of a text, <s> included; what is longer is cut
    form: str = "pairs"  # of the data trained on
    title: str = ""
    vector_width: int = 0  # of the pre-trained vectors; 0 without

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary at work."""
        return Vocabulary.from_json(self.vocab)

    def ids(self, text: str, name: str = "the text") -> list[int]:
        """<s> and the tokens of a text, at most `context`. Raises DataError when it holds none."""
        found = self.vocabulary.encode(text)[: self.context - 1]
        if not text.strip() or not found:
            raise DataError(f"{name} is empty; leave it out or write some words")
        return [START, *found]

    def texts(self, raw: Any) -> list[str]:
        """The texts in what the user gave: a text, a row with a text or source column, a Path of lines, a list. DataError."""
        return [source_of(one) for one in items(raw)]

    def encode(self, raw: Any) -> Batch:
        """{"source", "source_lengths"} of what `texts` takes. Raises DataError."""
        texts = self.texts(raw)
        return side("source", [self.ids(t, f"text {n}" if len(texts) > 1 else "the text") for n, t in enumerate(texts, 1)])

    def read(self, source: Any, rows: int = 256) -> Iterator[tuple[list[str], Any]]:
        """Texts of a table or JSON lines (text or source column), the lines of another file or of '-', or the text itself."""
        for names, chunk in chunks(source, rows):
            yield names, [source_of(one, name) for name, one in zip(names, chunk, strict=True)]

    def labelled(self, source: Any, rows: int = 64) -> Iterator[Batch]:
        """Pairs of a table, two files, a built-in set, or rows in Python, as batches with both sides. Raises DataError."""
        form = "pairs" if self.form not in ("pairs", "questions") else self.form
        found = [pair_of(row) for row in labelled_rows(source, form, Names())]
        for first in range(0, len(found), rows):
            part = found[first : first + rows]
            yield side("source", [self.ids(a) for a, _ in part]) | side("target", [self.ids(b) for _, b in part])

    def example(self, batch: int = 2) -> Batch:
        """Token 0, at most 64 long."""
        ids = [[0] * min(self.context, 64)] * batch
        return side("source", ids) | side("target", ids)


def side(name: str, rows: Sequence[Sequence[int]]) -> Batch:
    """Rows of ids as one side of a batch."""
    found = pad_rows(rows)
    return {name: found["tokens"], f"{name}_lengths": found["lengths"]}


def source_of(one: Any, name: str = "") -> str:
    """The text of a string or a row: its source, its question, or its text. Raises DataError."""
    if isinstance(one, Mapping):
        for key in ("source", "question"):
            if key in one:
                return str(one[key])
    return text_of(one, "", name)


def pair_of(row: Row) -> tuple[str, str]:
    """Both sides of a pair, or a question and its paragraph."""
    return (row["source"], row["target"]) if "source" in row else (row["question"], row["context"])


def sentence_pairs(
    data: Any, *, batch: int, context: int, views: str = "same", seed: int = 0, vocab: str = "bpe", vocab_size: int = 8192,
    lower: bool = True, source: str = "", target: str = "", text: str = "", vectors: str = "",
    start_from: str = "",
) -> RaggedData:  # fmt: skip
    """Pairs as batches of EmbedSpec; a raw row is {"source", "target"}. See the module for plain text and `views`, and
    `sentences` for `vectors`.

    Raises DataError and ConfigError.
    """
    texts = data if isinstance(data, Texts) else read_texts(data, source=source, target=target, text=text, seed=seed)
    given = texts.form in ("pairs", "questions")
    splits = {
        s: [pair_of(r) for r in rows] if given else _passages(rows, texts.form, s, views) for s, rows in texts.splits.items()
    }
    splits = {s: rows for s, rows in splits.items() if rows}
    if len(splits.get("train", ())) < 2:
        raise DataError(f"{texts.title} holds fewer than two texts of {FEWEST} words to learn from; give more text, or pairs")
    bodies = list(dict.fromkeys(t for pair in splits["train"] for t in pair))
    words = read_vectors(vectors, start_from, vocab)
    vocabulary = vocabulary_of(start_from) if start_from else words.join(_trained(vocab, bodies, vocab_size, lower))
    spec = EmbedSpec(
        vocab=vocabulary.to_json(), context=context, form=texts.form, title=texts.title, vector_width=words.width,
    )  # fmt: skip
    notes, rows = list(texts.notes), {}
    for split, pairs in splits.items():
        rows[split] = [dict(zip(SIDES, (spec.ids(a), spec.ids(b)), strict=True)) for a, b in pairs]
        if cut := sum(max(map(len, r.values())) == context for r in rows[split]):
            text = f"{split}: {counted(cut, 'pair')} of {len(pairs):,} with a side of {context} tokens or more: cut"
            notes.append(Note("info", text))
        if unknown := sum(r[s].count(UNK) for r in rows[split] for s in SIDES):
            total = sum(len(r[s]) for r in rows[split] for s in SIDES)
            level = "warning" if unknown > total / 10 else "info"
            notes.append(Note(level, f"{split}: {unknown / total:.1%} of the tokens are not in the vocabulary"))
    notes += words.give(spec, vocabulary, seed, chain.from_iterable(r[s] for r in rows["train"] for s in SIDES))
    size = {s: len(r) for s, r in rows.items()}
    facts = texts.facts | {"vocabulary": vocabulary.size, "pairs": texts.form if given else f"passages, views={views}"}
    return RaggedData(
        spec, Summary(texts.title, size, facts, tuple(notes), texts.sha256), rows, batch=batch, seed=seed,
        lengths={"target": "target_lengths", "source": "source_lengths"},
        raw=lambda split, numbers: [dict(zip(SIDES, splits[split][n], strict=True)) for n in numbers],
    )  # fmt: skip


def _trained(kind: str, bodies: list[str], size: int, lower: bool) -> Vocabulary:
    if kind == "bpe":
        return make_vocabulary(kind, bodies, size, lower=lower)
    return Vocabulary.train(kind, bodies, size, lower=lower)


def _passages(rows: Sequence[Row], form: str, split: str, views: str) -> list[tuple[str, str]]:
    """Paragraphs (labelled texts whole) of at least FEWEST words; outside training, and with views="halves", cut in two."""
    if views not in ("same", "halves"):
        raise ConfigError(f"views={views!r} is neither same nor halves")
    found = [p for row in rows for p in paragraphs(plain(row, form))]
    found = list(dict.fromkeys(" ".join(p.split()) for p in found if len(p.split()) >= FEWEST))
    return [(p, p) for p in found] if split == "train" and views == "same" else [halves(p) for p in found]


def paragraphs(text: str) -> list[str]:
    """A text at its empty lines; one without any at its lines."""
    parts = re.split(r"\n\s*\n", text)
    return parts if len(parts) > 1 else text.splitlines()


def halves(text: str) -> tuple[str, str]:
    """A passage cut at the end of the sentence nearest to its middle, or between words where it is one sentence."""
    cuts = [m.end() for m in _END.finditer(text)]
    middle = len(text) / 2
    at = min(cuts, key=lambda c: abs(c - middle), default=0)
    if not len(text) / 4 < at < 3 * len(text) / 4:
        words = text.split()
        return " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
    return text[:at].strip(), text[at:].strip()
