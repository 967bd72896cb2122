"""How near a text is to its references: BLEU and chrF, as counts for each row, so that any sum of rows has a figure.

BLEU: Papineni et al. 2002, with the tokens ("13a", those of mteval-v13a) and the smoothing of Post 2018, whose package
sacrebleu gives the same numbers (a test compares). chrF: Popovic 2015, characters up to 6 long, beta 2, no spaces, as there.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.core.predictor import Figure

ORDER = 4  # longest n-gram of words
LETTERS = 6  # longest n-gram of characters
BETA = 2.0  # how much more recall counts than precision in chrF

_SIGNS = re.compile(r"([{-~\[-` -&(-+:-@/])")
_AFTER = re.compile(r"([^0-9])([.,])")
_BEFORE = re.compile(r"([.,])([^0-9])")
_DASH = re.compile(r"([0-9])(-)")


@dataclass(frozen=True)
class Measure:
    """`count(text, references)` gives the numbers of one row; `figure` makes a value from their sums (N, columns) to (N,)."""

    name: str
    columns: int
    count: Callable[[str, Sequence[str]], list[float]]
    figure: Figure


def tokens_13a(text: str) -> list[str]:
    """Words and signs as the NIST script mteval-v13a takes them apart; a full stop or comma stays within a number."""
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    if "&" in text:
        for name in ("quot", "amp", "lt", "gt"):
            text = text.replace(f"&{name};", html.unescape(f"&{name};"))
    text = _SIGNS.sub(r" \1 ", f" {text} ")
    text = _BEFORE.sub(r" \1 \2", _AFTER.sub(r"\1 \2 ", text))
    return _DASH.sub(r"\1 \2 ", text).split()


def bleu_counts(text: str, references: Sequence[str]) -> list[float]:
    """Length, length of the nearest reference, then matches and totals of n-grams of 1 to 4 tokens: 10 numbers."""
    words, known = tokens_13a(text), [tokens_13a(r) for r in references]
    nearest = min((abs(len(k) - len(words)), len(k)) for k in known)[1]
    matches, totals = [], []
    for n in range(1, ORDER + 1):
        mine, best = grams(words, n), Counter[tuple[str, ...] | str]()
        for k in known:
            best |= grams(k, n)
        matches.append(sum((mine & best).values()))
        totals.append(max(len(words) - n + 1, 0))
    return [float(v) for v in (len(words), nearest, *matches, *totals)]


def bleu(sums: Tensor) -> Tensor:
    """Corpus BLEU, 0 to 100, of summed counts (N, 10). An order without a match gets half, a quarter ... of a match."""
    sums = sums.double()
    matches, totals = sums[:, 2 : 2 + ORDER], sums[:, 2 + ORDER :]
    rank = (matches == 0).cumsum(1).double()
    precision = torch.where(matches > 0, matches, 0.5**rank) / totals.clamp(min=1)
    brevity = torch.exp((1 - sums[:, 1] / sums[:, 0].clamp(min=1)).clamp(max=0))
    value = 100 * brevity * precision.log().mean(1).exp()
    return torch.where((totals > 0).all(1) & (matches[:, 0] > 0), value, 0.0)


def chrf_counts(text: str, references: Sequence[str]) -> list[float]:
    """For 1 to 6 characters: n-grams of the text, of the reference, common ones. Of several references the one with the best
    score of the row: 18 numbers."""
    mine = "".join(text.split())
    rows = []
    for reference in references:
        other, counts = "".join(reference.split()), []
        for n in range(1, LETTERS + 1):
            a, b = grams(mine, n), grams(other, n)
            counts += [float(a.total() if b else 0), float(b.total()), float((a & b).total())]
        rows.append(counts)
    return max(rows, key=lambda counts: float(chrf(torch.tensor([counts]))[0]))


def chrf(sums: Tensor) -> Tensor:
    """chrF2, 0 to 100, of summed counts (N, 18): precision and recall are means over the orders that both sides have."""
    sums = sums.double().unflatten(1, (LETTERS, 3))
    mine, other, common = sums.unbind(2)
    both = (mine > 0) & (other > 0)
    orders = both.sum(1).clamp(min=1)
    precision = torch.where(both, common / mine.clamp(min=1), 0.0).sum(1) / orders
    recall = torch.where(both, common / other.clamp(min=1), 0.0).sum(1) / orders
    return 100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall).clamp(min=1e-16)


def grams(items: Sequence[str] | str, n: int) -> Counter[tuple[str, ...] | str]:
    """The n-grams of some words, or of a string's characters, with how often each is there."""
    if isinstance(items, str):
        return Counter(items[i : i + n] for i in range(len(items) - n + 1))
    return Counter(zip(*(items[i:] for i in range(n)), strict=False))


BLEU = Measure("bleu", 2 + 2 * ORDER, bleu_counts, Figure("BLEU", bleu))
CHRF = Measure("chrf", 3 * LETTERS, chrf_counts, Figure("chrF2", chrf))
