"""How good word vectors are: rank correlation with people's judgement of pairs, and the share of analogies solved."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

CHUNK = 256  # questions scored at a time

Number = Callable[[str], int | None]


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Spearman's rank correlation, equal values sharing their mean rank; NaN when one side does not vary."""
    ranks = [_ranks(np.asarray(x, np.float64)) for x in (a, b)]
    centred = [r - r.mean() for r in ranks]
    scale = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    return float((centred[0] * centred[1]).sum() / scale) if scale else float("nan")


def _ranks(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def lookup(words: Sequence[str]) -> Number:
    """Word -> number or None: as written, else the first word that agrees with it in small letters."""
    exact = {word: number for number, word in reversed(list(enumerate(words)))}
    small = {word.lower(): number for number, word in reversed(list(enumerate(words)))}
    return lambda word: exact.get(word, small.get(word.lower()))


def pairs(vectors: Tensor, number: Number, judged: Sequence[tuple[str, str, float]]) -> dict[str, float]:
    """{"spearman", "covered", "pairs"}: the cosine of two words against the judgement, over pairs that both have vectors."""
    found = [(i, j, s) for a, b, s in judged if (i := number(a)) is not None and (j := number(b)) is not None]
    out = {"spearman": float("nan"), "covered": len(found), "pairs": len(judged)}
    if found:
        units = torch.nn.functional.normalize(vectors.float(), dim=1)
        i, j = (torch.tensor([f[n] for f in found]) for n in (0, 1))
        cosines = (units[i] * units[j]).sum(1)
        out["spearman"] = spearman(cosines.numpy(), [s for _, _, s in found])
    return out


def analogies(vectors: Tensor, number: Number, questions: Sequence[tuple[str, str, str, str]]) -> dict[str, float]:
    """{"accuracy", "covered", "questions"}: how often the word nearest to b - a + c is d, among all words but a, b and c."""
    asked = [[number(w) for w in question] for question in questions]
    covered = torch.tensor([q for q in asked if None not in q], dtype=torch.int64).reshape(-1, 4)
    out = {"accuracy": float("nan"), "covered": len(covered), "questions": len(questions)}
    if len(covered):
        units = torch.nn.functional.normalize(vectors.float(), dim=1)
        right = 0
        for part in covered.split(CHUNK):
            a, b, c, d = part.T
            scores = (units[b] - units[a] + units[c]) @ units.T
            scores.scatter_(1, part[:, :3], -9.0)
            right += int((scores.argmax(1) == d).sum())
        out["accuracy"] = right / len(covered)
    return out
