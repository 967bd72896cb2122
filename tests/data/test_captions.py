"""Captioned pictures: built-in sets, the user's folder, and prompts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engram.core.errors import ConfigError, DataError
from engram.data.caption_spec import CaptionSpec
from engram.data.captioned import read_captioned
from engram.data.captions import captions
from engram.data.memory import MemoryData

SAID = ("a red dog", "a blue cat, asleep", "two cats and a red ball", "the dog runs", "a ball", "a cat")


def fill(root: Path, sidecars: bool = True, count: int = 6) -> Path:
    """Pictures of noise, of two sizes, with captions beside them."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        size = (12, 12) if i % 2 else (20, 16)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / f"p{i}.png")
        if sidecars:
            (root / f"p{i}.txt").write_text(SAID[i % 6] + "\n")
    return root


def every(data: MemoryData) -> dict[str, str]:
    """File name -> the words that the network reads."""
    spec = data.spec
    assert isinstance(spec, CaptionSpec)
    return {
        name: spec.text(data.splits[split]["tokens"][row])
        for split in data.splits
        for row, name in enumerate(data.names(split, [*range(data.size(split))]))
    }


def test_shapes_are_batches_with_words() -> None:
    data = captions("shapes", batch=16, rows=96)
    spec = data.spec
    assert isinstance(spec, CaptionSpec)
    batch = next(iter(data.batches("train")))
    assert batch["x"].shape == (16, 3, 32, 32)
    assert batch["x"].min() >= -1
    assert batch["x"].max() <= 1
    assert batch["tokens"].shape == (16, spec.longest)
    assert (batch["tokens"] > 0).sum(1).equal(batch["lengths"])
    said = spec.text(batch["tokens"][0]).split()
    assert len(said) == batch["lengths"][0]
    raw = data.raw("train", [3])
    again = spec.encode(raw)
    assert isinstance(data, MemoryData)
    assert again["tokens"].equal(data.splits["train"]["tokens"][3:4])
    assert again["x"].equal(spec.normalise(data.splits["train"]["x"][3:4]))


def test_shapes_repeat_by_seed() -> None:
    def one(seed: int) -> tuple[str, torch.Tensor]:
        data = captions("shapes", batch=8, rows=64, seed=seed)
        return data.summary.sha256, next(iter(data.batches("train", start=2)))["x"]

    assert one(0)[0] == one(0)[0]
    assert one(0)[1].equal(one(0)[1])
    assert one(0)[0] != one(1)[0]


@pytest.mark.parametrize(("scale", "low", "high"), [("unit", 0.0, 1.0), ("signed", -1.0, 1.0)])
def test_scales(scale: str, low: float, high: float) -> None:
    data = captions("digit_names", batch=64, scale=scale)  # type: ignore[arg-type]
    x = next(iter(data.batches("train")))["x"]
    assert (x.min().item(), x.max().item()) == (low, high)


def test_digits_by_name_say_what_is_shown() -> None:
    from engram.data.images import images

    plain, named = images("digits", batch=8), captions("digit_names", batch=8)
    assert isinstance(plain, MemoryData)
    assert isinstance(named, MemoryData)
    spec = named.spec
    assert isinstance(spec, CaptionSpec)
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for row in range(100):
        digit = int(plain.splits["test"]["y"][row])
        said = spec.text(named.splits["test"]["tokens"][row]).split()
        assert said[-1] in (words[digit], str(digit))
        assert plain.spec.picture(plain.splits["test"]["x"][row]) == named.raw("test", [row])[0]["image"]  # type: ignore[attr-defined]


def test_prompts_name_unknown_words() -> None:
    spec = captions("shapes", batch=8, rows=64).spec
    assert isinstance(spec, CaptionSpec)
    found = spec.encode_prompts(["A red circle, in the middle.", ""])
    assert found["lengths"].tolist() == [6, 0]
    assert spec.text(found["tokens"][0]) == "a red circle in the middle"
    with pytest.raises(DataError, match=r"'a magenta sqare' has 'magenta', 'sqare', which the captions of this run never use"):
        spec.encode_prompts(["a magenta sqare"])
    with pytest.raises(DataError, match=r"did you mean square\?"):
        spec.encode_prompts(["a red sqare"])
    with pytest.raises(DataError, match=r"has 40 words; this run reads at most"):
        spec.encode_prompts(["red " * 40])


