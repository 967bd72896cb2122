"""Classes kept out of training: names and their errors, rows of both kinds of data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engram.core.errors import ConfigError
from engram.data.images import images
from engram.data.odd import odd_classes, without


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of each of three classes; the brightness of a picture tells its class and number."""
    folder = tmp_path_factory.mktemp("photos")
    for at, name in enumerate(("cat", "dog", "red hen")):
        (folder / name).mkdir()
        for number in range(40):
            Image.fromarray(np.full((9, 9, 3), 80 * at + number, np.uint8)).save(folder / name / f"{number:02d}.png")
    return folder


def test_names() -> None:
    classes = ("cat", "dog", "red hen")
    assert odd_classes(classes) == ()
    assert odd_classes(classes, odd="red hen, cat") == ("cat", "red hen")
    assert odd_classes(classes, normal="dog") == ("cat", "red hen")
    for odd, normal, said in [
        ("cta", "", "did you mean cat"), ("cat", "dog", "two ways"), ("cat,dog,red hen", "", "every class"),
        ("", "cat,dog,red hen", "no class odd"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            odd_classes(classes, odd, normal)
    with pytest.raises(ConfigError, match="have none"):
        odd_classes((), "cat")


@pytest.mark.parametrize("budget", [1 << 30, 0])  # in memory, and decoded while training
def test_the_odd_ones_are_in_test_only(photos: Path, budget: int) -> None:
    whole = images(photos, batch=16, scale="unit", budget=budget)
    left = without(whole, ("dog",))
    assert left.size("train") == whole.size("train") * 2 // 3
    assert left.summary.rows == {s: left.size(s) for s in ("train", "val", "test")}
    assert "dog" in left.summary.notes[-1].text
    assert left.size("test") == whole.size("test")
    seen = {split: torch.cat([b["y"] for b in left.batches(split)]) for split in ("val", "test")}
    train = left.batches("train")
    seen["train"] = torch.cat([next(train)["y"] for _ in range(left.steps_per_epoch)])
    assert {split: sorted(set(y.tolist())) for split, y in seen.items()} == {"train": [0, 2], "val": [0, 2], "test": [0, 1, 2]}
    # names, raw pictures and batches speak of the same rows
    for split in ("val", "test"):
        x = torch.cat([b["x"] for b in left.batches(split)])
        rows = list(range(left.size(split)))
        for row, (name, raw) in enumerate(zip(left.names(split, rows), left.raw(split, rows), strict=True)):
            folder, _, file = name.partition("/")
            value = 80 * ("cat", "dog", "red hen").index(folder) + int(file[:2])
            assert int(np.asarray(raw)[0, 0, 0]) == value
            assert float(x[row, 0, 0, 0]) == pytest.approx(value / 255, abs=1e-6)


def test_nothing_odd_is_the_same_data(photos: Path) -> None:
    whole = images(photos, batch=16)
    assert without(whole, ()) is whole
