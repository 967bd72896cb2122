"""Text as windows: what is counted, kept, and seen around a word; batches as a pure function of their number."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from engram.core.data import Note
from engram.core.errors import DataError
from engram.data.text_rows import Texts
from engram.data.windows import ROW, Windows
from engram.data.word_corpus import LONGEST, Corpus, read_corpus
from engram.data.word_spec import WordSpec


def corpus(tmp_path: Path, text: str, **options: int) -> Corpus:
    (tmp_path / "text.txt").write_text(text, "utf-8")
    return read_corpus(tmp_path / "text.txt", min_count=options.get("min_count", 1))


def windows(found: Corpus, **options: float) -> Windows:
    given = {"batch": 300, "window": 3, "sample": 0.0, "shared": 8, "holdout": 0.0, "seed": 1} | options
    return Windows(found, **given)  # type: ignore[arg-type]


def many(sentences: int = 400, words: int = 30) -> str:
    draw = np.random.default_rng(0)
    return "\n".join(" ".join(f"w{n}" for n in draw.integers(0, words, draw.integers(1, 12))) for _ in range(sentences))


def test_words_are_counted_and_rare_ones_left_out(tmp_path: Path) -> None:
    found = corpus(tmp_path, "The cat's hat.\nThe dog, the CAT'S\n\nrare\nthe end: 東京 東京\n", min_count=2)
    assert found.spec.words == ("the", "cat's", "東京")
    assert found.spec.counts == (4, 2, 2)
    assert found.tokens.tolist() == [0, 1, 0, 0, 1, 0, 2, 2]
    assert found.ends.tolist() == [2, 5, 8]
    assert found.raw == 12


def test_a_folder_is_read_in_order_and_a_long_line_is_cut(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("x " * (2 * LONGEST + 5), "utf-8")
    (tmp_path / "a.txt").write_text("y y\n", "utf-8")
    (tmp_path / "c.jpg").write_bytes(b"\xff\xfe")
    found = read_corpus(tmp_path, min_count=1)
    assert found.ends.tolist() == [2, 2 + LONGEST, 2 + 2 * LONGEST, 7 + 2 * LONGEST]


def test_bad_text_is_said_in_one_line(tmp_path: Path) -> None:
    cases = {"nothing.txt": (b"", "holds no words"), "one.txt": (b"a a a b", "set min_count lower"),
             "latin.txt": (b"ok\ncaf\xe9 x\n", "line 2: not UTF-8")}  # fmt: skip
    for name, (content, said) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=said):
            read_corpus(tmp_path / name, min_count=3)
    with pytest.raises(DataError, match=r"did you mean one.txt"):
        read_corpus(tmp_path / "oen.txt")
    with pytest.raises(DataError, match="not from list"):
        read_corpus([1])


def test_a_built_in_set_is_read_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_corpus("numbers", min_count=1)
    assert {"seven", "sieben", "hundred"} <= set(found.spec.words)
    with pytest.raises(DataError, match="mnist is a set of images"):
        read_corpus("mnist")
    with pytest.raises(DataError, match="did you mean wikitext2"):
        read_corpus("wikitxt2")
    monkeypatch.chdir(tmp_path)
    Path("numbers").write_text("a file of that name comes first", "utf-8")
    assert "file" in read_corpus("numbers", min_count=1).spec.words


def test_a_built_in_set_gives_its_training_part_and_its_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"train": [{"source": "one two", "target": "eins zwei"}], "test": [{"source": "secret", "target": "geheim"}]}
    texts = Texts("pairs", splits, "numbers", "", (Note("warning", "said"),))
    monkeypatch.setattr("engram.data.word_corpus.read_set", lambda name: texts)
    found = read_corpus("numbers", min_count=1)
    assert found.spec.words == ("one", "two", "eins", "zwei")
    assert found.ends.tolist() == [2, 4]
    assert Note("warning", "said") in found.notes


def seen_pairs(data: Windows) -> Counter[tuple[int, int]]:
    """The pairs of one epoch, read off the rows."""
    found: Counter[tuple[int, int]] = Counter()
    for number, batch in enumerate(data.batches("train")):
        if number == data.steps_per_epoch:
            return found
        for r, c in torch.nonzero(batch["left"] + batch["right"]).tolist():
            at = c + data.window
            near = [*range(at - int(batch["left"][r, c]), at), *range(at + 1, at + 1 + int(batch["right"][r, c]))]
            found.update((int(batch["words"][r, at]), int(batch["words"][r, j])) for j in near)
    raise AssertionError("training batches ended")


def test_an_epoch_sees_every_pair_within_reach_once(tmp_path: Path) -> None:
    found = corpus(tmp_path, many())
    expected: Counter[tuple[int, int]] = Counter()
    start = 0
    for end in found.ends.tolist():
        line = found.tokens[start:end].tolist()
        expected.update((line[i], line[j]) for i in range(len(line)) for j in (i - 1, i + 1) if 0 <= j < len(line))
        start = end
    assert seen_pairs(windows(found, window=1)) == expected  # with window 1 every reach is 1


def test_near_words_count_more_often(tmp_path: Path) -> None:
    found = corpus(tmp_path, ("a b c d e\n" * 2000))
    pairs = seen_pairs(windows(found, window=4, batch=2000))
    at = [found.spec.index[w] for w in "abcde"]
    shares = [pairs[at[0], at[d]] / 2000 for d in (1, 2, 3, 4)]
    assert shares == pytest.approx([1.0, 0.75, 0.5, 0.25], abs=0.04)  # the reach is drawn from 1 to 4


def test_frequent_words_are_dropped_as_word2vec_does(tmp_path: Path) -> None:
    found = corpus(tmp_path, "\n".join("the the the the the the the the the " + f"w{n % 50}" for n in range(4000)))
    data = windows(found, sample=1e-2, batch=5000)
    kept: Counter[int] = Counter()
    for _, batch in zip(range(data.steps_per_epoch), data.batches("train"), strict=False):
        inside = batch["words"][:, 3:-3][(batch["left"] + batch["right"]) > 0]
        kept.update(inside.tolist())
    share = 0.9
    assert kept[0] / 36000 == pytest.approx((1e-2 / share) ** 0.5 + 1e-2 / share, rel=0.15)


def test_noise_follows_the_counts(tmp_path: Path) -> None:
    data = windows(corpus(tmp_path, "\n".join(["a"] * 1600 + ["b b"] * 50)), shared=64, batch=2000)
    noise = torch.cat([b["noise"].flatten() for _, b in zip(range(20), data.batches("train"), strict=False)])
    expected = 1600**0.75 / (1600**0.75 + 100**0.75)
    assert (noise == 0).double().mean().item() == pytest.approx(expected, abs=0.02)


def test_batches_follow_from_their_number_and_parts_make_the_whole(tmp_path: Path) -> None:
    data = windows(corpus(tmp_path, many()), sample=1e-2)
    first = [b for _, b in zip(range(20), data.batches("train"), strict=False)]
    for start in (0, 7, data.steps_per_epoch + 1):
        again = next(data.batches("train", start=start))
        assert all(torch.equal(again[name], first[start][name]) for name in again)
    parts = [next(data.batches("train", start=3, part=(rank, 2))) for rank in (0, 1)]
    assert all(torch.equal(torch.cat([p[name] for p in parts]), first[3][name]) for name in first[3])
    other = next(windows(data.corpus, sample=1e-2, seed=2).batches("train"))
    assert other["words"].shape != first[0]["words"].shape or not torch.equal(other["words"], first[0]["words"])


def test_splits_share_no_sentence(tmp_path: Path) -> None:
    data = windows(corpus(tmp_path, many(4000)), holdout=0.2)
    held, trained = ({tuple(b) for b in data.blocks[s].tolist()} for s in ("val", "train"))
    assert held
    assert not held & trained
    assert data.size("val") + data.size("train") == len(data.corpus.tokens)
    assert next(data.batches("val"))["left"].shape[1] == ROW
    again = [torch.cat([b["noise"] for b in data.batches("val")]) for _ in range(2)]
    assert torch.equal(*again)


def test_spec_takes_words_and_lists_of_words() -> None:
    spec = WordSpec(words=("the", "cat"), counts=(2, 1))
    assert spec.encode("Cat")["words"].tolist() == [[1]]
    assert spec.encode(["the", ["cat", "the"]])["words"].tolist() == [[0, -1], [1, 0]]
    assert WordSpec.from_json(spec.to_json()) == spec
    for bad in ([], 3, [3], [[]], "cab"):
        with pytest.raises(DataError) as caught:
            spec.encode(bad)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="did you mean cat"):
        spec.encode("catt")
