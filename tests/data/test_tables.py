"""Tables from every kind of file, encoded the same in training and use; every bad input has its own message."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from engram.core.errors import ConfigError, DataError
from engram.data.tables import TableSpec, table

torch.set_num_threads(1)
RNG = np.random.default_rng(0)
N = 120


def homes(n: int = N) -> pd.DataFrame:
    """A table with every kind of column and a class and a number to predict."""
    rng = np.random.default_rng(1)
    area = rng.normal(100, 20, n).round(2)
    return pd.DataFrame(
        {
            "area": np.where(np.arange(n) % 10 == 3, np.nan, area),
            "city": rng.choice(["Zürich", "Bern", "Genève"], n),
            "garden": rng.choice([True, False], n),
            "sold": pd.date_range("2020-01-01", periods=n, freq="11D").strftime("%Y-%m-%d"),
            "price": (area * 10 + rng.normal(0, 5, n)).round(3),
            "size": np.where(area > 100, "large", "small"),
        }
    )


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def texts(data: Any) -> str:
    return "\n".join(note.text for note in data.summary.notes)


# Files


@pytest.mark.parametrize(
    ("encoding", "sep", "decimal", "says"),
    [
        ("utf-8", ",", ".", "CSV in utf-8, separated by comma"),
        ("utf-8-sig", ",", ".", "CSV in utf-8-sig, separated by comma"),
        ("utf-16", "\t", ".", "CSV in utf-16, separated by tab"),
        ("utf-16-le", ",", ".", "CSV in utf-16-le, separated by comma"),
        ("latin-1", ";", ".", "CSV in cp1252, separated by semicolon"),
        ("cp1252", "|", ".", "CSV in cp1252, separated by bar"),
        ("utf-8", ";", ",", "CSV in utf-8, separated by semicolon, decimal comma"),
        ("cp1252", "\t", ",", "CSV in cp1252, separated by tab, decimal comma"),
    ],
)
def test_csv_as_people_write_it(tmp_path: Path, encoding: str, sep: str, decimal: str, says: str) -> None:
    path = tmp_path / "homes.csv"
    path.write_bytes(homes().to_csv(index=False, sep=sep, decimal=decimal).encode(encoding))
    data, same = table(path, target="price"), table(homes(), target="price")
    assert data.summary.facts["format"] == says
    assert data.spec == dataclasses.replace(same.spec, decimal=decimal)
    for split in ("train", "val", "test"):
        for key, tensor in same.splits[split].items():
            assert torch.equal(data.splits[split][key], tensor), (split, key)
    assert ("not UTF-8" in texts(data)) == (encoding in ("latin-1", "cp1252"))


def test_latin_1_bytes_that_cp1252_has_not(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ("a,b,y\n" + "x\x81,1,u\nz,2,w\nz,3,u\nx\x81,4,w\n" * 10).encode("latin-1"))
    assert table(path).summary.facts["format"].startswith("CSV in latin-1")


def test_quotes_blank_lines_and_spaces(tmp_path: Path) -> None:
    rows = "".join(f'"Bern, {i % 3}", {i * 0.5} , "line\nbreak",{"ab"[i % 2]}\n\n' for i in range(20))
    data = table(write(tmp_path / "a.csv", " city , size,note, y \n" + rows), target="y")
    assert data.spec.columns == {"city": "category", "size": "number"}  # the note is the same everywhere
    assert data.spec.categories["city"] == ("Bern, 0", "Bern, 1", "Bern, 2")
    assert data.spec.classes == ("a", "b")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_parquet_and_json_lines(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"homes{suffix}"
    if suffix == ".parquet":
        homes().to_parquet(path)
    else:
        homes().to_json(path, orient="records", lines=True)
    data, same = table(path, target="size", drop=["price"]), table(homes(), target="size", drop=["price"])
    assert data.spec == same.spec
    assert torch.equal(data.splits["train"]["numeric"], same.splits["train"]["numeric"])


ROWS = "".join(f"{i},{i % 7},{'ab'[i % 2]}\n" for i in range(30))
GOOD = "a,b,y\n" + ROWS
BAD_FILES: dict[str, tuple[str, str | bytes, str]] = {
    "empty": ("x.csv", "", "x.csv is empty"),
    "only blank": ("x.csv", " \n\n", "x.csv is empty"),
    "header only": ("x.csv", "a,b,y\n", "column names and no rows"),
    "pickle by name": ("x.pkl", GOOD, "is a pickle, and opening one can run code"),
    "pickle by content": ("x.csv", pickle.dumps({"a": [1]}), "is a pickle, and opening one can run code"),
    "zip": ("x.csv", b"PK\x03\x04" + b"\0" * 50, "zip archive or an Excel workbook"),
    "gzip": ("x.csv", b"\x1f\x8b\x08" + b"\0" * 50, "compressed with gzip"),
    "png": ("x.csv", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "is an image"),
    "jpeg": ("x.csv", b"\xff\xd8\xff\xe0" + b"\0" * 50, "is an image"),
    "numpy": ("x.csv", b"\x93NUMPY\x01\0" + b"\0" * 50, "NumPy array"),
    "binary": ("x.csv", bytes(range(256)) * 4, "is a binary file"),
    "web page": ("x.csv", "<!DOCTYPE html><html></html>", "is a web page"),
    "saved sheet": ("x.xls", "<table><tr><td>1</td></tr></table>", "is a web page"),
    "title above": ("x.csv", "Sales of 2024\n" + GOOD, "first line of x.csv is one field and line 2 has 3"),
    "one column": ("x.csv", "y\n" + "a\nb\n" * 9, "no usable input column beside 'y': add a column"),
    "broken parquet": ("x.parquet", b"PAR1" + b"\1" * 100, "is damaged"),
    "json list": ("x.json", '[{"a": 1}]', "one JSON object per line"),
    "broken json": ("x.jsonl", '{"a": 1}\n{"a": \n', "line 2 of x.jsonl is not JSON"),
    "json number": ("x.jsonl", '{"a": 1}\n\n7\n', "line 3 of x.jsonl is not a JSON object"),
    "row too long": ("x.csv", GOOD + "1,2,a,4\n", "line 32 of x.csv has 4 fields and the header has 3"),
    "row too short": ("x.csv", GOOD + "1,2\n" + ROWS, "line 32 of x.csv has 2 fields and the header has 3"),
    "all rows too long": ("x.csv", GOOD.replace("\n", ",9\n").replace("y,9", "y"), "line 2 of x.csv has 4 fields"),
    "open quote": ("x.csv", GOOD + '1,"2,a\n' + ROWS, "quote that is not closed|has 2 fields"),
    "no header": ("x.csv", "5.1,3.5,a\n" + GOOD[6:], "first line of x.csv holds data .5.1, 3.5, a"),
    "same names": ("x.csv", GOOD.replace("a,b,y", "a,a,y"), "more than one column called 'a'"),
    "second header": ("x.csv", GOOD.replace("a,b,y\n", "a,b,y\ncm,kg,class\n"), "line 2 of x.csv looks like a second header"),
    "repeated header": ("x.csv", GOOD + GOOD, "line 32 of x.csv repeats the column names"),
    "few rows": ("x.csv", "a,y\n" + "1,a\n2,b\n" * 4, "only 8 usable rows"),
    "no input": ("x.csv", "k,y\n" + "1,a\n1,b\n" * 10, "no usable input column beside 'y'.*'k' is '1' in every row"),
    "target of one class": ("x.csv", GOOD.replace(",b\n", ",a\n"), "target 'y' .*in every row|one class only"),
    "empty target": ("x.csv", "a,b,y\n" + "1,2,\n3,4,\n" * 10, "target 'y' is empty in every row"),
    "leak": ("x.csv", "a,b,y\n" + "".join(f"{i % 5},{i % 2},{'pq'[i % 2]}\n" for i in range(30)), "'b' is a 1:1 renaming"),
    "infinite": (
        "x.csv",
        GOOD + "inf,1,a\n",
        "column 'a' of x.csv holds 1 infinite number .first in data row 31.*allow=infinite",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(tmp_path: Path, case: str) -> None:
    name, content, message = BAD_FILES[case]
    with pytest.raises(DataError, match=message) as caught:
        table(write(tmp_path / name, content))
    assert "\n" not in str(caught.value)


def test_the_good_file_is_good(tmp_path: Path) -> None:
    assert table(write(tmp_path / "x.csv", GOOD)).summary.rows == {"train": 24, "val": 3, "test": 3}


def test_missing_files(tmp_path: Path) -> None:
    write(tmp_path / "houses.csv", GOOD)
    with pytest.raises(DataError, match=r"no file house.csv in .* \(did you mean houses.csv\?\)"):
        table(tmp_path / "house.csv")
    with pytest.raises(DataError, match="no folder"):
        table(tmp_path / "nowhere" / "x.csv")
    with pytest.raises(DataError, match=r"is a folder.*it holds houses.csv"):
        table(tmp_path)
    with pytest.raises(DataError, match=r"neither a file nor a built-in data set \(did you mean iris\?\)"):
        table("iriss")


# Target


def test_target_is_chosen_and_said() -> None:
    frame = pd.DataFrame({"Label": ["a", "b"] * 15, "x": RNG.normal(size=30), "z": RNG.normal(size=30)})
    assert "predicting the column 'Label'" in texts(table(frame))
    data = table(frame.rename(columns={"Label": "first"}))
    assert data.spec.target == "z"
    assert "predicting 'z', the last column; for another, set target=" in texts(data)
    with pytest.raises(DataError, match=r"no column 'frist' \(did you mean first\?\)"):
        table(frame.rename(columns={"Label": "first"}), target="frist")


@pytest.mark.parametrize(
    ("cells", "problem", "classes"),
    [
        (["b", "a"] * 30, "classification", ("a", "b")),
        ([True, False] * 30, "classification", ("False", "True")),
        ([10, 2, 1] * 20, "classification", ("1", "2", "10")),
        ([1.0, 0.0, 1.0] * 20, "classification", ("0", "1")),
        (["3", "1"] * 30, "classification", ("1", "3")),
        (list(range(60)), "regression", ()),
        ([0.5, 1.5] * 30, "regression", ()),
        ([f"{i},500" for i in range(1, 61)], "regression", ()),
    ],
)
def test_class_or_number(cells: list, problem: str, classes: tuple[str, ...]) -> None:
    data = table(pd.DataFrame({"x": RNG.normal(size=60), "v": RNG.normal(size=60), "y": cells}))
    assert (data.spec.problem, data.spec.classes) == (problem, classes)
    assert f": {problem}" in texts(data)
    y = data.splits["train"]["y"]
    assert (y.dtype, y.shape) == ((torch.int64, (48,)) if classes else (torch.float32, (48, 1)))


def test_kind_overrules() -> None:
    frame = pd.DataFrame({"x": RNG.normal(size=60), "y": [1, 2, 3] * 20})
    assert table(frame, kind="regression").spec.problem == "regression"
    assert table(frame.assign(y=np.arange(60) % 25), kind="classification").spec.problem == "classification"
    with pytest.raises(DataError, match=r"not a number; leave out kind=regression"):
        table(frame.assign(y=["a", "b"] * 30), kind="regression")
    with pytest.raises(DataError, match=r"60 different values.*set kind=regression"):
        table(frame.assign(y=RNG.normal(size=60)), kind="classification")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([f"name {i}" for i in range(60)], "60 different texts in 60 rows"),
        (pd.date_range("2020-01-01", periods=60), "is a date"),
        ([4.0] * 60, "is 4 in every row"),
        (["a"] * 60, "one class only"),
        ([np.inf] + list(RNG.normal(size=59)), "target 'y' of DataFrame holds 1 infinite"),
    ],
)
def test_targets_that_cannot_be_learned(cells: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table(pd.DataFrame({"x": RNG.normal(size=60), "y": cells}))


def test_rows_without_a_target_are_left_out() -> None:
    frame = homes()
    frame.loc[[3, 50], "size"] = None
    data = table(frame, target="size", drop=["price"])
    assert sum(data.summary.rows.values()) == N - 2
    assert "2 rows without a target ('size') are left out" in texts(data)


# Splits


def test_splits_are_stratified_and_depend_on_the_seed() -> None:
    frame = pd.DataFrame({"x": RNG.normal(size=200), "y": ["a"] * 150 + ["b"] * 50})
    data, again, other = table(frame), table(frame), table(frame, seed=1)
    assert data.summary.facts["balance"] == {"train": {"a": 120, "b": 40}, "val": {"a": 15, "b": 5}, "test": {"a": 15, "b": 5}}
    assert data.summary.facts["majority"] == 0.75
    assert torch.equal(data.splits["val"]["numeric"], again.splits["val"]["numeric"])
    assert not torch.equal(data.splits["val"]["numeric"], other.splits["val"]["numeric"])
    assert "rows are sorted by class; shuffled" in texts(data)
    assert "always guessing it is already 75.0% accurate" in texts(data)


def test_fractions() -> None:
    assert table(homes(), target="price", fractions=(0.5, 0.5, 0)).summary.rows == {"train": 60, "val": 60}
    with pytest.raises(ConfigError, match="sum to 1"):
        table(homes(), fractions=(0.5, 0.1, 0.1))


def test_own_test_and_validation_files(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    homes(40).to_csv(path, index=False)
    data = table(homes(90), target="price", test=path)
    assert data.summary.rows == {"train": 80, "val": 10, "test": 40}
    both = table(homes(90), target="price", val=homes(30), test=path)
    assert both.summary.rows == {"train": 90, "val": 30, "test": 40}
    assert len({d.summary.sha256 for d in (data, both, table(homes(90), target="price"))}) == 3
    for absent in ("area", "price"):
        homes(40).drop(columns=absent).to_csv(path, index=False)
        with pytest.raises(DataError, match=rf"test.csv has no column '{absent}'"):
            table(homes(90), target="price", test=path)


def test_words_among_the_numbers_of_an_own_file() -> None:
    frame = homes(40).astype({"area": object})
    frame.loc[3, "area"] = "wide"
    assert "column 'area' of DataFrame: 1 cells are no numbers" in texts(table(homes(90), target="price", val=frame))


def test_own_files_with_other_classes() -> None:
    frame = homes().drop(columns="price")
    other = frame.assign(size="huge")
    with pytest.raises(DataError, match="val rows have none of the classes in train"):
        table(frame, target="size", val=other)
    partly = pd.concat([frame[:20], other[:5]])
    data = table(frame, target="size", val=partly)
    assert "huge are in val but not in train" in texts(data)
    assert (data.spec.classes, data.spec.class_counts[0]) == (("huge", "large", "small"), 0)


def test_duplicates_are_said_with_their_rows() -> None:
    frame = homes(60)
    data = table(pd.concat([frame, frame]), target="price")
    found = [n for n in data.summary.notes if "exact copies" in n.text]
    assert [n.level for n in found] == ["warning"]
    words = found[0].text.rpartition("e.g. ")[2].split(", ")[0].split()  # "val row 7 = train row 67"
    assert abs(int(words[2]) - int(words[-1])) == 60


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame(), "no rows or no columns"),
        (pd.DataFrame(index=range(20)), "no rows or no columns"),
        (pd.DataFrame(np.ones((20, 2)), columns=["a", "a"]), "more than one column called 'a'"),
        ("", "no data given"),
    ],
)
def test_sources_that_are_none(frame: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table(frame)


def test_frames_of_other_kinds() -> None:
    x = RNG.normal(size=60)
    frame = pd.DataFrame({"c": x + 1j, "p": pd.period_range("2020", periods=60, freq="M"), 7: x, "y": ["a", "b"] * 30})
    data = table(frame)
    assert data.spec.columns == {"7": "number"}
    assert "'c' holds values of type complex128 and is left out" in texts(data)
    assert "'p' holds values of type period[M] and is left out" in texts(data)
    two = pd.DataFrame(np.c_[x, x**2], columns=pd.MultiIndex.from_tuples([("a", "b"), ("c", "d")]))
    assert table(two).spec.target == "c d"
    numbered = pd.DataFrame(RNG.normal(size=(60, 3)))
    spec = table(numbered).spec
    assert torch.equal(spec.encode(numbered)["numeric"], spec.encode(numbered[[0, 1]].to_numpy())["numeric"])
    with pytest.raises(DataError, match="infinite"):
        table(pd.DataFrame({"a": x, "y": x * 1e300}))


# Knobs


def test_allow_and_drop() -> None:
    frame = homes().assign(spy=lambda f: f["size"].str[0])
    with pytest.raises(DataError, match=r"'spy' is a 1:1 renaming of the target 'size'.*drop=spy"):
        table(frame, target="size")
    assert "'spy' is a 1:1 renaming" in texts(table(frame, target="size", allow=["leak"]))
    assert "spy" not in table(frame, target="size", drop=["spy"]).spec.columns
    with pytest.raises(DataError, match=r"drop=spi.*did you mean spy"):
        table(frame, target="size", drop=["spi"])
    with pytest.raises(ConfigError, match="did you mean leak"):
        table(frame, target="size", allow=["leek"])
    assert sum(table(homes(6), target="price", allow=["tiny"]).summary.rows.values()) == 6
    endless = homes().assign(area=[np.inf] + [1.0, 2.0] * 59 + [3.0])
    mended = table(endless, target="price", allow=["infinite"])
    assert "1 infinite numbers are treated as missing" in texts(mended)
    assert all(batch["numeric"].isfinite().all() for batch in mended.splits.values())


# Encoding


@pytest.fixture(scope="module")
def data() -> Any:
    return table(homes(), target="price", drop=["size"])


def test_what_a_batch_holds(data: Any) -> None:
    spec = data.spec
    assert spec.columns == {"area": "number", "city": "category", "garden": "boolean", "sold": "date"}
    assert spec.numeric[:2] == ("area", "area is missing")
    assert "sold: month" in spec.numeric
    assert "sold: hour" not in spec.numeric  # always midnight
    assert spec.categories == {"city": ("Bern", "Genève", "Zürich"), "garden": ("false", "true")}
    assert spec.cardinalities == (4, 3)
    batch = next(data.batches("train"))
    assert set(batch) == {"numeric", "categorical", "y"}
    example = spec.example(5)
    for key, tensor in example.items():
        assert (tensor.shape[1:], tensor.dtype) == (batch[key].shape[1:], batch[key].dtype)
        assert len(tensor) == 5


def test_training_rows_are_standardised(data: Any) -> None:
    train = data.splits["train"]
    torch.testing.assert_close(train["numeric"].mean(0), torch.zeros(len(data.spec.numeric)), atol=1e-5, rtol=0)
    torch.testing.assert_close(train["numeric"].std(0, correction=0), torch.ones(len(data.spec.numeric)), atol=1e-5, rtol=0)
    assert abs(float(train["y"].mean())) < 1e-5
    assert data.splits["test"]["numeric"].mean(0).abs().max() > 1e-3  # figures come from train alone


def test_figures_come_from_training_rows_alone() -> None:
    frame = homes()
    changed = frame.copy()
    plain = table(frame, target="price", drop=["size"])
    area = frame["area"].to_numpy()
    held_out = [
        i for i, row in enumerate(area) if row in {r["area"] for r in plain.raw("test", list(range(plain.size("test"))))}
    ]
    assert held_out
    changed.loc[held_out, "area"] += 1000
    assert table(changed, target="price", drop=["size"]).spec == plain.spec


def test_bins_are_quantiles_of_the_batch(data: Any) -> None:
    column = data.splits["train"]["numeric"][:, 0].double().numpy()
    edges = np.array(data.spec.bins[0])
    assert 20 <= len(edges) <= 25  # the median, which fills missing cells, can be several edges in one
    assert (np.diff(edges) > 0).all()
    np.testing.assert_allclose([edges[0], edges[-1]], [column.min(), column.max()], rtol=1e-5)
    counts = np.histogram(column, edges.astype(np.float32))[0]
    assert counts.max() <= 2 * len(column) / 24 + 10
    assert len(data.spec.bins[1]) == 2  # missing or not


def test_missing_and_unknown_cells(data: Any) -> None:
    spec = data.spec
    row = {"area": None, "city": "Basel", "garden": None, "sold": "2020-05-01"}
    got = spec.encode([row, row | {"area": spec.median[0], "city": "Bern", "garden": "Yes"}])
    assert got["categorical"].tolist() == [[0, 0], [1, 2]]
    assert got["numeric"][0, 0] == got["numeric"][1, 0]  # the median
    assert got["numeric"][0, 1] > got["numeric"][1, 1]  # and said to be missing


def test_every_form_of_the_same_rows(data: Any, tmp_path: Path) -> None:
    spec, frame = data.spec, homes()[:4]
    want = spec.encode(frame)
    frame.to_csv(tmp_path / "new.csv", index=False)
    frame.to_parquet(tmp_path / "new.parquet")
    rows = frame.to_dict("records")
    forms = [
        frame.assign(more=1)[frame.columns[::-1]],
        frame.to_dict("list"),
        rows,
        [frame.iloc[i] for i in range(4)],
        frame[list(spec.columns)].to_numpy(),
        tmp_path / "new.csv",
        str(tmp_path / "new.parquet"),
    ]
    for form in forms:
        got = spec.encode(form)
        assert all(torch.equal(got[k], want[k]) for k in want), type(form)
    for form in (rows[0], frame.iloc[0]):
        assert all(torch.equal(v, want[k][:1]) for k, v in spec.encode(form).items())


def test_arrays_and_tensors_for_tables_of_numbers() -> None:
    frame = pd.DataFrame(RNG.normal(size=(50, 3)), columns=["a", "b", "c"]).assign(y=lambda f: f.a + f.b * RNG.normal(size=50))
    spec = table(frame).spec
    want = spec.encode(frame)["numeric"]
    values = frame[["a", "b", "c"]].to_numpy(copy=True)
    assert torch.equal(spec.encode(values)["numeric"], want)
    assert torch.equal(spec.encode(torch.from_numpy(values))["numeric"], want)
    assert torch.equal(spec.encode(values[0])["numeric"], want[:1])
    with pytest.raises(DataError, match="shape 50x4 is not rows of the 3 columns a, b, c"):
        spec.encode(frame.to_numpy())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"area": "wide"}, "row 2: column 'area' is 'wide', not a number"),
        ({"area": float("inf")}, "row 2: column 'area' is inf, far outside"),
        ({"sold": "yesterday"}, "row 2: column 'sold' is 'yesterday', not a date"),
    ],
)
def test_cells_of_the_wrong_kind(data: Any, change: dict, message: str) -> None:
    row = {"area": 1.0, "city": "Bern", "garden": True, "sold": "2020-01-01"}
    with pytest.raises(DataError, match=message):
        data.spec.encode([row, row | change])


def test_missing_columns(data: Any) -> None:
    with pytest.raises(DataError, match=r"no column 'area' \(is it Area\?\); it needs area, city, garden, sold"):
        data.spec.encode(homes().rename(columns={"area": "Area"}))
    with pytest.raises(DataError, match="no rows"):
        data.spec.encode(homes()[:0])


def test_raw_rows_encode_to_their_batch(data: Any) -> None:
    for split in ("train", "val"):
        raw = data.raw(split, [0, 2, 1])
        assert [type(row) for row in raw] == [dict] * 3
        json.dumps(raw)
        got = data.spec.encode(raw)
        assert all(torch.equal(got[k], data.splits[split][k][[0, 2, 1]]) for k in got)
        torch.testing.assert_close(data.spec.encode_target([r["price"] for r in raw]), data.splits[split]["y"][[0, 2, 1]])


def test_spec_survives_json(data: Any) -> None:
    again = TableSpec.from_json(json.loads(json.dumps(data.spec.to_json())))
    assert again == data.spec
    assert torch.equal(again.encode(homes())["numeric"], data.spec.encode(homes())["numeric"])


def test_targets_there_and_back(data: Any) -> None:
    prices = homes()["price"]
    np.testing.assert_allclose(data.spec.decode(data.spec.encode_target(prices)), prices, rtol=1e-5)
    spec = table(homes(), target="size", drop=["price"]).spec
    assert spec.encode_target(["small", "large", " small"]).tolist() == [1, 0, 1]
    assert spec.decode(torch.tensor([1, 0])) == ["small", "large"]
    with pytest.raises(DataError, match=r"'smal' is no class of 'size' \(did you mean small\?\)"):
        spec.encode_target(["smal"])
    with pytest.raises(DataError, match="row 2: the target 'price' is 'dear', not a number"):
        data.spec.encode_target([1, "dear"])


def test_heavy_tails_are_tamed() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"income": np.exp(rng.normal(0, 3, 2000)), "age": rng.normal(40, 10, 2000), "y": ["a", "b"] * 1000})
    data = table(frame)
    assert data.spec.tail[0] > 0
    assert data.spec.tail[1] == 0
    column = data.splits["train"]["numeric"][:, 0]
    assert column.abs().max() < 6
    rising = data.spec.encode({"income": [0.0, 1.0, 10.0, 1e3, 1e6], "age": [40] * 5})["numeric"][:, 0]
    assert (rising.diff() > 0).all()


def test_dates_feed_the_calendar(data: Any) -> None:
    spec = data.spec
    got = spec.encode({"area": [1, 1], "city": ["", ""], "garden": [1, 1], "sold": ["2020-03-02", "2021-03-02"]})["numeric"]
    at = {name: i for i, name in enumerate(spec.numeric)}
    value = {n: got[:, i] * spec.std[i] + spec.mean[i] for n, i in at.items()}
    torch.testing.assert_close(value["sold: year"], torch.tensor([2020.0, 2021.0]))
    torch.testing.assert_close(value["sold: month"], torch.tensor([3.0, 3.0]))
    torch.testing.assert_close(value["sold: day of week"], torch.tensor([0.0, 1.0]))
    assert round(float(value["sold: days since 1970"].diff())) == 365


def test_most_frequent_categories_are_kept() -> None:
    names = [f"c{i}" for i in range(300)]
    frame = pd.DataFrame({"c": (names * 4)[:1000] + names[:300] * 10, "x": RNG.normal(size=4000), "y": ["a", "b"] * 2000})
    assert table(frame).spec.cardinalities == (257,)


# Streams


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "stdin csv", "stdin jsonl", "frame", "list"])
def test_reading_in_chunks(data: Any, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = homes(50)
    path: Any = tmp_path / f"x.{form.split()[-1]}"
    text = frame.to_csv(index=False) if form.endswith("csv") else frame.to_json(orient="records", lines=True)
    assert text is not None
    if form == "parquet":
        frame.to_parquet(path)
    elif form in ("frame", "list"):
        path = frame if form == "frame" else frame.to_dict("records")
    elif form.startswith("stdin"):
        path = "-"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    else:
        path.write_text(text)
    chunks = list(data.spec.read(path, 20))
    assert [len(names) for names, _ in chunks] == [20, 20, 10]
    assert [n for names, _ in chunks for n in names] == [str(i + 1) for i in range(50)]
    got = torch.cat([data.spec.encode(raw)["numeric"] for _, raw in chunks])
    assert torch.equal(got, data.spec.encode(frame)["numeric"])


def test_long_streams_are_not_held_whole(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of standard input is still unread when the first chunk is there."""
    body = io.BytesIO(
        (homes(20).to_csv(index=False) + "".join("99,Bern,True,2020-01-01,5,small\n" for _ in range(200_000))).encode()
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(body))
    names, _ = next(iter(data.spec.read("-", 16)))
    assert len(names) == 16
    assert body.tell() < len(body.getvalue()) / 4


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_long_streams_come_whole(data: Any, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "{},Bern,True,2020-01-01\n" if form == "csv" else '{{"area": {}, "city": "Bern", "garden": true, "sold": ""}}\n'
    text = "area,city,garden,sold\n" * (form == "csv") + "".join(line.format(i) for i in range(10_000))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert [cell for _, chunk in data.spec.read("-", 3000) for cell in chunk["area"]] == list(range(10_000))


def test_chunks_do_not_change_the_meaning_of_codes(tmp_path: Path) -> None:
    """'01' stays a word in a chunk where every cell looks like a number."""
    frame = pd.DataFrame(
        {"code": ["01", "02"] * 50 + ["A1", "B2"] * 50, "x": RNG.normal(size=200), "y": ["p", "q", "p", "r"] * 50}
    )
    path = tmp_path / "x.csv"
    frame.to_csv(path, index=False)
    data = table(path)
    assert data.spec.categories["code"] == ("01", "02", "A1", "B2")
    first = next(iter(data.spec.read(path, 10)))[1]
    assert data.spec.encode(first)["categorical"][:2].flatten().tolist() == [1, 2]


def test_errors_in_a_stream_name_the_row_of_the_stream(data: Any, tmp_path: Path) -> None:
    frame = homes(50).astype({"area": object})
    frame.loc[33, "area"] = "wide"
    for path in (tmp_path / "x.csv", tmp_path / "x.jsonl"):
        frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_json(path, orient="records", lines=True)
        with pytest.raises(DataError, match="row 34: column 'area' is 'wide'"):
            [data.spec.encode(raw) for _, raw in data.spec.read(path, 20)]
        with pytest.raises(DataError, match="row 34: column 'area' is 'wide'"):
            list(data.spec.labelled(path, 20))


def test_labelled_rows(data: Any, tmp_path: Path) -> None:
    frame = homes(50)
    frame.loc[7, "price"] = None
    frame.to_csv(tmp_path / "x.csv", index=False)
    batches = list(data.spec.labelled(tmp_path / "x.csv", 20))
    assert [len(b["y"]) for b in batches] == [19, 20, 10]
    assert all(set(b) == {"numeric", "categorical", "y"} for b in batches)
    with pytest.raises(DataError, match=r"no column 'price' to compare with \(is it Price\?\)"):
        list(data.spec.labelled(frame.rename(columns={"price": "Price"})))


def test_broken_streams(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for body, message in ((b"", "standard input is empty"), (b"a,b\n1,2\n1,2,3\n", "line 3"), (b"PAR1xxxx", "name the file")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(body)))
        with pytest.raises(DataError, match=message):
            list(data.spec.read("-"))


# Summary


def test_summary(data: Any) -> None:
    summary = data.summary
    assert (
        summary.title == "DataFrame: 120 rows, 4 inputs (1 number, 1 category, 1 boolean, 1 date), predicting price (a number)"
    )
    assert summary.rows == {"train": 96, "val": 12, "test": 12}
    assert summary.facts["columns"][0] == {"name": "area", "kind": "number", "missing": 12, "distinct": 108}
    json.dumps(summary.facts)
    assert len(summary.sha256) == 64


def test_sha256_follows_the_content(tmp_path: Path) -> None:
    import hashlib

    path = write(tmp_path / "x.csv", GOOD)
    assert table(path).summary.sha256 == hashlib.sha256(GOOD.encode()).hexdigest()
    frame = homes()
    same, other = frame.copy(), frame.copy()
    other.loc[0, "area"] += 1
    assert table(frame, target="price").summary.sha256 == table(same, target="price").summary.sha256
    assert table(frame, target="price").summary.sha256 != table(other, target="price").summary.sha256


@pytest.mark.parametrize(("name", "problem"), [("iris", "classification"), ("diabetes", "regression")])
def test_built_in_sets(name: str, problem: str) -> None:
    data = table(name)
    assert data.spec.problem == problem
    assert data.summary.title.startswith(name)
