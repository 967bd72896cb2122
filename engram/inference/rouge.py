"""How much of a reference is in a text: ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004), the figures of summaries.

Tokens and scores are those of the package rouge-score without stemming: runs of a-z and 0-9 in small letters; F1 of the n-grams
in common, or of the longest common subsequence over the whole text; the mean over texts; of several references the one with
the best F1, for each measure by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engram.core.predictor import Figure
from engram.inference.bleu import Measure, grams

_TOKEN = re.compile(r"[a-z0-9]+")


def rouge_tokens(text: str) -> list[str]:
    """Runs of a-z and 0-9, in small letters; other letters separate them, as in the package."""
    return _TOKEN.findall(text.lower())


def rouge_n(text: str, reference: str, n: int) -> float:
    """F1 of the n-grams that both have, 0 to 1; 0 where either has none."""
    mine, known = grams(rouge_tokens(text), n), grams(rouge_tokens(reference), n)
    return f1((mine & known).total(), mine.total(), known.total())


def rouge_l(text: str, reference: str) -> float:
    """F1 of the longest common subsequence, 0 to 1."""
    mine, known = rouge_tokens(text), rouge_tokens(reference)
    return f1(longest_common(mine, known), len(mine), len(known))


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, by bits: O(len(a)) steps on numbers of len(b) bits (Hyyro 2004)."""
    places: dict[str, int] = {}
    for at, item in enumerate(b):
        places[item] = places.get(item, 0) | 1 << at
    full = (1 << len(b)) - 1
    row = full  # a zero marks where the length grows
    for item in a:
        hit = row & places.get(item, 0)
        row = (row + hit | row - hit) & full
    return len(b) - row.bit_count()


def f1(common: int, mine: int, known: int) -> float:
    """Harmonic mean of common / mine and common / known."""
    return 2 * common / (mine + known) if common else 0.0


def _counts(score: Callable[[str, str], float]) -> Callable[[str, Sequence[str]], list[float]]:
    return lambda text, references: [max(score(text, known) for known in references), 1.0]


def _mean(sums: Tensor) -> Tensor:
    """100 times the mean of summed (score, rows) (N, 2)."""
    return 100 * sums[:, 0].double() / sums[:, 1].double().clamp(min=torch.finfo(torch.float64).tiny)


ROUGE1 = Measure("rouge1", 2, _counts(lambda text, known: rouge_n(text, known, 1)), Figure("ROUGE-1", _mean))
ROUGE2 = Measure("rouge2", 2, _counts(lambda text, known: rouge_n(text, known, 2)), Figure("ROUGE-2", _mean))
ROUGEL = Measure("rougeL", 2, _counts(rouge_l), Figure("ROUGE-L", _mean))
ROUGE = (ROUGE1, ROUGE2, ROUGEL)


def lead(text: str, sentences: int = 3) -> str:
    """The baseline of summaries: the first sentences, or the first lines of a dialogue."""
    lines = [line for line in text.splitlines() if line.strip()]
    parts = lines if len(lines) > 1 else re.split(r"(?<=[.!?])\s+", text.strip())
    return " ".join(parts[:sentences])
