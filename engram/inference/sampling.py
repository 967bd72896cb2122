"""From logits to the next token: greedy or sampled, with the usual ways to leave out the improbable.

temperature    logits / temperature (0 takes the most probable token)
top_k          only the k most probable (Fan et al. 2018)
top_p          the fewest that together have probability p (nucleus sampling, Holtzman et al. 2020)
min_p          those at least min_p times as probable as the best (Nguyen et al. 2024)
repetition     logits of tokens that came before are divided by it if positive, multiplied if negative (Keskar et al. 2019, 4.1)

They act in this order: repetition, temperature, top_k, min_p, top_p; tokens as probable as the last one kept are kept too.
A token is drawn by inverting the sum of the probabilities, in the order of the ids, at one uniform number that depends on
(seed, sample, position) alone, so that a prompt gives the same text alone and in a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.core.errors import ConfigError

NEAR = 1024  # of the most probable tokens are ranked first: nearly always they hold top_p, and the whole need not be sorted


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; the defaults change nothing."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition: float = 1.0
    seed: int = 0

    def check(self) -> None:
        """Raises ConfigError for values out of range."""
        ranges = {
            "temperature": (0 <= self.temperature < float("inf"), "at least 0"),
            "top_k": (self.top_k >= 0, "at least 0 (0 = all)"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p < 1, "at least 0 and below 1"),
            "repetition": (0 < self.repetition < float("inf"), "above 0"),
        }
        for name, (fine, what) in ranges.items():
            if not fine:
                raise ConfigError(f"{name}={getattr(self, name)} must be {what}")


def penalised(logits: Tensor, how: Sampling, seen: Tensor | None) -> Tensor:
    """Logits (B, V) float32 with the repetition penalty for the tokens that `seen` (B, V) marks."""
    logits = logits.float()
    if how.repetition == 1.0 or seen is None:
        return logits
    return torch.where(seen, torch.where(logits > 0, logits / how.repetition, logits * how.repetition), logits)


def probabilities(logits: Tensor, how: Sampling, seen: Tensor | None = None) -> Tensor:
    """The distribution that is drawn from, (B, V) float32; `seen` (B, V) marks the tokens that came before."""
    logits = penalised(logits, how, seen)
    if how.temperature == 0:
        return torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1.0)
    # The highest becomes 0 first: a temperature near 0 would otherwise make infinite numbers.
    logits = (logits - logits.amax(1, keepdim=True)) / how.temperature
    if 0 < how.top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(how.top_k).values[:, -1:], -torch.inf)
    chances = logits.softmax(1)
    if how.min_p > 0:
        chances = _only(chances, how.min_p * chances.amax(1, keepdim=True))
    if how.top_p < 1:
        chances = _only(chances, _least(chances, how.top_p))
    return chances


def choose(chances: Tensor, how: Sampling, positions: Sequence[int], samples: Sequence[int] | None = None) -> Tensor:
    """One token per row (B,), drawn from `chances` (B, V). `positions` count the tokens drawn so far in each row; `samples`
    tell apart several samples of one prompt."""
    if how.temperature == 0:
        return chances.argmax(1)
    samples = samples or [0] * len(positions)
    return draw(chances, [uniform(how.seed, s, p) for s, p in zip(samples, positions, strict=True)])


def draw(chances: Tensor, numbers: Sequence[float]) -> Tensor:
    """One token per row (B,) of `chances` (B, V), which need not sum to 1, at `numbers` from [0, 1)."""
    sums = chances.double().cumsum(1)  # in float64, so that 50,000 summands lose nothing that matters
    at = torch.tensor(numbers, dtype=torch.float64, device=chances.device)[:, None] * sums[:, -1:]
    return torch.searchsorted(sums, at, right=True)[:, 0]  # the first sum above: never a token of probability 0


def uniform(seed: int, sample: int, position: int, what: str = "token") -> float:
    """A number from [0, 1) that is a pure function of its arguments; `what` tells several of one position apart."""
    digest = hashlib.blake2b(f"{seed} {sample} {position} {what}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 12) * 2.0**-52


def _only(chances: Tensor, least: Tensor) -> Tensor:
    kept = chances.masked_fill(chances < least, 0.0)
    return kept / kept.sum(1, keepdim=True)


def _least(chances: Tensor, top_p: float) -> Tensor:
    """(B, 1) the probability of the last token that is needed for `top_p`, the most probable first."""
    ranked = chances.topk(min(NEAR, chances.shape[1])).values
    if bool((ranked.double().sum(1) < top_p).any()):
        ranked = chances.sort(descending=True).values
    needed = (ranked.double().cumsum(1) < top_p).sum(1, keepdim=True)  # this many are not yet enough
    return ranked.gather(1, needed.clamp(max=ranked.shape[1] - 1))
