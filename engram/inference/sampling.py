"""From logits to the next token: greedy or sampled, with the usual ways to leave out the improbable.

temperature    logits / temperature (0 takes the most probable token)
top_k          only the k most probable (Fan et al. 2018)
top_p          the fewest that together have probability p (nucleus sampling, Holtzman et al. 2020)
min_p          those at least min_p times as probable as the best (Nguyen et al. 2024)
repetition     logits of tokens that came before are divided by it if positive, multiplied if negative (Keskar et al. 2019, 4.1)

Tokens are drawn by the Gumbel trick from numbers that depend on (seed, position) alone, so that a prompt gives the same text
alone and in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.core.batch import fold
from engram.core.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; the defaults change nothing but the temperature."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition: float = 1.0
    seed: int = 0

    def check(self) -> None:
        """Raises ConfigError for values out of range."""
        ranges = {
            "temperature": (0 <= self.temperature, "at least 0"),
            "top_k": (self.top_k >= 0, "at least 0 (0 = all)"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p < 1, "at least 0 and below 1"),
            "repetition": (self.repetition > 0, "above 0"),
        }
        for name, (fine, what) in ranges.items():
            if not fine:
                raise ConfigError(f"{name}={getattr(self, name)} must be {what}")


def probabilities(logits: Tensor, how: Sampling, seen: Tensor | None = None) -> Tensor:
    """The distribution that is drawn from, (B, V) float32; `seen` (B, V) marks the tokens that came before."""
    logits = logits.float()
    if how.repetition != 1.0 and seen is not None:
        logits = torch.where(seen, torch.where(logits > 0, logits / how.repetition, logits * how.repetition), logits)
    if how.temperature == 0:
        return torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1.0)
    logits = logits / how.temperature
    if 0 < how.top_k < logits.shape[1]:
        least = logits.topk(how.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if how.min_p > 0:
        chances = logits.softmax(1)
        logits = logits.masked_fill(chances < how.min_p * chances.amax(1, keepdim=True), -torch.inf)
    if how.top_p < 1:
        ranked, order = logits.sort(descending=True)
        chances = ranked.softmax(1)
        beyond = chances.cumsum(1) - chances >= how.top_p  # what comes before it has enough already
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter_(1, order, beyond), -torch.inf)
    return logits.softmax(1)


def choose(chances: Tensor, how: Sampling, positions: Sequence[int], rows: Sequence[int] | None = None) -> Tensor:
    """One token per row (B,), drawn from `chances` (B, V). `positions` count the tokens drawn so far in each row; `rows` tell
    apart several samples of one prompt."""
    if how.temperature == 0:
        return chances.argmax(1)
    noise = torch.stack([
        gumbel(fold(how.seed, "sample", rows[i] if rows else 0, position), chances.shape[1])
        for i, position in enumerate(positions)
    ]).to(chances.device)  # fmt: skip
    return (chances.log() + noise).argmax(1)


def gumbel(seed: int, size: int) -> Tensor:
    """Standard Gumbel numbers (size,), a pure function of the seed."""
    uniform = torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return -(-(uniform.clamp(min=1e-300)).log()).log()
