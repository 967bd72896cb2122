"""TagSpec: what a tagger must know: the words, the characters that words are spelled with, and the tags."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engram.core.batch import Batch
from engram.core.errors import DataError, did_you_mean
from engram.core.spec import Spec
from engram.data.language_spec import pad_rows
from engram.data.pretrained import Pretrained
from engram.data.sentence_spec import chunks, labelled_rows, text_of
from engram.data.tag_words import cut_words
from engram.data.text_conll import parse_columns
from engram.data.text_files import COLUMNS
from engram.data.text_input import read_text_file, text_records
from engram.data.text_tables import TEXT, Names
from engram.data.vocabulary import Vocabulary

NO_TAG = -100
WORDS = ("words", "tokens")


@dataclass(frozen=True, kw_only=True)
class TagSpec(Pretrained, Spec):
    """A batch holds "tokens" (B, T) int64 padded with 0, "lengths" (B,), "characters" (B, T, letters) where words are spelled,
    and "tags" (B, T) with -100 where there is none."""

    vocab: dict[str, Any]  # Vocabulary.to_json() of the words
    spelling: dict[str, Any]  # Vocabulary.to_json() of the characters; {} for words alone
    letters: int  # characters of a word that are read: longer ones lose their middle
    tags: tuple[str, ...]
    vector_width: int = 0  # of the pre-trained vectors; 0 without

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The words at work."""
        return Vocabulary.from_json(self.vocab)

    @cached_property
    def characters(self) -> Vocabulary | None:
        """The characters at work."""
        return Vocabulary.from_json(self.spelling) if self.spelling else None

    def words(self, raw: Any) -> list[list[str]]:
        """The words of each sentence: of a text, a list of texts or of lists of words, rows {"words"} or with a text column, or
        the Path of a file (columns, or a sentence on each line). Raises DataError, also for a sentence without words."""
        if isinstance(raw, os.PathLike):
            raw = [one for _, one in sentences_of(Path(raw))]
        elif isinstance(raw, (str, Mapping)):
            raw = [raw]
        elif type(raw).__name__ == "DataFrame":
            raw = raw.to_dict("records")
        if not isinstance(raw, Sequence) or isinstance(raw, bytes) or not len(raw):
            what = "an empty list" if isinstance(raw, Sequence) and not len(raw) else type(raw).__name__
            raise DataError(f"this run takes sentences: a text, a list of texts or of lists of words, or a path; got {what}")
        return [words_of(one, f"sentence {n}" if len(raw) > 1 else "the sentence") for n, one in enumerate(raw, 1)]

    def encode(self, raw: Any) -> Batch:
        """{"tokens", "lengths", "characters"} of what `words` takes. Raises DataError."""
        return self.batch(self.words(raw))

    def batch(self, sentences: Sequence[Sequence[str]]) -> Batch:
        """Sentences as a padded batch."""
        batch = pad_rows([self.vocabulary.encode_words(words) for words in sentences])
        if self.characters is not None:
            flat = pad_rows([spelled(self.characters, words, self.letters) for words in sentences])["tokens"]
            batch["characters"] = flat.view(len(sentences), -1, self.letters)
        return batch

    def read(self, source: Any, rows: int = 256) -> Iterator[tuple[list[str], Any]]:
        """Sentences of a file: columns (.conll), rows of JSON lines or a table, lines; or the sentence itself."""
        columns = isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() in COLUMNS
        found = list(sentences_of(Path(source))) if columns else None
        for names, chunk in chunks([one for _, one in found] if found else source, rows):
            yield names, [words_of(one, name[:80]) for name, one in zip(names, chunk, strict=True)]

    def labelled(self, source: Any, rows: int = 256) -> Iterator[Batch]:
        """Batches with "tags" of a file of tagged words, rows in Python, or the test sentences of a built-in set."""
        found = [r for r in labelled_rows(source, "tagged", Names()) if r["words"]]
        for first in range(0, len(found), rows):
            part = found[first : first + rows]
            tags = pad_tags([[self.number(t) for t in r["tags"]] for r in part])
            yield self.batch([r["words"] for r in part]) | {"tags": tags}

    def number(self, tag: str) -> int:
        """The number of a tag. Raises DataError when there is none."""
        if tag not in self.tags:
            raise DataError(f"{tag!r} is no tag of this run{did_you_mean(tag, self.tags)}; known: {', '.join(self.tags[:12])}")
        return self.tags.index(tag)

    def example(self, batch: int = 2) -> Batch:
        """Sentences of 16 padded words."""
        tokens = torch.zeros(batch, 16, dtype=torch.int64)
        spelled = {"characters": torch.zeros(batch, 16, self.letters, dtype=torch.int64)} if self.spelling else {}
        return {"tokens": tokens, "lengths": torch.full((batch,), 16)} | spelled


def words_of(one: Any, name: str) -> list[str]:
    """The words of a sentence: cut from a text, or as they are given. Raises DataError when there are none."""
    if isinstance(one, Mapping) and (key := next((k for k in WORDS if k in one), "")):
        one = one[key]
    words = list(one) if isinstance(one, Sequence) and not isinstance(one, (str, bytes)) else cut_words(text_of(one, "", name))
    if not words or not all(isinstance(w, str) and w.strip() for w in words):
        raise DataError(f"{name} {'holds an empty word' if words else 'is empty'}; leave it out or write some words")
    return words


def sentences_of(path: Path) -> Iterator[tuple[str, Any]]:
    """(name, sentence) of a file: words in columns by its ending, else records or lines. Raises DataError."""
    if path.suffix.lower() in COLUMNS:
        rows, places = parse_columns(read_text_file(path)[0], path.name)
        yield from ((f"{path.name}:{lines[0]}", r["words"]) for r, lines in zip(rows, places, strict=True))
    else:
        yield from text_records(path, TEXT)


def spelled(characters: Vocabulary, words: Sequence[str], letters: int) -> list[int]:
    """The characters of each word, padded to `letters` with 0, end to end; a longer word loses its middle."""
    ids: list[int] = []
    for word in words:
        short = word if len(word) <= letters else word[: letters - letters // 2] + word[-(letters // 2) :]
        found = characters.encode(short[:letters])
        ids += found + [0] * (letters - len(found))
    return ids


def pad_tags(rows: Sequence[Sequence[int]]) -> Tensor:
    """(B, T) with -100 beyond each row."""
    tags = torch.full((len(rows), max(map(len, rows))), NO_TAG, dtype=torch.int64)
    for number, row in enumerate(rows):
        tags[number, : len(row)] = torch.tensor(row)
    return tags
