"""Filters against plain definitions written out, and draws whose frequencies are the probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from engram.core.errors import ConfigError
from engram.inference.sampling import Sampling, choose, draw, probabilities, uniform


def logits(rows: int = 4, size: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * 2


def plain(values: list[float], how: Sampling, seen: set[int]) -> list[float]:
    """The definitions in Python, one row."""
    r = how.repetition
    values = [(v / r if v > 0 else v * r) if i in seen else v for i, v in enumerate(values)]
    if how.temperature == 0:
        return [float(i == values.index(max(values))) for i in range(len(values))]
    weights = [math.exp(v / how.temperature) for v in values]
    ranked = sorted(range(len(values)), key=lambda i: -values[i])
    kept = set(ranked[: how.top_k] if how.top_k else ranked)

    def scaled() -> list[float]:
        total = sum(weights[i] for i in kept)
        return [weights[i] / total if i in kept else 0.0 for i in range(len(values))]

    p = scaled()
    kept = {i for i in kept if p[i] >= how.min_p * max(p)}
    p, total, nucleus = scaled(), 0.0, set[int]()
    for i in ranked:
        if total >= how.top_p:
            break
        total += p[i]
        nucleus.add(i)
    kept &= nucleus
    return scaled()


@pytest.mark.parametrize(
    "how",
    [
        Sampling(), Sampling(temperature=0), Sampling(temperature=0.5), Sampling(top_k=3), Sampling(top_k=99),
        Sampling(top_p=0.7), Sampling(top_p=0.01), Sampling(min_p=0.2), Sampling(repetition=1.7),
        Sampling(temperature=0, repetition=3.0),
        Sampling(temperature=1.4, top_k=8, top_p=0.8, min_p=0.05, repetition=1.2),
    ],
)  # fmt: skip
def test_filters_are_as_defined(how: Sampling) -> None:
    x, marks = logits(), torch.zeros(4, 12, dtype=torch.bool)
    marks[:, [0, 3, 7]] = True
    want = torch.tensor([plain(row, how, {0, 3, 7}) for row in x.tolist()])
    torch.testing.assert_close(probabilities(x, how, marks), want, atol=1e-6, rtol=1e-5)


def test_top_p_of_a_large_flat_vocabulary_ranks_everything() -> None:
    """More tokens are needed than are ranked at first; a row beside it that needs few is not changed."""
    x = torch.cat([logits(1, 5000) * 0.01, logits(1, 5000) * 10])
    both = probabilities(x, Sampling(top_p=0.9))
    assert 4000 < int((both[0] > 0).sum()) < 4600
    assert torch.equal(both[1], probabilities(x[1:], Sampling(top_p=0.9))[0])
    assert float(x[0].softmax(0)[both[0] > 0].sum()) == pytest.approx(0.9, abs=3e-4)


def test_temperature_near_zero_is_greedy() -> None:
    x = logits() * 100
    assert torch.equal(probabilities(x, Sampling(temperature=1e-30)), probabilities(x, Sampling(temperature=0)))


def test_draws_invert_the_sum_exactly() -> None:
    p = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]])
    found = [int(draw(p, [u])) for u in (0.0, 0.2499999, 0.25, 0.7499999, 0.75, 1 - 2**-52)]
    assert found == [1, 1, 3, 3, 4, 4]
    assert draw(p.repeat(3, 1) * 7, [0.1, 0.5, 0.9]).tolist() == [1, 3, 4]  # need not sum to 1


def test_frequencies_are_the_probabilities() -> None:
    """Chi-square over 20,000 positions, and over pairs of neighbours, which a hash of poor quality fails."""
    how, n = Sampling(seed=11), 20_000
    p = torch.tensor([0.4, 0.3, 0.2, 0.1])
    found = choose(p.expand(n, -1), how, range(n))
    chi = ((found.bincount(minlength=4) - n * p).square() / (n * p)).sum()
    assert float(chi) < 16.3  # 0.1 % point of 3 degrees of freedom
    pairs = (found[1:] * 4 + found[:-1]).bincount(minlength=16)
    both = (p[:, None] * p).flatten() * (n - 1)
    assert float(((pairs - both).square() / both).sum()) < 37.7  # 15 degrees


def test_numbers_depend_on_all_arguments_and_nothing_else() -> None:
    some = [uniform(s, k, p, w) for s in (0, 1) for k in (0, 1) for p in (0, 1) for w in ("token", "keep")]
    assert len(set(some)) == 16
    assert some == [uniform(s, k, p, w) for s in (0, 1) for k in (0, 1) for p in (0, 1) for w in ("token", "keep")]
    assert all(0 <= u < 1 for u in some)
    x = probabilities(logits(5, 300), Sampling())
    together = choose(x, Sampling(seed=2), [4, 5, 6, 7, 8], [0, 0, 1, 1, 2])
    alone = [int(choose(x[i : i + 1], Sampling(seed=2), [4 + i], [i // 2])) for i in range(5)]
    assert together.tolist() == alone


@pytest.mark.parametrize(
    "bad", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": 1.0}, {"repetition": 0.0}]
)
def test_values_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Sampling(**bad).check()  # type: ignore[arg-type]
