"""Windows: a corpus as batches of words with the words around them, and noise words, made when a batch is asked for.

A batch is a run of whole blocks of text. Frequent words are dropped at random, every word left draws the reach of its window,
and the words left are laid in rows of `ROW` consecutive centres with `window` more words at each side (Mikolov et al. 2013b,
sections 2.2 and 2.3). Nothing is stored: batch k follows from (seed, k).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from engram.core.batch import Batch, fold
from engram.core.data import Data, Summary
from engram.data.order import share, walk
from engram.data.word_corpus import Corpus

ROW = 32  # centres of a row: their contexts and noise words are shared, so that scores are matrix products
BLOCK = 512  # words of a block, about: what is shuffled; windows do not reach across sentences, so nothing is lost
Ints = npt.NDArray[Any]


class Windows(Data):
    """Rows of a batch: "words" (R, ROW + 2 window) int64, "left" and "right" (R, ROW) int32: how many neighbours of each centre
    count, "noise" (R, shared) int64.

    Centre i of a row is words[:, window + i]. `batch` counts words of the text. Noise is drawn by count ** 0.75.
    """

    def __init__(self, corpus: Corpus, *, batch: int, window: int, sample: float, shared: int, holdout: float, seed: int):
        self.corpus, self.spec, self.batch, self.window, self.shared, self.seed = (
            corpus,
            corpus.spec,
            batch,
            window,
            shared,
            seed,
        )
        counts = np.array(corpus.spec.counts, np.float64)
        share_of = counts / counts.sum()
        with np.errstate(divide="ignore"):
            kept = np.sqrt(sample / share_of) + sample / share_of if sample else np.ones(len(counts))
        self.kept = np.minimum(kept, 1.0).astype(np.float32)
        noise = np.cumsum(counts**0.75)
        self.noise = noise / noise[-1]
        blocks = _blocks(corpus.ends)
        held = min(round(holdout * len(blocks)), len(blocks) - 1)
        chosen = np.random.default_rng(fold("holdout")).permutation(len(blocks))
        self.blocks = {"train": blocks[np.sort(chosen[held:])], "val": blocks[np.sort(chosen[:held])]}
        self.starts = np.concatenate([[0], corpus.ends])
        rows = {name: self.size(name) for name in self.blocks if self.size(name)}
        facts = {"words": corpus.raw, "vocabulary": len(corpus.spec.words), "sentences": len(corpus.ends)}
        self.summary = Summary(corpus.title, rows, facts, corpus.notes, corpus.sha256)

    def size(self, split: str) -> int:
        """Words of the text in a split."""
        if split not in self.blocks:
            return 0
        first, last = self.blocks[split].T
        ends = np.concatenate([[0], self.corpus.ends])
        return int((ends[last] - ends[first]).sum())

    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """See Data.batches. A validation batch draws its windows and noise in the same way every time."""
        blocks = self.blocks.get(split)
        if blocks is None or not len(blocks):
            return
        per_batch = max(1, round(len(blocks) * self.batch / self.size(split)))
        for number, index in walk(split, len(blocks), per_batch, seed=self.seed, start=start):
            draw = np.random.Generator(np.random.SFC64(fold(self.seed if split == "train" else "val", "windows", number)))
            batch = self.rows(blocks[index.numpy()], draw)
            if part[1] > 1:
                mine = share(torch.arange(len(batch["words"])), part)
                batch = {name: tensor[mine] for name, tensor in batch.items()}
            yield batch

    @property
    def steps_per_epoch(self) -> int:
        """Batches that pass once over the training text."""
        blocks = len(self.blocks["train"])
        return -(-blocks // max(1, round(blocks * self.batch / self.size("train"))))

    def rows(self, blocks: Ints, draw: np.random.Generator) -> Batch:
        """The rows of some blocks (N, 2) of sentences."""
        starts = self.starts
        tokens = np.concatenate([self.corpus.tokens[starts[a] : starts[b]] for a, b in blocks])
        lengths = np.concatenate([np.diff(starts[a : b + 1]) for a, b in blocks])
        keep = draw.random(len(tokens), np.float32) < self.kept[tokens]
        tokens = tokens[keep]
        sentence = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)[keep]
        lengths = np.bincount(sentence, minlength=len(lengths))
        ends = np.cumsum(lengths)
        place = np.arange(len(tokens))
        reach = draw.integers(1, self.window + 1, len(tokens))
        left = np.minimum(reach, place - (ends - lengths)[sentence])
        right = np.minimum(reach, ends[sentence] - 1 - place)
        rows = max(1, -(-len(tokens) // ROW))
        side = self.window
        wide = np.zeros(rows * ROW + 2 * side, np.int64)
        wide[side : side + len(tokens)] = tokens
        words = np.lib.stride_tricks.sliding_window_view(wide, ROW + 2 * side)[::ROW]
        reaches = np.zeros((2, rows * ROW), np.int32)
        reaches[0, : len(tokens)], reaches[1, : len(tokens)] = left, right
        noise = np.searchsorted(self.noise, draw.random((rows, self.shared)))
        return {
            "words": torch.from_numpy(words.copy()),
            "left": torch.from_numpy(reaches[0].reshape(rows, ROW)),
            "right": torch.from_numpy(reaches[1].reshape(rows, ROW)),
            "noise": torch.from_numpy(noise),
        }

    def raw(self, split: str, rows: list[int]) -> list[Any]:
        """Words, by their numbers: rows of one word, as the predictor takes them."""
        return [[self.corpus.spec.words[row % len(self.corpus.spec.words)]] for row in rows]


def _blocks(ends: Ints) -> Ints:
    """Runs of sentences of about BLOCK words: (blocks, 2), first sentence and the one after the last."""
    block = (ends - 1) // BLOCK  # the block in which a sentence ends
    cuts = np.flatnonzero(np.diff(block)) + 1
    edges = np.concatenate([[0], cuts, [len(ends)]])
    return np.stack([edges[:-1], edges[1:]], 1)
