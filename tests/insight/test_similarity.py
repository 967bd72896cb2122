"""Figures of word vectors against scipy and against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from engram.insight.similarity import analogies, lookup, pairs, spearman


def test_spearman_is_that_of_scipy_with_ties() -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(0)
    for _ in range(20):
        a, b = draw.integers(0, 6, 30), draw.normal(size=30).round(1)
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_pairs_use_the_cosine_and_leave_out_unknown_words() -> None:
    vectors = torch.tensor([[10.0, 0], [1, 1], [0, 2]])
    judged = [("a", "b", 5.0), ("a", "c", 1.0), ("B", "b", 9.0), ("a", "zebra", 3.0)]
    assert pairs(vectors, lookup(["a", "b", "c"]), judged) == {"spearman": pytest.approx(1.0), "covered": 3, "pairs": 4}


def test_analogies_leave_out_the_words_of_the_question() -> None:
    # king - man + woman is nearest to woman itself, then to queen
    vectors = torch.tensor([[1.0, 0, 0], [1, 0, 0.2], [0, 1, 0], [0, 1, 1], [0, 0, 1]])
    find = lookup(["man", "king", "woman", "queen", "crown"])
    asked = [("man", "king", "woman", "queen"), ("king", "man", "queen", "crown"), ("man", "king", "boy", "prince")]
    assert analogies(vectors, find, asked) == {"accuracy": 0.5, "covered": 2, "questions": 3}
    assert math.isnan(analogies(vectors, find, asked[2:])["accuracy"])


def test_lookup_prefers_the_word_as_written() -> None:
    find = lookup(["apple", "Apple", "Paris"])
    assert [find(w) for w in ("Apple", "apple", "APPLE", "paris", "pear")] == [1, 0, 0, 2, None]
