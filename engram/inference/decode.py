"""Decoding token by token with a cache: the loop that every language model shares, a Transformer or a recurrent network.

A model has `new_cache(rows, capacity)` and `step(tokens, positions, cache) -> logits`. Prompts of different lengths stand in one
batch, padded at the right; each row goes on at its own length and is never changed by the others. A row that fills the context
goes on from the last half of its tokens, read anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from engram.inference.sampling import Sampling, choose, probabilities


class Cache(Protocol):
    """What the loop asks of a cache; `rewinds` says that positions may be written again (keys and values, not hidden states)."""

    rewinds: bool

    @property
    def capacity(self) -> int: ...
    def reorder(self, index: Tensor) -> None: ...
    def put(self, rows: Tensor, other: Any) -> None: ...


class LanguageModel(Protocol):
    """A model that can be decoded."""

    def new_cache(self, rows: int, capacity: int = 0, dtype: torch.dtype | None = None) -> Any: ...
    def step(self, tokens: Tensor, positions: Tensor, cache: Any) -> Tensor: ...


@dataclass
class Token:
    """One generated token of one prompt. `alternatives` are (id, probability) of the most probable, if asked for."""

    row: int
    id: int
    probability: float
    alternatives: list[tuple[int, float]]


def prefill(model: LanguageModel, prompts: Sequence[Sequence[int]], capacity: int, device: torch.device) -> tuple[Tensor, Any]:
    """(logits (B, V) after each prompt, cache). Prompts are cut to the last `capacity` - 1 tokens, where there is a limit."""
    kept = [list(p[-(capacity - 1) :]) if capacity else list(p) for p in prompts]
    lengths = torch.tensor([len(p) for p in kept], device=device)
    tokens = torch.zeros(len(kept), int(lengths.max()), dtype=torch.int64, device=device)
    for row, ids in enumerate(kept):
        tokens[row, : len(ids)] = torch.tensor(ids, device=device)
    cache = model.new_cache(len(kept), capacity)
    positions = torch.arange(tokens.shape[1], device=device).repeat(len(kept), 1)
    if not cache.rewinds:  # a hidden state cannot be taken back, so the model is told where the padding is
        positions = positions.masked_fill(positions >= lengths[:, None], -1)
    logits = model.step(tokens, positions, cache)
    return logits[torch.arange(len(kept), device=device), lengths - 1], cache


@torch.inference_mode()
def decode(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    how: Sampling,
    *,
    most: int,
    ends: frozenset[int],
    context: int,
    device: torch.device,
    finished: set[int],
    alternatives: int = 0,
    samples: Sequence[int] | None = None,
    banned: Sequence[int] = (),
) -> Iterator[Token]:
    """At most `most` tokens for every prompt, one position of all rows after another, until a token of `ends` (given too).

    The caller may add rows to `finished` at any time, and they stop. `context` 0 means that the model has no limit. `samples`
    numbers the samples of equal prompts; `banned` ids are never chosen.
    """
    rows = [row for row in range(len(prompts)) if row not in finished]
    texts = [list(p) for p in prompts]
    logits, cache = prefill(model, texts, _capacity(texts, most, context), device)
    places = torch.tensor([min(len(t), context - 1) if context else len(t) for t in texts], device=device)
    seen = _seen(texts, logits.shape[1], device) if how.repetition != 1.0 else None
    for drawn in range(most):
        if len(banned):
            logits[:, list(banned)] = -torch.inf
        chances = probabilities(logits, how, seen)
        numbers = [samples[row] for row in rows] if samples else None
        chosen = choose(chances, how, [drawn] * len(rows), numbers)
        top = chances.topk(min(alternatives, chances.shape[1])) if alternatives else None
        odds = chances.gather(1, chosen[:, None])[:, 0].tolist()
        for at, (row, id) in enumerate(zip(rows, chosen.tolist(), strict=True)):
            texts[row].append(id)
            others = list(zip(top.indices[at].tolist(), top.values[at].tolist(), strict=True)) if top else []
            if id in ends:
                finished.add(row)
            yield Token(row, id, odds[at], others)
        going = [at for at, row in enumerate(rows) if row not in finished]
        if not going or drawn + 1 == most:
            return
        if len(going) < len(rows):
            index = torch.tensor(going, device=device)
            cache.reorder(index)
            rows, chosen, places = [rows[at] for at in going], chosen[index], places[index]
            seen = seen[index] if seen is not None else None
        if seen is not None:
            seen.scatter_(1, chosen[:, None], True)
        full = (places >= cache.capacity).nonzero()[:, 0] if context else places.new_empty(0)
        if len(full):  # read the last half anew; its last token is the one just drawn
            keep = max(context // 2, 1)
            again, fresh = prefill(model, [texts[rows[at]][-keep:] for at in full.tolist()], cache.capacity, device)
            rest = (places < cache.capacity).nonzero()[:, 0]
            logits = torch.empty(len(rows), again.shape[1], dtype=again.dtype, device=device)
            if len(rest):
                part = _rows(cache, rest)
                logits[rest] = model.step(chosen[rest][:, None], places[rest][:, None], part)[:, -1]
                cache.put(rest, part)
            cache.put(full, fresh)
            logits[full] = again
            places[full] = keep - 1
        else:
            logits = model.step(chosen[:, None], places[:, None], cache)[:, -1]
        places = places + 1


def _capacity(texts: Sequence[Sequence[int]], most: int, context: int) -> int:
    """Slots of the cache: as many as can be needed, and never more than the context."""
    return min(max(map(len, texts)) + most, context) if context else 0


def _rows(cache: Any, index: Tensor) -> Any:
    """A copy of some rows of a cache."""
    import copy

    part = copy.copy(cache)
    part.reorder(index)
    return part


def _seen(texts: Sequence[Sequence[int]], size: int, device: torch.device) -> Tensor:
    seen = torch.zeros(len(texts), size, dtype=torch.bool, device=device)
    for row, ids in enumerate(texts):
        seen[row, torch.tensor(ids, device=device)] = True
    return seen
