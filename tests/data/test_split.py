"""Splits cover every row once, are stratified and repeatable; duplicates across splits are found."""

from __future__ import annotations

import numpy as np
import pytest

from engram.core.errors import ConfigError
from engram.data.split import duplicates_across, split_rows


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("n", [3, 10, 11, 97, 1000])
def test_every_row_is_in_one_split(n: int, labels: bool) -> None:
    parts = split_rows(n, np.arange(n) % 3 if labels else None)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(n))
    assert list(parts) == ["train", "val", "test"]
    wanted = max(round(n * 0.1), 1)
    assert (len(parts["val"]), len(parts["test"])) == (wanted, wanted)


def test_same_arguments_same_split_and_another_seed_another() -> None:
    labels = np.repeat(["a", "b"], 50)
    first, again, other = (split_rows(100, labels, seed=s) for s in (0, 0, 1))
    assert all(np.array_equal(first[s], again[s]) for s in first)
    assert not np.array_equal(np.sort(first["val"]), np.sort(other["val"]))
    # Written down, so that a new version of a dependency cannot move rows from one split to another unnoticed.
    assert split_rows(10, seed=0)["val"].tolist() == [5]
    assert split_rows(20, np.arange(20) % 2, seed=3)["test"].tolist() == [4, 7]


def test_rows_are_shuffled() -> None:
    train = split_rows(1000)["train"]
    assert not np.array_equal(train, np.sort(train))
    assert abs(np.corrcoef(np.arange(len(train)), train)[0, 1]) < 0.1


def test_classes_keep_their_share() -> None:
    labels = np.repeat(["common", "middle", "rare"], [700, 250, 50])
    parts = split_rows(1000, labels)
    for split, total in (("train", 800), ("val", 100), ("test", 100)):
        counts = {name: int((labels[parts[split]] == name).sum()) for name in ("common", "middle", "rare")}
        assert counts == {"common": total * 70 // 100, "middle": total * 25 // 100, "rare": total * 5 // 100}


@pytest.mark.parametrize("seed", range(5))
def test_rare_classes_are_always_learned(seed: int) -> None:
    labels = np.array(["a"] * 60 + ["b"] * 37 + ["two"] * 2 + ["one"])
    parts = split_rows(100, labels, seed=seed)
    assert set(labels[parts["train"]]) == {"a", "b", "two", "one"}
    assert (len(parts["val"]), len(parts["test"])) == (10, 10)


def test_many_classes_of_two_rows() -> None:
    labels = np.repeat(np.arange(50), 2)
    parts = split_rows(100, labels)
    assert (len(parts["val"]), len(parts["test"])) == (10, 10)
    assert set(labels[parts["train"]]) == set(range(50))


def test_classes_of_one_row_still_fill_the_splits() -> None:
    parts = split_rows(20, np.arange(20))
    assert [len(p) for p in parts.values()] == [16, 2, 2]
    assert sorted(np.concatenate(list(parts.values()))) == list(range(20))


def test_shares_of_zero_give_empty_splits() -> None:
    parts = split_rows(50, fractions=(0.9, 0.1, 0.0))
    assert [len(p) for p in parts.values()] == [45, 5, 0]
    assert [len(p) for p in split_rows(50, np.zeros(50), fractions=(1, 0, 0)).values()] == [50, 0, 0]


@pytest.mark.parametrize("fractions", [(0.8, 0.1), (0.8, 0.1, 0.2), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1)])
def test_shares_that_make_no_sense(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="sum to 1"):
        split_rows(10, fractions=fractions)


def test_duplicates_are_counted_and_shown() -> None:
    rng = np.random.default_rng(0)
    train = rng.normal(size=(50, 4))
    val, test = rng.normal(size=(10, 4)), rng.normal(size=(8, 4))
    test[3], test[5] = train[20], train[7]
    report = duplicates_across({"train": train, "val": val, "test": test})
    assert report.counts == {"val": 0, "test": 2}
    assert report.examples == (("test", 3, 20), ("test", 5, 7))
    (note,) = report.notes()
    assert note.level == "warning"
    assert "2 of 8 test rows (25.0%)" in note.text
    assert "test row 4 = train row 21" in note.text
    numbers = {"train": np.arange(100, 150), "test": np.arange(200, 208)}
    assert "test row 203 = train row 120" in report.notes(numbers)[0].text


def test_no_duplicates_no_note() -> None:
    rows = np.arange(40.0).reshape(20, 2)
    assert duplicates_across({"train": rows[:10], "val": rows[10:]}).notes() == []


def test_duplicates_of_bytes_and_signed_zero() -> None:
    assert duplicates_across({"train": [b"a", b"b"], "val": [b"b", b"c"]}).counts == {"val": 1}
    assert duplicates_across({"train": np.array([[0.0]]), "val": np.array([[-0.0]])}).counts == {"val": 1}


def test_examples_stay_few() -> None:
    rows = np.ones((100, 3))
    report = duplicates_across({"train": rows, "val": rows, "test": rows})
    assert report.counts == {"val": 100, "test": 100}
    assert len(report.examples) == 3
