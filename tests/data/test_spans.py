"""Span corruption: what is cut out and what is left make the text again, the counts are the paper's, batches repeat exactly."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from engram.core.data import Summary
from engram.core.errors import ConfigError, DataError
from engram.data.span_spec import SpanSpec, sentinel_names
from engram.data.spans import SpanData, corrupt, counts_of, span_masks, spans, window_length
from engram.data.vocabulary import END, START, Vocabulary

WORDS = " ".join(f"w{n}" for n in range(400))


def restored(source: list[int], target: list[int], first: int) -> list[int]:
    """The text again: every sentinel of the source replaced by what follows it in the target."""
    pieces: dict[int, list[int]] = {}
    for id in target:
        if id >= first:
            pieces[id] = last = []
        else:
            last.append(id)
    return [id for one in source for id in (pieces[one] if one >= first else [one])]


def spec_of(vocabulary: Vocabulary, context: int = 16) -> SpanSpec:
    return SpanSpec(vocab=vocabulary.to_json(), context=context, target_context=context)


def span_data(count: int, batch: int = 3, length: int = 20, seed: int = 1) -> SpanData:
    spec = spec_of(Vocabulary("byte", specials=(*Vocabulary("byte").specials, *sentinel_names(8))))
    ids = np.arange(1000, 1000 + count, dtype=np.uint16)
    return SpanData(spec, Summary("", {}), {"train": ids, "val": ids}, length=length, batch=batch, seed=seed)


def test_the_example_of_the_paper() -> None:
    """Figure 2 of Raffel et al. 2020: "Thank you <X> me to your party <Y> week"; the last sentinel is </s>, as in the code."""
    text = np.arange(1, 11)[None]  # Thank you for inviting me to your party last week
    mask = np.zeros((1, 10), bool)
    mask[0, [2, 3, 8]] = True
    source, target = corrupt(text, mask, 100)
    assert source.tolist() == [[1, 2, 100, 5, 6, 7, 8, 101, 10]]
    assert target.tolist() == [[100, 3, 4, 101, 9]]


@pytest.mark.parametrize(("length", "noise", "number"), [(2, 1, 1), (20, 3, 1), (114, 17, 6), (568, 85, 28), (3, 1, 1)])
def test_counts_are_those_of_the_published_code(length: int, noise: int, number: int) -> None:
    assert counts_of(length) == (noise, number)


@pytest.mark.parametrize("context", [4, 24, 128, 512])
def test_a_window_fills_the_context(context: int) -> None:
    length = window_length(context)
    long = [n - counts_of(n)[0] + counts_of(n)[1] + 1 for n in (length, length + 1)]
    assert long[0] <= context < long[1]


def test_published_window_of_512_tokens() -> None:
    """The published code reads 568 tokens for a source of 512, whose target has 114 (its T5 pre-training settings)."""
    assert window_length(512) == 568
    assert sum(counts_of(568)) + 1 == 114


@pytest.mark.parametrize(
    ("length", "share", "mean"), [(40, 0.15, 3.0), (41, 0.5, 2.0), (7, 0.9, 1.0), (2, 0.15, 3.0), (30, 0.3, 9.0)]
)
def test_masks_have_their_counts_and_begin_with_what_is_left(length: int, share: float, mean: float) -> None:
    noise, number = counts_of(length, share, mean)
    masks = span_masks(np.random.default_rng(0), 200, length, noise, number)
    assert (masks.sum(1) == noise).all()
    assert not masks[:, 0].any()
    assert masks[:, -1].all()  # as in the published code: left, cut out, left, cut out
    begins = masks & ~np.pad(masks, ((0, 0), (1, 0)))[:, :-1]
    assert (begins.sum(1) == number).all()


def test_all_divisions_are_equally_likely() -> None:
    """6 tokens cut out of 9 in 3 spans: 10 divisions of what is cut out, 1 of what is left."""
    masks = span_masks(np.random.default_rng(0), 20_000, 9, 6, 3)
    seen = Counter(tuple(row.tolist()) for row in masks)
    assert len(seen) == 10
    expected = 2000
    chi = sum((n - expected) ** 2 / expected for n in seen.values())
    assert chi < 27.9  # 0.1 % of a chi-square of 9


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("count", [3, 19, 20, 100, 101])
def test_source_and_target_make_the_text_again(count: int, split: str) -> None:
    d = span_data(count)
    assert d.first == 9
    d.first = 5000  # sentinels above the tokens
    seen: Counter[int] = Counter()
    steps = -(-d.size(split) // d.batch)
    for batch in itertools.islice(d.batches(split), steps):
        for source, target in zip(batch["source"].tolist(), batch["target"].tolist(), strict=True):
            assert source[-1] == END
            assert target[0] == START
            assert target[-1] == END
            text = restored(source[:-1], target[1:-1], 5000)
            assert all((b - a) % count == 1 % count for a, b in itertools.pairwise(text))  # in order, round the end
            seen.update(text)
        assert batch["source_lengths"].tolist() == [batch["source"].shape[1]] * len(batch["source"])
    assert set(seen) == set(range(1000, 1000 + count)), "nothing is lost"


def test_batches_are_a_function_of_seed_and_number() -> None:
    whole = list(itertools.islice(span_data(205).batches("train"), 12))
    later = list(itertools.islice(span_data(205).batches("train", start=5), 7))
    for a, b in zip(whole[5:], later, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    other = next(span_data(205, seed=2).batches("train"))
    assert not torch.equal(other["source"], whole[0]["source"])
    epochs = [torch.cat([b["source"] for b in whole[n : n + 4]]).flatten() for n in (0, 4)]
    assert not torch.equal(epochs[0].sort().values, epochs[1].sort().values)  # other cuts, other gaps


def test_parts_of_a_batch_are_the_batch() -> None:
    for split in ("train", "val"):
        whole = next(span_data(205, batch=4).batches(split))
        parts = [next(span_data(205, batch=4).batches(split, part=(rank, 2))) for rank in range(2)]
        for name in whole:
            assert torch.equal(torch.cat([p[name] for p in parts]), whole[name]), name


def test_a_corpus_becomes_windows_with_gaps() -> None:
    d = spans([WORDS] * 3, batch=4, context=24, vocab="word", vocab_size=1000, sentinels=6, seed=1)
    batch = next(d.batches("train"))
    assert batch["source"].shape == (4, 24)
    spec = d.spec
    assert isinstance(spec, SpanSpec)
    assert spec.vocabulary.specials[-6:] == sentinel_names(6)
    (row,) = d.raw("val", [0])
    assert "<x0>" in row["source"]
    assert row["target"].startswith("<x0>")
    again = spec.encode([row["source"]])["source"][0].tolist()
    assert again == next(d.batches("val"))["source"][0].tolist() or d.size("val") > 1


def test_raw_rows_encode_to_what_they_were() -> None:
    d = spans([WORDS * 3], batch=4, context=40, vocab="bpe", vocab_size=300, sentinels=6)
    assert isinstance(d.spec, SpanSpec)
    for row in d.raw("train", [0, 1, 2]):
        assert d.spec.gaps(row["source"])[0]
        assert d.spec.target_ids(row["target"])[1] == d.spec.sentinels[0]


def test_prompts() -> None:
    vocabulary = Vocabulary.train("bpe", ["the roof of the house is red and old " * 9], 330, extra=sentinel_names(3))
    spec = spec_of(vocabulary, context=32)
    x0, x1, _ = spec.sentinels
    ids = spec.source_ids("the <x0> of the house <x1> red")
    assert [i for i in ids if i in spec.sentinels] == [x0, x1]
    assert ids[-1] == END
    assert vocabulary.decode(ids[:-1], specials=True) == "the<x0> of the house<x1> red"  # a space belongs to what follows it
    assert spec.source_ids("the roof")[-1] == END
    assert spec.gaps("the roof") == ["the roof", ""]
    assert len(spec.source_ids("the roof " * 90)) == 32
    assert spec.too_long("the roof " * 90) > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("a <x1> b", "numbered"),
        ("a <x0> b <x2>", "numbered"),
        ("<x0> <x1> <x2> <x3>", "4 gaps"),
    ],
)
def test_bad_prompts(text: str, message: str) -> None:
    spec = spec_of(Vocabulary("byte", specials=(*Vocabulary("byte").specials, *sentinel_names(3))))
    with pytest.raises(DataError, match=message):
        spec.source_ids(text)


def test_too_few_sentinels() -> None:
    with pytest.raises(ConfigError, match=r"7 gaps.*sentinels=7"):
        spans([WORDS] * 3, batch=4, context=128, vocab="word", sentinels=2)
    with pytest.raises(DataError, match="no text"):
        spans(["a"], batch=4, context=128, vocab="char", sentinels=100)
