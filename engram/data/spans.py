"""Span corruption: some of a text's tokens are cut out in spans, and the model writes what is missing.

Raffel et al. 2020, section 3.1.4: 15 % of the tokens in spans of 3 on average; in the source each span is one sentinel <x0>,
<x1> ..., and the target is each sentinel with the tokens of its span. As in the published code both the tokens cut out and
those left are divided into spans evenly at random, a text begins with what is left, and a window is so long that its source
fills the context. All windows have the same numbers of both, so nothing is padded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from engram.core.batch import Batch, fold
from engram.core.data import Data, Summary
from engram.core.errors import ConfigError, DataError
from engram.core.spec import Spec
from engram.data.corpus import tokenise
from engram.data.order import share, walk
from engram.data.pretrained import read_vectors
from engram.data.span_spec import SpanSpec, sentinel_ids, sentinel_names
from engram.data.stored import LARGE
from engram.data.vocabulary import END, START, Vocabulary


def spans(
    data: Any,
    *,
    batch: int,
    context: int,
    seed: int = 0,
    vocab: str = "auto",
    vocab_size: int = 8192,
    share: float = 0.15,
    mean: float = 3.0,
    sentinels: int = 100,
    vectors: str = "",
    start_from: str = "",
    memory: float = LARGE,
) -> SpanData:
    """A corpus as windows with gaps: `share` of the tokens in spans of `mean` tokens. `start_from` takes a run's vocabulary,
    `vectors` is as in `corpus`, text files of more than `memory` MB are tokenised into files of the cache (engram.data.stored).

    Raises DataError and ConfigError.
    """
    extra = sentinel_names(sentinels)
    given = read_vectors(vectors, start_from, vocab)
    found = tokenise(
        data, seed=seed, vocab=given.kind(vocab), vocab_size=vocab_size, extra=extra, start_from=start_from, memory=memory
    )  # fmt: skip
    vocabulary, splits = found.vocabulary, found.splits
    if len(splits["train"]) < 3:
        raise DataError(f"{found.name} holds no text to train on")
    length = window_length(context, share, mean)
    size = counts_of(length, share, mean)
    check_sentinels(vocabulary, size[1], context, start_from)
    spec = SpanSpec(
        vocab=vocabulary.to_json(), context=context, target_context=sum(size) + 1, title=found.name, vector_width=given.width,
    )  # fmt: skip
    notes = (*found.notes, *given.give(spec, vocabulary, seed))
    rows_of = {name: -(-len(ids) // length) for name, ids in splits.items()}
    summary = Summary(found.title, rows_of, found.facts, notes, found.sha256)
    return SpanData(spec, summary, splits, length=length, batch=batch, seed=seed, share=share, mean=mean)


class SpanData(Data):
    """`splits` name a row of ids each (in memory or memory-mapped); a row of a batch is a window of `length` of them.

    Batches: "source" (B, S) ... </s>, "source_lengths" (B,), "target" (B, T) = <s> ... </s>, "target_lengths" (B,). In
    training the cuts between windows move from epoch to epoch, and a window that reaches beyond the end goes on with the
    beginning; in the other splits the last one is moved back. What is cut out is a function of (seed, split, batch number).
    """

    def __init__(
        self,
        spec: SpanSpec,
        summary: Summary,
        splits: dict[str, np.ndarray],
        *,
        length: int,
        batch: int,
        seed: int = 0,
        share: float = 0.15,
        mean: float = 3.0,
    ):
        self.spec: Spec
        self.spec, self.summary, self.splits = spec, summary, splits
        self.length, self.batch, self.seed, self.share, self.mean = length, batch, seed, share, mean
        self.first = spec.sentinels[0]

    def size(self, split: str) -> int:
        """Windows in a split."""
        return -(-len(self.splits[split]) // self.length) if split in self.splits else 0

    def raw(self, split: str, rows: list[int]) -> list[Any]:
        """Rows {"source": text with gaps, "target": "<x0> first <x1> second"}."""
        found = []
        for row in rows:
            batch = self.window(split, np.array([row]), 0, self._masks(split, row, 1))
            source, target = batch["source"][0, :-1].tolist(), batch["target"][0, 1:-1].tolist()
            found.append({"source": self._text(source), "target": self._text(target)})
        return found

    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """See Data.batches."""
        if split not in self.splits:
            return
        per_epoch = -(-self.size(split) // self.batch)
        for number, index in walk(split, self.size(split), self.batch, seed=self.seed, start=start):
            shift = fold(self.seed, "cut", number // per_epoch) % self.length if split == "train" else 0
            masks = torch.from_numpy(self._masks(split, number, len(index)))
            yield self.window(split, share(index, part).numpy(), shift, share(masks, part).numpy())

    def window(self, split: str, index: np.ndarray, shift: int, masks: np.ndarray) -> Batch:
        """Windows by number, without the tokens where `masks` (B, length) is true."""
        ids, length = self.splits[split], masks.shape[1]
        first = index[:, None] * self.length
        if split != "train":
            first = np.minimum(first, len(ids) - length)
        at = (first + shift + np.arange(length)) % len(ids)
        source, target = corrupt(np.asarray(ids[at], np.int64), masks, self.first)
        edge = np.ones((len(index), 1), np.int64)
        source, target = np.hstack([source, edge * END]), np.hstack([edge * START, target, edge * END])
        return {
            "source": torch.from_numpy(source), "source_lengths": torch.full((len(index),), source.shape[1]),
            "target": torch.from_numpy(target), "target_lengths": torch.full((len(index),), target.shape[1]),
        }  # fmt: skip

    def _masks(self, split: str, number: int, rows: int) -> np.ndarray:
        """What is cut out of a batch."""
        length = min(self.length, len(self.splits[split]))
        rng = np.random.default_rng([fold(self.seed, "spans", split, number), number])
        return span_masks(rng, rows, length, *counts_of(length, self.share, self.mean))

    def _text(self, ids: list[int]) -> str:
        assert isinstance(self.spec, SpanSpec)
        pieces, run = [], []
        for id in [*ids, -1]:
            if id in self.spec.sentinels or id < 0:
                pieces.append(self.spec.vocabulary.decode(run))
                pieces.append(self.spec.vocabulary.piece(id) if id >= 0 else "")
                run = []
            else:
                run.append(id)
        return "".join(pieces)


def counts_of(length: int, share: float = 0.15, mean: float = 3.0) -> tuple[int, int]:
    """(tokens cut out, spans) of a window of `length` tokens: at least one, and as many left."""
    noise = min(max(round(length * share), 1), length - 1)
    return noise, min(max(round(noise / mean), 1), noise, length - noise)


def window_length(context: int, share: float = 0.15, mean: float = 3.0) -> int:
    """The most tokens whose source, with its sentinels and </s>, is no longer than `context`."""
    length = 2
    while True:
        noise, spans = counts_of(length + 1, share, mean)
        if length + 1 - noise + spans + 1 > context:
            return length
        length += 1


def span_masks(rng: np.random.Generator, rows: int, length: int, noise: int, spans: int) -> np.ndarray:
    """(rows, length), true for `noise` tokens in `spans` spans apart from each other; the first token is never one."""
    parts = [_parts(rng, rows, length - noise, spans), _parts(rng, rows, noise, spans)]
    ends = np.stack(parts, 2).reshape(rows, 2 * spans).cumsum(1)[:, :-1]  # left, cut out, left, cut out ...
    change = np.zeros((rows, length), np.int64)
    np.put_along_axis(change, ends, 1, 1)
    return change.cumsum(1) % 2 == 1


def corrupt(ids: np.ndarray, masks: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """(sources, targets) of windows (B, N) without the tokens where `masks` is true, as many in each row; `first` is <x0>."""
    begin = masks & ~np.pad(masks, ((0, 0), (1, 0)))[:, :-1]
    sentinel = first + begin.cumsum(1) - 1
    source = np.where(begin, sentinel, ids)[~masks | begin].reshape(len(ids), -1)
    target = np.stack([sentinel, ids], 2)[np.stack([begin, masks], 2)].reshape(len(ids), -1)
    return source, target


def check_sentinels(vocabulary: Vocabulary, spans: int, context: int, run: str) -> None:
    """Raises ConfigError when a vocabulary has fewer sentinels than a window has spans."""
    if (have := len(sentinel_ids(vocabulary))) >= spans:
        return
    if run and not have:
        raise ConfigError(f"start_from={run}: its vocabulary has no sentinels <x0>; start from a run of t5 or leave it out")
    raise ConfigError(
        f"context={context} has {spans} gaps, and the vocabulary {have} sentinels; set sentinels={spans} or a shorter context"
    )


def _parts(rng: np.random.Generator, rows: int, total: int, parts: int) -> np.ndarray:
    """(rows, parts): `total` divided into `parts` of at least one, all divisions equally likely."""
    cuts = np.argsort(rng.random((rows, total - 1)), 1)[:, : parts - 1] + 1
    edges = np.zeros((rows, 1), np.int64)
    return np.diff(np.hstack([edges, np.sort(cuts, 1), edges + total]), axis=1)