def test_spec_survives_json() -> None:
    spec = captions("shapes", batch=8, rows=64).spec
    assert isinstance(spec, CaptionSpec)
    again = CaptionSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again.encode_prompts(["a red circle"])["tokens"].equal(spec.encode_prompts(["a red circle"])["tokens"])
    assert again.longest == spec.longest


def test_sidecars(tmp_path: Path) -> None:
    data = captions(fill(tmp_path / "pets"), batch=2)
    assert isinstance(data, MemoryData)
    assert [data.raw(s, [r])[0]["caption"] for s, r in (("train", 0), ("test", 0))] == [
        SAID[int(data.names(s, [r])[0][1])] for s, r in (("train", 0), ("test", 0))
    ]
    assert data.summary.title.startswith("pets: 6 captioned images 14x14x3")  # 12x12 and 20x16
    assert data.summary.rows == {"train": 4, "val": 1, "test": 1}


@pytest.mark.parametrize("name", ["captions.csv", "metadata.jsonl", "captions.json"])
def test_tables_say_the_same_as_sidecars(tmp_path: Path, name: str) -> None:
    beside = captions(fill(tmp_path / "a"), batch=2)
    root = fill(tmp_path / "b", sidecars=False)
    records = [{"file_name": f"p{i}.png", "caption": SAID[i]} for i in range(6)]
    if name.endswith(".csv"):
        lines = "\n".join(f'{r["file_name"]},"{r["caption"]}"' for r in records)
        (root / name).write_text(f"file_name,caption\n{lines}\n")
    else:
        (root / name).write_text("\n".join(map(json.dumps, records)) if name.endswith("l") else json.dumps(records))
    table = captions(root, batch=2)
    assert isinstance(table, MemoryData)
    assert isinstance(beside, MemoryData)
    assert every(table) == every(beside)
    assert every(captions(root / name, batch=2)) == every(beside)  # type: ignore[arg-type]
    assert table.splits["train"]["x"].equal(beside.splits["train"]["x"])


def test_many_captions_of_one_picture_stay_in_one_split(tmp_path: Path) -> None:
    root = fill(tmp_path / "b", sidecars=False)
    records = [{"file_name": f"p{i % 6}.png", "caption": f"{SAID[i % 6]} {i}"} for i in range(18)]
    (root / "captions.jsonl").write_text("\n".join(map(json.dumps, records)))
    data = captions(root, batch=2)
    assert sum(data.summary.rows.values()) == 18
    named = {s: set(data.names(s, [*range(data.size(s))])) for s in ("train", "val", "test")}
    assert not named["train"] & named["test"]
    assert not named["train"] & named["val"]


def test_splits_given_as_folders(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("test", 3)):
        fill(tmp_path / "pets" / part, count=count)
    data = captions(tmp_path / "pets", batch=2, fractions=(0.8, 0.2, 0.0))
    assert data.summary.rows == {"train": 4, "val": 1, "test": 3}
    assert all(name.startswith("test") for name in data.names("test", [0, 1, 2]))


