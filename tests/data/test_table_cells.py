"""What cells of files mean: thousands, true and false, words for nothing. The same in training and in use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from engram.core.errors import DataError
from engram.data.sniff import sniff
from engram.data.tables import TableSpec, table

torch.set_num_threads(1)
N = 120
RNG = np.random.default_rng(0)
X = RNG.normal(size=N).round(3)
FLOATS = [str(x) for x in X]  # with decimal points
COMMAS = [f"{x:.2f}".replace(".", ",") for x in X]


def write(path: Path, sep: str = ",", **columns: Any) -> Path:
    lines = [sep.join(columns), *(sep.join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def texts(data: Any) -> str:
    return "\n".join(note.text for note in data.summary.notes)


def labelled(data: Any, path: Path, rows: int = 7) -> dict[str, torch.Tensor]:
    """A file as `eval` reads it, chunk by chunk."""
    batches = list(data.spec.labelled(str(path), rows))
    return {key: torch.cat([b[key] for b in batches]) for key in batches[0]}


def as_eval_sees_it(data: Any, path: Path) -> dict[str, torch.Tensor]:
    """A file by `eval`, after a look that the training rows were encoded in the same way."""
    found = labelled(data, path)
    for key, tensor in found.items():
        trained = torch.cat([t[key] for t in data.splits.values()])
        assert sorted(tensor.flatten().tolist()) == sorted(trained.flatten().tolist()), key
    return found


def values(data: Any, name: str) -> list[float]:
    """A number column of all rows as the training saw it."""
    return sorted(row[name] for split in data.splits for row in data.raw(split, list(range(data.size(split)))))


# Thousands


@pytest.mark.parametrize(
    ("fields", "decimal"),
    [
        (["1,200", "950", "2,300"], "."),
        (["1,200", "1,5"], ","),
        (["1,234,567", "12"], "."),
        (["1.234,5", "950"], ","),
        (["1,234.5", "950"], "."),
        (["1.234", "83.512", "0,5"], ","),
        (["0,125", "0,250"], ","),
        (["1,200", "1.5"], "."),
    ],
)
@pytest.mark.parametrize("sep", ["\t", ";", "|"])
def test_fields_that_may_be_thousands_do_not_decide_the_decimal_mark(fields: list[str], decimal: str, sep: str) -> None:
    text = f"a{sep}b\n" + "".join(f"{field}{sep}x\n" for field in fields)
    assert sniff(text.encode(), "x.csv").decimal == decimal


@pytest.mark.parametrize("sep", ["\t", ";", "|"])
def test_american_thousands(tmp_path: Path, sep: str) -> None:
    amounts = [(i * 37) % 2400 + 7 for i in range(N)]
    path = write(
        tmp_path / "x.csv",
        sep,
        size=[f"{a:,}" for a in amounts],
        x=FLOATS,
        y=[f"{a * 2 + i % 9:,}" for i, a in enumerate(amounts)],
    )
    data = table(path, target="y")
    assert values(data, "size") == sorted(amounts)
    assert "read as the number 1" in texts(data)
    as_eval_sees_it(data, path)


def test_german_thousands(tmp_path: Path) -> None:
    amounts = [(i * 7919) % 90_000 + 7 for i in range(N)]
    dotted = [f"{a:,}".replace(",", ".") for a in amounts]
    path = write(
        tmp_path / "x.csv", ";", size=dotted, euro=[f"{d} €" for d in dotted], x=COMMAS, y=[f"{d},50" for d in reversed(dotted)]
    )
    data = table(path, target="y")
    assert values(data, "size") == values(data, "euro") == sorted(amounts)
    assert values(data, "y") == sorted(a + 0.5 for a in amounts)
    assert "decimal comma" in texts(data)
    assert "column 'size': '7.926' is read as 7926" in texts(data)
    as_eval_sees_it(data, path)


def test_three_digits_behind_a_decimal_comma_beside_words(tmp_path: Path) -> None:
    """Words keep pandas from reading the column; its cells are no thousands all the same."""
    cells = [f"{i / 8:.3f}".replace(".", ",") for i in range(N)]
    cells[5] = cells[50] = "k.A."
    path = write(tmp_path / "x.csv", ";", x=cells, z=COMMAS, y=["a", "b"] * (N // 2))
    data = table(path, target="y")
    want = data.spec.encode({"x": [119 / 8, 1 / 8, None], "z": [float(COMMAS[i].replace(",", ".")) for i in (119, 1, 5)]})[
        "numeric"
    ]
    assert torch.equal(labelled(data, path)["numeric"][[119, 1, 5]], want)
    as_eval_sees_it(data, path)


def test_points_that_are_no_thousands_stay_points(tmp_path: Path) -> None:
    cells = [f"{i / 8:.3f}" for i in range(N)]
    data = table(write(tmp_path / "x.csv", ";", x=cells, z=COMMAS, y=["a", "b"] * (N // 2)), target="y")
    assert values(data, "x") == [i / 8 for i in range(N)]


def test_a_new_file_has_the_decimal_mark_of_the_training_file(tmp_path: Path) -> None:
    data = table(
        write(tmp_path / "x.csv", ";", x=[f"{i},125" for i in range(N)], z=COMMAS, y=["a", "b"] * (N // 2)), target="y"
    )
    new = write(tmp_path / "new.csv", ";", x=["7,125"], z=["1"])
    assert torch.equal(data.spec.encode(str(new))["numeric"], data.spec.encode({"x": 7.125, "z": 1})["numeric"])


# Types that pandas finds in whole files


@pytest.mark.parametrize("truth", [("TRUE", "FALSE"), ("true", "false"), ("True", "False")])
def test_true_and_false_are_classes_however_they_are_written(tmp_path: Path, truth: tuple[str, str]) -> None:
    path = write(tmp_path / "x.csv", x=FLOATS, y=[truth[i % 3 == 0] for i in range(N)])
    data = table(path, target="y", test=write(tmp_path / "test.csv", x=FLOATS[:20], y=[truth[i % 2] for i in range(20)]))
    assert data.spec.classes == ("False", "True")
    assert data.splits["test"]["y"].tolist() == [1, 0] * 10
    assert labelled(data, path)["y"].tolist() == [int(i % 3 != 0) for i in range(N)]


@pytest.mark.parametrize("flag", ["TRUE", "true", "1.50", "01", "x"])
def test_one_value_or_nothing(tmp_path: Path, flag: str) -> None:
    cells = [flag if i % 3 else "" for i in range(N)]
    path = write(tmp_path / "x.csv", flag=cells, x=FLOATS, y=["a", "b"] * (N // 2))
    data = table(path, target="y", test=path)
    assert data.splits["test"]["categorical"].flatten().tolist() == [int(i % 3 > 0) for i in range(N)]
    assert labelled(data, path)["categorical"].flatten().tolist() == [int(i % 3 > 0) for i in range(N)]
    assert "exact copies" in texts(data)


def test_codes_of_an_own_test_file_stay_text(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.csv", code=[("01", "02", "A1")[i % 7 % 3] for i in range(N)], x=FLOATS, y=["7", "08", "B"] * (N // 3)
    )
    test = write(tmp_path / "test.csv", code=["01", "02"] * 10, x=FLOATS[:20], y=["08", "7"] * 10)
    data = table(path, target="y", test=test)
    assert data.splits["test"]["categorical"].flatten().tolist() == [1, 2] * 10
    assert [data.spec.classes[k] for k in data.splits["test"]["y"][:2]] == ["08", "7"]


def test_spaces_around_the_names_of_columns_change_nothing(tmp_path: Path) -> None:
    columns = {"code ": [("01", "02", "A1")[i % 7 % 3] for i in range(N)], " x ": FLOATS, "y ": ["None", "a", "b"] * (N // 3)}
    path = write(tmp_path / "x.csv", **columns)
    test = write(tmp_path / "test.csv", **{"code ": ["01", "02"] * 10, " x ": FLOATS[:20], "y ": ["None", "a"] * 10})
    data = table(path, target="y", test=test)
    for batch in (data.splits["test"], labelled(data, test)):
        assert batch["categorical"].flatten().tolist() == [1, 2] * 10
        assert batch["y"].tolist() == [0, 1] * 10


# Words for nothing


@pytest.mark.parametrize("word", ["unknown", "-", "none", "missing", "NA"])
def test_words_for_nothing_among_few_whole_numbers(tmp_path: Path, word: str) -> None:
    path = write(tmp_path / "x.csv", x=FLOATS, y=[("0", "1", word)[i % 3] for i in range(N)])
    data = table(path, target="y", test=path)
    assert data.spec.classes == ("0", "1")
    assert sum(data.summary.rows.values()) == N // 3 * 4
    assert f"40 rows without a target ('y') are left out{'' if word == 'NA' else f'; taken as missing: {word!r}'}" in texts(
        data
    )
    assert labelled(data, path)["y"].tolist() == [0, 1] * (N // 3)


def test_words_for_nothing_among_amounts(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", x=FLOATS, y=[str(i / 4) if i % 3 else "unknown" for i in range(N)])
    data = table(path, target="y")
    assert sum(data.summary.rows.values()) == N // 3 * 2
    assert "40 rows without a target ('y') are left out; taken as missing: 'unknown'" in texts(data)
    as_eval_sees_it(data, path)


def test_another_word_among_whole_numbers_is_a_class(tmp_path: Path) -> None:
    cells = [str(i % 15) for i in range(N - 4)] + ["withdrawn"] * 4
    data = table(write(tmp_path / "x.csv", x=FLOATS, y=cells), target="y")
    assert "withdrawn" in data.spec.classes


def test_none_is_a_class_among_words(tmp_path: Path) -> None:
    cells = [("None", "Insomnia", "None", "Apnea", "NA", "null")[i % 6] for i in range(N)]
    path = write(tmp_path / "x.csv", x=FLOATS, y=cells)
    data = table(path, target="y", test=path)
    assert data.spec.classes == ("Apnea", "Insomnia", "None")
    assert "40 rows without a target ('y') are left out; taken as missing: 'NA', 'null'" in texts(data)
    want = [data.spec.classes.index(c) for c in cells if c not in ("NA", "null")]
    assert data.splits["test"]["y"].tolist() == labelled(data, path)["y"].tolist() == want


@pytest.mark.parametrize("others", [("1", "0"), ("True", "False"), ("0.5", "1.5")])
def test_none_is_missing_beside_numbers_and_truths(tmp_path: Path, others: tuple[str, str]) -> None:
    path = write(tmp_path / "x.csv", x=FLOATS, y=[(*others, "None")[i % 3] for i in range(N)])
    data = table(path, target="y")
    assert "None" not in data.spec.classes
    assert len(labelled(data, path)["y"]) == N // 3 * 2


def test_words_in_a_number_column_are_missing_in_use_too(tmp_path: Path) -> None:
    cells = [f"{i / 4}" for i in range(N)]
    cells[3], cells[50] = "broken", "oops"
    path = write(tmp_path / "x.csv", x=cells, z=FLOATS, y=["a", "b"] * (N // 2))
    data = table(path, target="y")
    assert data.spec.loose == ("x",)
    found = as_eval_sees_it(data, path)["numeric"]
    assert torch.equal(found[3, :2], data.spec.encode({"x": None, "z": 1})["numeric"][0, :2])
    with pytest.raises(DataError, match="row 1: column 'z' is 'broken', not a number"):
        data.spec.encode({"x": 1.0, "z": "broken"})


def test_infinities_that_were_allowed_are_missing_in_use_too(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", x=["inf", *FLOATS[1:]], z=FLOATS, y=["a", "b"] * (N // 2))
    data = table(path, target="y", allow=["infinite"])
    assert data.spec.loose == ("x",)
    as_eval_sees_it(data, path)


def test_runs_from_before_these_fields(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": X, "y": ["a", "b"] * (N // 2)})
    spec = table(frame).spec
    saved = {k: v for k, v in json.loads(json.dumps(spec.to_json())).items() if k not in ("loose", "decimal")}
    assert TableSpec.from_json(saved) == spec
