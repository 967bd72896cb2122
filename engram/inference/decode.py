"""Decoding token by token with a cache: the loop that every language model shares, a Transformer or a recurrent network.

A model has `new_cache(rows, capacity)`, `read(tokens, positions, cache) -> hidden` and `step`, which is `read` and the logits.
Of a prompt all but the last token are read at once; then every row of the batch takes one token per step, at its own length
and unchanged by the others. A row that is finished leaves, and a waiting prompt takes its place (continuous batching, Yu et
al. 2022). A row that fills the context goes on from the last half of its tokens, read anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from engram.inference.sampling import Sampling, choose, penalised, probabilities
from engram.nn.cache import fill_gaps

TOGETHER = 1024  # tokens, padding included, that are read at once


class Cache(Protocol):
    """What the loop asks of a cache; `rewinds`: positions may be written again (keys and values, not hidden states)."""

    rewinds: bool

    def reorder(self, index: Tensor) -> None: ...
    def put(self, rows: Tensor, other: Any) -> None: ...


class LanguageModel(Protocol):
    """A model that can be decoded."""

    def new_cache(self, rows: int, capacity: int = 0, dtype: torch.dtype | None = None) -> Any: ...
    def read(self, tokens: Tensor, positions: Tensor, cache: Any) -> Tensor: ...
    def step(self, tokens: Tensor, positions: Tensor, cache: Any) -> Tensor: ...


@dataclass
class Token:
    """One generated token of one prompt; `last` of this prompt. If asked for: its probability and the most probable (id,
    probability), both as the model gave them, before temperature and filters."""

    row: int
    id: int
    last: bool = False
    probability: float = float("nan")
    alternatives: list[tuple[int, float]] = field(default_factory=list)


@torch.inference_mode()
def decode(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    how: Sampling,
    *,
    most: int | Sequence[int],
    ends: frozenset[int],
    context: int,
    device: torch.device,
    finished: set[int],
    alternatives: int | None = None,
    samples: Sequence[int] | None = None,
    banned: Sequence[int] = (),
    rows: int = 32,
) -> Iterator[Token]:
    """At most `most` tokens for every prompt (one number, or one each), until a token of `ends` (given too).

    The caller may add rows to `finished` at any time, and they stop. `context` 0 means that the model has no limit; of a prompt
    that is longer the last part is used. `alternatives` None computes no probabilities. `samples` numbers the samples of equal
    prompts; `banned` ids are never chosen; at most `rows` prompts are in the batch at once.
    """
    limits = [most] * len(prompts) if isinstance(most, int) else list(most)
    texts = [list(p[-context:]) if context else list(p) for p in prompts]
    starts = [len(t) for t in texts]
    waiting = deque(row for row, limit in enumerate(limits) if limit > 0 and row not in finished)
    longest = max((starts[row] + limits[row] for row in waiting), default=0)
    batch = Batch(model, min(longest, context) if context else 0, context, device)
    never = torch.tensor(list(banned), device=device) if len(banned) else None
    seen: Tensor | None = None
    while batch.rows or waiting:
        free = rows - len(batch.rows)
        new = [waiting.popleft() for _ in range(min(free, len(waiting)))]
        new = [row for row in new if row not in finished]
        batch.add(new, texts)
        if not batch.rows:
            continue
        logits = batch.step(texts)
        if never is not None:
            logits[:, never] = -torch.inf
        if how.repetition != 1.0:
            seen = _seen(seen, len(batch.rows) - len(new), [texts[row] for row in batch.rows], logits)
        drawn = [len(texts[row]) - starts[row] for row in batch.rows]
        if how.temperature == 0:
            chosen = penalised(logits, how, seen).argmax(1)
        else:
            numbers = [samples[row] for row in batch.rows] if samples else None
            chosen = choose(probabilities(logits, how, seen), how, drawn, numbers)
        batch.chosen = chosen
        tokens = [Token(row, id) for row, id in zip(batch.rows, chosen.tolist(), strict=True)]
        if alternatives is not None:
            tell(tokens, logits.float().softmax(1), chosen, alternatives)
        for token, count in zip(tokens, drawn, strict=True):
            texts[token.row].append(token.id)
            if token.id in ends or count + 1 >= limits[token.row]:
                token.last = True
                finished.add(token.row)
            yield token
        kept = batch.drop(finished)
        if seen is not None:
            seen = seen.scatter(1, chosen[:, None], True)
            seen = seen if kept is None else seen[kept]


class Batch:
    """The rows that are being decoded: which prompt each is, the token to read next, where it stands, and their cache."""

    def __init__(self, model: LanguageModel, capacity: int, context: int, device: torch.device):
        self.model, self.capacity, self.context, self.device = model, capacity, context, device
        self.rows: list[int] = []
        self.cache: Any = None
        self.chosen = torch.zeros(0, dtype=torch.int64, device=device)
        self.places = torch.zeros(0, dtype=torch.int64, device=device)
        self.lengths: list[int] = []  # of places, as numbers: asking a tensor costs a wait

    def add(self, new: list[int], texts: Sequence[Sequence[int]]) -> None:
        """Prompts at the end of the batch, read up to their last token."""
        if not new:
            return
        old = len(self.rows)
        if self.cache is None or not old:
            self.cache = self.model.new_cache(len(new), self.capacity)
        else:
            more = [*range(old), *[0] * len(new)]  # their places are filled below
            self.cache.reorder(torch.tensor(more, device=self.device))
        self.rows += new
        self.lengths += [0] * len(new)
        self.chosen = torch.cat([self.chosen, self.chosen.new_zeros(len(new))])
        self._fill(list(range(old, len(self.rows))), [texts[row] for row in new], everything=not old)

    def step(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Every row reads its next token; logits (B, V) of the token after it."""
        full = [at for at, length in enumerate(self.lengths) if self.context and length >= self.context]
        if full:
            half = max(self.context // 2, 1)
            self._fill(full, [texts[self.rows[at]][-half:] for at in full])
        logits = self.model.step(self.chosen[:, None], self.places[:, None], self.cache)[:, -1]
        self.places = self.places + 1
        self.lengths = [n + 1 for n in self.lengths]
        return logits

    def drop(self, finished: set[int]) -> Tensor | None:
        """Leave out the finished rows; the index of those kept, in their new order, None when all go on.

        The last rows move into the gaps, so that little is copied.
        """
        kept = [at for at, row in enumerate(self.rows) if row not in finished]
        if len(kept) == len(self.rows):
            return None
        order = fill_gaps(kept)
        index = torch.tensor(order, dtype=torch.int64, device=self.device)
        self.rows, self.lengths = [self.rows[at] for at in order], [self.lengths[at] for at in order]
        self.chosen, self.places = self.chosen[index], self.places[index]
        if order:
            self.cache.reorder(index)
        return index

    def _fill(self, slots: list[int], texts: Sequence[Sequence[int]], everything: bool = False) -> None:
        """Read texts into some slots, all but their last token, which comes next."""
        order = sorted(range(len(slots)), key=lambda i: len(texts[i]))
        groups: list[list[int]] = []
        for i in order:  # alike lengths together, so that little padding is read
            if (
                groups
                and (len(groups[-1]) + 1) * len(texts[i]) <= TOGETHER
                and len(texts[i]) <= 1.5 * len(texts[groups[-1][0]]) + 4
            ):
                groups[-1].append(i)
            else:
                groups.append([i])
        for group in groups:
            at = torch.tensor([slots[i] for i in group], device=self.device)
            whole = everything and len(groups) == 1
            if whole:
                at, group = at.sort().values, sorted(group)
            part = [texts[i][:-1] for i in group]
            longest = max(map(len, part))
            cache = self.cache if whole else self.model.new_cache(len(group), max(longest, 1) if self.capacity else 0)
            if longest:
                self.model.read(*_padded(part, longest, cache.rewinds, self.device), cache)
            if not whole:
                self.cache.put(at, cache)
        for slot, text in zip(slots, texts, strict=True):
            self.lengths[slot] = len(text) - 1
        self.chosen[torch.tensor(slots, device=self.device)] = torch.tensor([t[-1] for t in texts], device=self.device)
        self.places = torch.tensor(self.lengths, device=self.device)


def _padded(texts: Sequence[Sequence[int]], longest: int, rewinds: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """(tokens, positions) (B, T). A hidden state cannot be taken back, so there the padding has position -1."""
    tokens = torch.tensor([[*t, *[0] * (longest - len(t))] for t in texts], device=device)
    positions = torch.arange(longest, device=device).repeat(len(texts), 1)
    if not rewinds:
        positions = positions.masked_fill(positions >= torch.tensor([[len(t)] for t in texts], device=device), -1)
    return tokens, positions


def _seen(seen: Tensor | None, old: int, texts: Sequence[Sequence[int]], logits: Tensor) -> Tensor:
    """(B, V) which tokens came before in each row: the first `old` rows as they are, the others marked from their texts."""
    new = torch.zeros(len(texts) - old, logits.shape[1], dtype=torch.bool, device=logits.device)
    for row, ids in zip(new, texts[old:], strict=True):
        row[torch.tensor(ids, device=logits.device)] = True
    return new if seen is None or not old else torch.cat([seen, new]) if len(new) else seen


def tell(tokens: list[Token], chances: Tensor, chosen: Tensor, alternatives: int) -> None:
    """Write the probabilities (B, V) of what was `chosen` (B,) into its tokens, and of that many alternatives."""
    for token, p in zip(tokens, chances.gather(1, chosen[:, None])[:, 0].tolist(), strict=True):
        token.probability = p
    if alternatives:
        top = chances.topk(min(alternatives, chances.shape[1]))
        for token, ids, ps in zip(tokens, top.indices.tolist(), top.values.tolist(), strict=True):
            token.alternatives = list(zip(ids, ps, strict=True))
