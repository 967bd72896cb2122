"""Column kinds are found, and doubtful text is left as text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from engram.data.columns import date_parts, dates, find_columns, numbers, truths, words

N = 30
LETTERS = ["a", "b", "c"] * 10


def kind_of(cells: list | pd.Series, name: str = "x") -> str:
    """The kind of one column, or 'out' and why."""
    found, notes = find_columns(pd.DataFrame({name: cells, "other": LETTERS}))
    kinds = {c.name: c.kind for c in found}
    return kinds[name] if name in kinds else "out: " + next(n.text for n in notes if repr(name) in n.text)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (np.linspace(0, 1, N), "number"),
        (list(range(N)), "number"),
        ([float("nan")] + list(range(N - 1)), "number"),
        (pd.array([None, *range(N - 1)], dtype="Int64"), "number"),
        ([str(i) for i in range(N)], "number"),
        (["?", "n/a", "-"] + [str(i / 2) for i in range(N - 3)], "number"),
        ([f"{i},{i:03}" for i in range(1, N + 1)], "number"),
        ([f"{i}%" for i in range(N)], "number"),
        ([f"${i},000.50" for i in range(N)], "number"),
        ([f"{i}.{i:03},5" for i in range(1, N + 1)], "number"),
        (pd.to_timedelta(range(N), unit="h"), "number"),
        (LETTERS, "category"),
        (pd.Categorical(["x", "y", None] * 10), "category"),
        (["a", None, ""] * 10, "category"),
        ([1.5, None, None] * 10, "category"),  # filled or not is what it says
        (["1,5" if i % 2 else "1.5" for i in range(N)], "category"),  # two meanings of the comma
        (["12%" if i % 2 else "0.12" for i in range(N)], "category"),  # two units
        (["12.34.56", "1-2", "3"] * 10, "category"),
        ([True, False, True] * 10, "boolean"),
        ([True, None, False] * 10, "boolean"),
        (["Yes", "no", None] * 10, "boolean"),
        (["true", "FALSE", "False"] * 10, "category"),  # three spellings, and neither is sure
        (pd.date_range("2020-01-01", periods=N), "date"),
        ([f"2020-1-{i + 1}" for i in range(N)], "date"),
        ([f"2020-01-{i + 1:02} 12:30:00" for i in range(N)], "date"),
        ([f"{i + 1}.1.2020" for i in range(N)], "date"),
        ([f"1/{i + 1}/2020" for i in range(N)], "date"),
        (["2020-13-45"] * 15 + ["2020-99-01"] * 15, "category"),  # looks like dates, and is none
    ],
)
def test_kinds(cells: list, kind: str) -> None:
    assert kind_of(cells) == kind


@pytest.mark.parametrize(
    ("name", "cells", "why"),
    [
        ("x", [None] * N, "is empty"),
        ("x", ["", "  ", "?"] * 10, "is empty"),
        ("x", [7] * N, "is '7' in every row"),
        ("id", list(range(N)), "numbers the rows"),
        ("customer_id", list(range(100, 100 + N)), "numbers the rows"),
        ("Unnamed: 0", list(range(N)), "numbers the rows"),
        ("x", [f"row {i}" for i in range(N)], "differs in every row"),
        ("x", [f"name {i % 20}" for i in range(N)], "text with 20 different values in 30 rows"),
        ("x", [[1, 2]] * N, "holds lists"),
    ],
)
def test_columns_that_are_left_out(name: str, cells: list, why: str) -> None:
    assert why in kind_of(cells, name)


def test_numbers_called_id_that_repeat_are_kept() -> None:
    assert kind_of([1, 2, 3] * 10, "shop_id") == "number"
    assert kind_of(list(range(N)), "width") == "number"  # unique, and not called id


def test_missing_and_different_values_are_counted() -> None:
    (column, _), _ = find_columns(pd.DataFrame({"x": ["1", "?", "-", "2", "1"] * 6, "o": LETTERS}))
    assert (column.kind, column.missing) == ("number", 12)
    (column, _), _ = find_columns(pd.DataFrame({"x": ["u", "?", None, "v", "u"] * 6, "o": LETTERS}))
    assert (column.kind, column.missing, column.distinct) == ("category", 12, 2)


def test_a_few_words_among_numbers_are_missing_and_said() -> None:
    cells = [str(i) for i in range(28)] + ["broken", "oops"]
    found, notes = find_columns(pd.DataFrame({"x": cells, "o": LETTERS}))
    assert (found[0].kind, found[0].missing) == ("number", 2)
    assert [n.level for n in notes] == ["warning"]
    assert "2 of 30 cells are no numbers ('broken', 'oops')" in notes[0].text
    assert kind_of(["red"] * 18 + [str(i) for i in range(12)]) == "category"  # mostly words: text


def test_conversions_are_said() -> None:
    _, notes = find_columns(pd.DataFrame({"p": [f"${i},500" for i in range(1, N + 1)], "o": LETTERS}))
    assert "text such as '$1,500' read as the number 1500" in notes[0].text


@pytest.mark.parametrize(
    ("cells", "day_first", "said"),
    [
        ([f"{i + 1}/1/2020" for i in range(N)], True, "day first"),
        ([f"1/{i + 1}/2020" for i in range(N)], False, "month first"),
        ([f"{i % 12 + 1}.{i % 7 + 1}.2020" for i in range(N)], True, "day first"),
    ],
)
def test_order_of_day_and_month(cells: list[str], day_first: bool, said: str) -> None:
    found, notes = find_columns(pd.DataFrame({"x": cells, "o": LETTERS}))
    assert found[0].day_first is day_first
    assert said in notes[0].text
    assert dates(pd.Series(cells), day_first).iloc[4] == pd.Timestamp(
        f"2020-{cells[4].split('.')[1] if '.' in cells[4] else 1}-5"
    )


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1,234", 1234.0), ("-1,234.5", -1234.5), ("1.234,5", 1234.5), ("12%", 12.0), ("€ 3", 3.0), (" 7 ", 7.0),
        ("1e3", 1000.0), ("12,5", 12.5), ("", np.nan), ("N/A", np.nan), (None, np.nan), (5, 5.0),
    ],
)  # fmt: skip
def test_numbers(cell: object, value: float) -> None:
    values, bad = numbers(pd.Series([cell, "1"], dtype=object))
    np.testing.assert_equal(values, [value, 1.0])
    assert not bad.any()


@pytest.mark.parametrize("cell", ["abc", "1,23,4", "1.2.3", "12-", "$"])
def test_no_numbers(cell: str) -> None:
    values, bad = numbers(pd.Series([cell, "1"]))
    assert np.isnan(values[0])
    assert bad.tolist() == [True, False]


@pytest.mark.parametrize("dtype", [object, "str"])
def test_words(dtype: object) -> None:
    cells = pd.Series([" a ", "3.0", "3.5", "?", "", None, "-2.00"], dtype=dtype)
    assert words(cells).fillna("<none>").tolist() == ["a", "3", "3.5", "<none>", "<none>", "<none>", "-2"]


def test_words_of_numbers_and_booleans() -> None:
    assert words(pd.Series([1, 2])).tolist() == ["1", "2"]
    assert words(pd.Series([1.0, 2.5])).tolist() == ["1", "2.5"]
    assert words(pd.Series([True, False])).tolist() == ["True", "False"]


def test_truths() -> None:
    cells = pd.Series([True, "Yes", "n", 0, 1.0, None, "perhaps"], dtype=object)
    assert truths(cells).fillna("<none>").tolist() == ["true", "true", "false", "false", "true", "<none>", "<none>"]


def test_date_parts() -> None:
    parts = date_parts(dates(pd.Series(["2024-02-29 18:00", None, "not a date"]), False))
    assert [v[0] for v in parts.values()] == [2024, 2, 3, 18, 19782.75]
    assert all(np.isnan(v[1:]).all() for v in parts.values())
    zoned = pd.Series(pd.to_datetime(["2024-02-29 18:00"]).tz_localize("Asia/Tokyo"))
    assert date_parts(dates(zoned, False))["hour"][0] == 9  # in UTC