def test_streamed_pictures_equal_those_in_memory(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    held, streamed = captions(root, batch=2), captions(root, batch=2, budget=1)
    assert held.summary.sha256 == streamed.summary.sha256
    for split in ("train", "val", "test"):
        for number, (a, b) in enumerate(zip(held.batches(split), streamed.batches(split), strict=False)):
            assert a.keys() == b.keys()
            assert all(a[name].equal(b[name]) for name in a)
            if number == 3:
                break


def test_captions_that_do_not_match(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    (root / "p1.txt").unlink()
    (root / "p4.txt").unlink()
    with pytest.raises(DataError, match=r"2 of the 6 pictures in .*pets have no caption in the \.txt files: p1\.png, p4\.png;"):
        captions(root, batch=2)
    root = fill(tmp_path / "more")
    (root / "cat.txt").write_text("a cat")
    with pytest.raises(DataError, match=r"1 of the 7 captions of the \.txt files have no picture in .*more: cat\.\*;"):
        captions(root, batch=2)
    root = fill(tmp_path / "table", sidecars=False)
    rows = "".join(f"{name}.png,a dog\n" for name in ("p0", "p1", "p2", "p3", "p4", "p5", "q1", "q2"))
    (root / "captions.csv").write_text("file_name,caption\n" + rows)
    with pytest.raises(DataError, match=r"2 of the 8 captions of captions\.csv have no picture in .*table: q1\.png, q2\.png;"):
        captions(root, batch=2)


@pytest.mark.parametrize("text", ["", "  \n", "?!"])
def test_empty_captions(tmp_path: Path, text: str) -> None:
    root = fill(tmp_path / "pets")
    (root / "p2.txt").write_text(text)
    with pytest.raises(DataError, match=r"the caption p2\.txt is empty"):
        captions(root, batch=2)


def test_few_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no pictures"):
        captions(fill(tmp_path / "none", count=0), batch=2)
    with pytest.raises(DataError, match=r"has one picture only \(p0\.png\)"):
        captions(fill(tmp_path / "one", count=1), batch=2)
    with pytest.raises(DataError, match="has no captions; captioned pictures are a folder"):
        captions(fill(tmp_path / "silent", sidecars=False), batch=2)


def test_wrong_names_and_knobs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"did you mean shapes\?"):
        captions("shape", batch=2)
    with pytest.raises(ConfigError, match="size=4 is too small"):
        captions("shapes", batch=2, size=4)
    root = fill(tmp_path / "b", sidecars=False)
    (root / "captions.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"captions\.csv has the columns a, b; name the one of the files file_name"):
        captions(root, batch=2)


def test_rows_to_encode(tmp_path: Path) -> None:
    spec = captions("shapes", batch=8, rows=64).spec
    picture = Image.new("RGB", (40, 40))
    assert set(spec.encode([picture, picture])) == {"x"}
    with pytest.raises(DataError, match="row 2 has only image; give every row as"):
        spec.encode([{"image": picture, "caption": "a red circle"}, {"image": picture}])
    chunk = next(iter(spec.labelled(fill(tmp_path / "pets"))))
    assert chunk["x"].shape == (6, 3, 32, 32)
    assert (chunk["tokens"][0][:4] == 1).tolist() == [False, False, True, False]  # "a red dog": 1 is a word without a meaning
    assert chunk["lengths"][0] == 3


def test_a_table_may_name_pictures_of_other_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By names from its own folder, whether the path to the table is absolute or not, in one spelling or several."""
    fill(tmp_path / "images", sidecars=False)
    (tmp_path / "said").mkdir()
    lines = [f'../images/p{i}.png,"{SAID[i]}"' for i in range(6)] + ["../said/../images/p0.png,another"]
    (tmp_path / "said" / "table.csv").write_text("\n".join(["file_name,caption", *lines]))
    monkeypatch.chdir(tmp_path)
    found = [read_captioned(path) for path in (tmp_path / "said" / "table.csv", "said/table.csv")]
    assert found[0].rows == found[1].rows
    assert found[0].sha256 == found[1].sha256
    assert len(found[1].rows[""]) == 7
    assert {path.name for path, _ in found[1].rows[""]} == {f"p{i}.png" for i in range(6)}
    assert [note.text for note in found[1].notes] == ["1 pictures have several captions: each caption is a row of its own"]


def test_links_in_the_folder_are_pictures_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "images", sidecars=False, count=1)
    (tmp_path / "pets").mkdir()
    for i in range(3):
        (tmp_path / "pets" / f"p{i}.png").symlink_to(tmp_path / "images" / "p0.png")
        (tmp_path / "pets" / f"p{i}.txt").write_text(SAID[i])
    monkeypatch.chdir(tmp_path)
    assert sorted(text for _, text in read_captioned("pets").rows[""]) == sorted(SAID[:3])
