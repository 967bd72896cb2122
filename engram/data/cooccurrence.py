"""Co-occurrence counts of a corpus as batches of (word, other word, count): what GloVe learns from.

Two words d places apart in a sentence add 1 / d to their count, in both directions (Pennington et al. 2014, section 4.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from engram.core.batch import Batch, fold
from engram.core.data import Data, Summary
from engram.core.errors import DataError
from engram.data.order import share, walk
from engram.data.word_corpus import Corpus

PIECE = 1 << 20  # words counted at a time: bounds the memory beside the counts themselves
Ints = npt.NDArray[Any]


def count_pairs(corpus: Corpus, window: int) -> tuple[Ints, Ints, npt.NDArray[np.float32]]:
    """Rows, columns (pairs,) int32 and counts (pairs,) of all ordered pairs that occur, sorted by row, then column."""
    words = len(corpus.spec.words)
    sentence = np.repeat(np.arange(len(corpus.ends)), np.diff(corpus.ends, prepend=0))
    keys, counts = np.zeros(0, np.int64), np.zeros(0)
    for start in range(0, len(corpus.tokens), PIECE):
        stop = min(start + PIECE + window, len(corpus.tokens))
        tokens, place = corpus.tokens[start:stop].astype(np.int64), sentence[start:stop]
        parts, weights = [keys], [counts]
        for apart in range(1, window + 1):
            last = min(PIECE, len(tokens) - apart)  # pairs that begin in this piece
            if last <= 0:
                break
            same = place[:last] == place[apart : apart + last]
            a, b = tokens[:last][same], tokens[apart : apart + last][same]
            parts += [a * words + b, b * words + a]
            weights.append(np.full(2 * len(a), 1 / apart))
        keys, inverse = np.unique(np.concatenate(parts), return_inverse=True)
        counts = np.bincount(inverse, np.concatenate(weights), len(keys))
    return (keys // words).astype(np.int32), (keys % words).astype(np.int32), counts.astype(np.float32)


class Counts(Data):
    """Rows of a batch: "words" (B, 2) int64 and "count" (B,) float32. `batch` counts pairs; `holdout` is a share of them."""

    def __init__(self, corpus: Corpus, *, batch: int, window: int, holdout: float, seed: int):
        self.corpus, self.spec, self.batch, self.seed = corpus, corpus.spec, batch, seed
        rows, columns, counts = count_pairs(corpus, window)
        if not len(rows):
            raise DataError(f"no two words of {corpus.title} stand in one line: give text with longer lines")
        self.words = torch.from_numpy(np.stack([rows, columns], 1))
        self.counts = torch.from_numpy(counts)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(fold("holdout")))
        held = min(round(holdout * len(rows)), len(rows) - 1)
        self.splits = {"val": order[:held].sort().values, "train": order[held:].sort().values}
        sizes = {name: self.size(name) for name in ("train", "val") if self.size(name)}
        facts = {"words": corpus.raw, "vocabulary": len(corpus.spec.words), "pairs": len(rows)}
        self.summary = Summary(f"{corpus.title}, {len(rows):,} pairs", sizes, facts, corpus.notes, corpus.sha256)

    def size(self, split: str) -> int:
        """Pairs in a split."""
        return len(self.splits[split]) if split in self.splits else 0

    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """See Data.batches."""
        pairs = self.splits.get(split)
        if pairs is None or not len(pairs):
            return
        for _, index in walk(split, len(pairs), self.batch, seed=self.seed, start=start):
            chosen = pairs[share(index, part)]
            yield {"words": self.words[chosen].long(), "count": self.counts[chosen]}

    def raw(self, split: str, rows: list[int]) -> list[Any]:
        """Words, by their numbers: rows of one word, as the predictor takes them."""
        return [[self.corpus.spec.words[row % len(self.corpus.spec.words)]] for row in rows]
