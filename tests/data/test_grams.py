"""Hashed n-grams: which there are, that they depend on the text alone, and that they reach the batches of a classifier."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

from engram.core.errors import ConfigError
from engram.data.grams import hashed
from engram.data.sentence_spec import TextSpec
from engram.data.sentences import sentences

ROWS = [{"text": f"{a} Film {b}{' more words here' * (n % 3)}", "label": b} for n, a in enumerate("abcdefgh") for b in "xy"]
SIZE = 1 << 30  # so large that hardly two n-grams share a number


@pytest.mark.parametrize("text", ["a", "no film", "not a good film", "good good good", "caf\u00e9 \U0001f600 \u4f60\u597d"])
def test_there_is_one_number_for_every_different_gram(text: str) -> None:
    words = text.split()
    line = f" {' '.join(words)} "
    ids = hashed(words, SIZE)
    of_letters = {line[i : i + n] for n in range(2, 6) for i in range(len(line) - n + 1)}
    assert (ids < SIZE // 2).sum() == len({*words, *itertools.pairwise(words)})
    assert (ids >= SIZE // 2).sum() == len(of_letters)
    assert ids.dtype == np.int32
    assert ids.min() > 0
    assert ids.max() < SIZE
    assert (np.diff(ids) > 0).all()


def test_texts_share_what_they_have_in_common() -> None:
    first, second = hashed(["a", "good", "film"], SIZE), hashed(["goodness", ",", "a", "film"], SIZE)
    common = np.intersect1d(first, second)
    assert (common < SIZE // 2).sum() == 2  # a, film; no pair of words
    line = [f" {t} " for t in ("a good film", "goodness , a film")]
    runs = [{x[i : i + n] for n in range(2, 6) for i in range(len(x) - n + 1)} for x in line]
    assert (common >= SIZE // 2).sum() == len(runs[0] & runs[1])


def test_order_of_words_and_of_letters_counts() -> None:
    a, b = hashed(["not", "good"], SIZE), hashed(["good", "not"], SIZE)
    assert len(np.setdiff1d(a[a < SIZE // 2], b)) == 1  # the pair
    assert not np.intersect1d(hashed(["ab"], SIZE), hashed(["ba"], SIZE)).size


def test_numbers_never_change() -> None:
    """Weights are saved by number: another hash would make every saved run worthless."""
    assert hashed(["a", "film"], 1 << 18).tolist()[:6] == [11688, 35700, 67545, 131274, 133167, 159658]


def test_batches_and_the_spec_hold_them() -> None:
    data = sentences(ROWS, batch=4, context=5, grams=4096)
    again = TextSpec.from_json(json.loads(json.dumps(data.spec.to_json())))
    (text,) = data.raw("val", [0])
    assert "more" not in text or len(text.split()) > 5
    batch = next(data.batches("val"))
    ids = hashed(text.lower().split()[:5], 4096).tolist()
    assert batch["grams"].dtype == torch.int64
    assert batch["grams"][0].tolist() == ids + [0] * (batch["grams"].shape[1] - len(ids))
    for found in (again.encode([text, "a"]), next(again.labelled([{"text": text, "label": "x"}]))):
        assert found["grams"][0, : len(ids)].tolist() == ids
        assert not found["grams"][0, len(ids) :].any()
    assert set(again.example()) == {"tokens", "lengths", "grams"}
    assert "grams" not in next(sentences(ROWS, batch=4, context=5).batches("train"))
    with pytest.raises(ConfigError, match="grams=9 is too small"):
        sentences(ROWS, batch=4, context=5, grams=9)
