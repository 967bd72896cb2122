"""Semantic search: texts cut into passages, and the passages nearest to a question."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from engram.core.errors import ConfigError

_GAP = re.compile(r"\n[^\S\n]*\n\s*")
_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Passage:
    """A piece of a file; `line` is the number of its first line, from 1."""

    file: str
    line: int
    text: str


def passages(text: str, file: str, words: int = 100) -> Iterator[Passage]:
    """The paragraphs of a text; those longer than `words` words are cut at ends of sentences, a longer sentence between words.

    Raises ConfigError when `words` is below 1.
    """
    if words < 1:
        raise ConfigError(f"words={words} must be at least 1")
    at = 0
    for gap in [*_GAP.finditer(text), None]:
        body = text[at : gap.start() if gap else len(text)]
        for start, piece in _pieces(body, words):
            if plain := " ".join(piece.split()):
                first = at + start + len(piece) - len(piece.lstrip())
                yield Passage(file, text.count("\n", 0, first) + 1, plain)
        at = gap.end() if gap else at


def _pieces(body: str, words: int) -> Iterator[tuple[int, str]]:
    """(start, piece) of a paragraph: sentences together as long as they are few words."""
    start = end = count = 0
    for sentence_end in [*(m.end() for m in _END.finditer(body)), len(body)]:
        length = len(body[end:sentence_end].split())
        if count and count + length > words:
            yield start, body[start:end]
            start, count = end, 0
        end, count = sentence_end, count + length
        if count > words:  # one long sentence
            spots = [m.start() for m in re.finditer(r"\S+", body[start:end])]
            edges = [start + s for s in spots[::words]] + [end]
            yield from ((a, body[a:b]) for a, b in pairwise(edges))
            start, count = end, 0
    if count:
        yield start, body[start:end]


def nearest(question: Tensor, vectors: Tensor, top: int) -> list[tuple[int, float]]:
    """(row, cosine) of the `top` unit vectors (N, width) nearest to a unit vector (width,), best first."""
    cosines = vectors @ question
    best = torch.topk(cosines, min(top, len(vectors)))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
