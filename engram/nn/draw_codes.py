"""A picture's codes one after another from a Transformer that has read a text: what training shows and what samples use.

The text stands at fixed places: (B, L) token ids padded with 0, then one start token, then the codes row by row. Codes have ids
of their own, `low` to `low + codes - 1` in the model's vocabulary (Ramesh et al. 2021, "Zero-shot text-to-image generation",
section 2.2). Guidance: Ho & Salimans 2022, "Classifier-free diffusion guidance", Eq. 6, on log-probabilities.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Decoder(Protocol):
    """What is asked of the Transformer: engram.models.gpt.GPT has it."""

    tokens: nn.Embedding
    out: nn.Linear | None

    def hidden(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor: ...
    def new_cache(self, rows: int, capacity: int = 0, dtype: torch.dtype | None = None) -> Any: ...
    def read(self, tokens: Tensor, positions: Tensor, cache: Any) -> Tensor: ...


def code_logits(model: Decoder, hidden: Tensor, low: int, codes: int) -> Tensor:
    """(..., width) to logits of the codes alone (..., codes), float32."""
    weight = model.tokens.weight if model.out is None else model.out.weight
    return F.linear(hidden, weight[low : low + codes]).float()


def sequence(text: Tensor, ids: Tensor, low: int) -> Tensor:
    """What the Transformer reads to predict every one of the codes ids (B, P): (B, L + P), text, start, codes but the last."""
    start = torch.full_like(text[:, :1], low - 1)
    return torch.cat([text, start, ids[:, :-1] + low], 1)


def draw_codes(
    model: Decoder,
    text: Tensor,
    numbers: Tensor,
    low: int,
    codes: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    guidance: float = 1.0,
    without: Tensor | None = None,
    given: Tensor | None = None,
) -> Tensor:
    """Codes (B, P) int64 for texts (B, L), drawn at the numbers (B, P) from [0, 1), one for each.

    temperature: 0 takes the most probable code; top_k: 0 = all. guidance: log p(without) + guidance (log p(text) - log
    p(without)); `without` (B, L) is the text to move away from, by default none. given: (B, K) codes to begin with.
    """
    rows, places = numbers.shape
    guided = guidance != 1.0
    if guided:
        text = torch.cat([text, torch.zeros_like(text) if without is None else without])
    start = text.new_full((len(text), 1), low - 1)
    begun = given[:, :places] if given is not None else text.new_zeros(rows, 0)
    twice = begun.repeat(2, 1) if guided else begun
    tokens = torch.cat([text, start, twice + low], 1)[:, : text.shape[1] + places]
    cache = model.new_cache(len(text), text.shape[1] + places)
    found, at = list(begun.unbind(1)), 0
    while len(found) < places:
        positions = torch.arange(at, at + tokens.shape[1], device=tokens.device).expand(len(tokens), -1)
        at += tokens.shape[1]
        logits = code_logits(model, model.read(tokens, positions, cache)[:, -1], low, codes)
        if guided:
            said, unsaid = logits.log_softmax(1).chunk(2)
            logits = unsaid + guidance * (said - unsaid)
        ids = pick(logits, numbers[:, len(found)], temperature, top_k)
        found.append(ids)
        tokens = (ids.repeat(2) if guided else ids)[:, None] + low
    return torch.stack(found, 1)


def pick(logits: Tensor, numbers: Tensor, temperature: float = 1.0, top_k: int = 0) -> Tensor:
    """One id per row (B,) of logits (B, K): the inverse of the summed probabilities at the numbers (B,) from [0, 1)."""
    if temperature == 0:
        return logits.argmax(1)
    logits = (logits - logits.amax(1, keepdim=True)) / temperature
    if 0 < top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
    sums = logits.double().softmax(1).cumsum(1)
    at = numbers.double()[:, None] * sums[:, -1:]
    return torch.searchsorted(sums, at, right=True)[:, 0].clamp(max=logits.shape[1] - 1)
