"""Every guard stops what it should, lets clean data through, and yields to its knob."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from engram.core.errors import ConfigError, DataError
from engram.data import checks

RNG = np.random.default_rng(0)
LABELS = pd.Series(["red", "green", "blue"] * 20, name="y")
AMOUNT = pd.Series(RNG.normal(size=60), name="price")


def test_unknown_word_in_allow() -> None:
    checks.check_allow(["leak", "tiny"])
    with pytest.raises(ConfigError, match=r"allow=leaks .*did you mean leak\?"):
        checks.check_allow(["leaks"])


@pytest.mark.parametrize(
    ("rows", "allow", "message"), [(9, (), "only 9 usable rows.*allow=tiny"), (2, ("tiny",), "at least 3")]
)
def test_too_few_rows(rows: int, allow: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        checks.check_size(rows, "x.csv", allow)


def test_few_rows_are_said() -> None:
    assert [n.level for n in checks.check_size(5, "x.csv", ["tiny"])] == ["warning"]
    assert "rough guesses" in checks.check_size(99, "x.csv")[0].text
    assert checks.check_size(100, "x.csv") == []


def test_one_class() -> None:
    assert checks.check_classes(["b", "a", "b"], "y") == {"a": 1, "b": 2}
    with pytest.raises(DataError, match="one class only \\('a' in all 3 rows\\)"):
        checks.check_classes(["a", "a", "a"], "the target 'y'")


def test_constant_number() -> None:
    checks.check_varies(np.array([1.0, 2.0]), "y")
    with pytest.raises(DataError, match=r"the target 'y' is 2\.5 in every row"):
        checks.check_varies(np.full(5, 2.5), "the target 'y'")


def test_infinite_numbers() -> None:
    values = np.array([1.0, np.nan, np.inf, -np.inf])
    assert checks.check_finite(values[:2], "column 'a'") == []
    with pytest.raises(DataError, match=r"column 'a' holds 2 infinite numbers \(first in data row 3\).*allow=infinite"):
        checks.check_finite(values, "column 'a'")
    with pytest.raises(DataError, match="first in data row 31"):
        checks.check_finite(values, "column 'a'", index=[0, 10, 30, 40])
    (note,) = checks.check_finite(values, "column 'a'", ["infinite"])
    assert "2 infinite" in note.text


@pytest.mark.parametrize(
    ("column", "target", "how"),
    [
        (LABELS, LABELS, "is a copy of"),
        (LABELS.map({"red": "r", "green": "g", "blue": "b"}), LABELS, "is a 1:1 renaming of"),
        (LABELS.map({"red": 7, "green": 1, "blue": 2}), LABELS, "is a 1:1 renaming of"),
        (pd.Series([True, False] * 30), pd.Series(["yes", "no"] * 30, name="y"), "is a 1:1 renaming of"),
        (AMOUNT, AMOUNT, "is a copy of"),
        (AMOUNT * 1.19 + 5, AMOUNT, "is a straight-line function of"),
        ((AMOUNT * 1e4).round(1), AMOUNT, "is a straight-line function of"),
        (-0.001 * AMOUNT, AMOUNT, "is a straight-line function of"),
        ((AMOUNT * 100).where(AMOUNT > -1), AMOUNT, "is a straight-line function of"),
    ],
)
def test_leaks(column: pd.Series, target: pd.Series, how: str) -> None:
    inputs = pd.DataFrame({"noise": RNG.normal(size=60), "spy": column.to_numpy()})
    with pytest.raises(DataError, match=f"input column 'spy' {how} the target '{target.name}'.*drop=spy.*allow=leak"):
        checks.check_leaks(inputs, target)
    (note,) = checks.check_leaks(inputs, target, ["leak"])
    assert note.level == "warning"
    assert "'spy'" in note.text


@pytest.mark.parametrize(
    ("column", "target"),
    [
        (AMOUNT + 1e-3 * RNG.normal(size=60), AMOUNT),  # nearly, not exactly
        (AMOUNT**3, AMOUNT),
        (pd.Series(["a", "b", "c"] * 19 + ["a", "b", "a"]), LABELS),  # one row differs
        (pd.Series([1, 2, 2] * 20), LABELS),  # coarser than the target
        (pd.Series(range(60)), LABELS),  # finer than the target
        (pd.Series([f"n{i}" for i in range(60)]), AMOUNT),  # both differ in every row
        (pd.Series([f"n{i}" for i in range(60)]), pd.Series([f"m{i}" for i in range(60)], name="y")),
        (AMOUNT.where(AMOUNT > 1), AMOUNT),  # nearly empty
        (pd.Series(np.tile(RNG.normal(size=30), 2)), pd.Series(np.tile(RNG.normal(size=30), 2), name="y")),  # every row twice
        (pd.Series([f"n{i % 30}" for i in range(60)]), pd.Series(np.tile(RNG.normal(size=30), 2), name="y")),
    ],
)
def test_what_is_no_leak(column: pd.Series, target: pd.Series) -> None:
    assert checks.check_leaks(pd.DataFrame({"x": column}), target) == []


def test_balance() -> None:
    assert checks.balance_notes({"a": 50, "b": 50, "c": 60}) == []
    (note,) = checks.balance_notes({"a": 75, "b": 25})
    assert note.level == "info"
    assert "75.0% of the rows are 'a', so always guessing it is already 75.0% accurate" in note.text
    assert checks.balance_notes({"a": 95, "b": 5})[0].level == "warning"


def test_sorted_rows() -> None:
    assert "sorted by class; shuffled before splitting" in checks.order_notes(["b"] * 3 + ["a"] * 3 + ["c"])[0].text
    assert checks.order_notes(["a", "b", "a", "b"]) == []
    assert checks.order_notes(["a", "b", "c"]) == []  # every class once: no order to speak of


def test_classes_of_own_files() -> None:
    assert checks.check_same_classes(["a", "b"], ["b"], "val") == []
    with pytest.raises(DataError, match="val rows have none of the classes in train"):
        checks.check_same_classes(["a", "b"], ["c", "d"], "val")
    (note,) = checks.check_same_classes(["a", "b"], ["b", "c"], "test")
    assert note.level == "warning"
    assert "c are in test but not in train" in note.text


def test_second_header() -> None:
    good = pd.DataFrame({"price": ["?", "1", "2", "3", "4", "5"], "city": list("abcdef")})
    checks.check_headers(good, "x.csv")
    units = good.assign(price=["EUR", "1", "2", "3", "4", "5"])
    with pytest.raises(DataError, match=r"line 2 of x.csv looks like a second header: column 'price' holds 'EUR' there"):
        checks.check_headers(units, "x.csv")
    two = good.assign(price=["EUR", "net", "2", "3", "4", "5"]).loc[[0, 1, 2, 3, 4, 5, 5, 5]].reset_index(drop=True)
    with pytest.raises(DataError, match=r"lines 2 to 3"):
        checks.check_headers(two, "x.csv")
    checks.check_headers(good.assign(price=["1", "2", "EUR", "3", "4", "5"]), "x.csv")  # a word further down is no header


def test_repeated_header() -> None:
    frame = pd.DataFrame({"price": ["1", "2", "price", "3"], "city": ["a", "b", "city", "c"]})
    with pytest.raises(DataError, match=r"line 4 of x.csv repeats the column names"):
        checks.check_headers(frame, "x.csv")
