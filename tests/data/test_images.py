"""Built-in image sets and the user's own folders as Data."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engram.core.data import Data
from engram.core.errors import ConfigError, DataError
from engram.data import images as module
from engram.data.augment import Augment
from engram.data.folders import list_folder
from engram.data.idx import read_idx
from engram.data.images import images
from engram.data.survey import mean_std, moments

torch.set_num_threads(1)


def fill(root: Path, counts: dict[str, int], size: tuple[int, int] = (12, 12), channels: int = 3, seed: int = 0) -> Path:
    """Folders of distinct noise images."""
    rng = np.random.default_rng(seed)
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            array = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
            Image.fromarray(array if channels == 3 else array[:, :, 0]).save(root / folder / f"{i:03}.png")
    return root


def warnings(data: Data) -> str:
    return " | ".join(n.text for n in data.summary.notes if n.level == "warning")


def infos(data: Data) -> str:
    return " | ".join(n.text for n in data.summary.notes if n.level == "info")


def read(root: Path, **knobs: object) -> Data:
    return images(root, **({"batch": 4} | knobs))  # type: ignore[arg-type]


def test_digits_are_scaled_exactly_and_split() -> None:
    from sklearn.datasets import load_digits

    data = images("digits", batch=64, augment=Augment(shift=1))
    assert data.summary.title == "digits: 1,797 images 8x8x1 in 10 classes"
    assert data.summary.rows == {"train": 1437, "val": 180, "test": 180}
    every = torch.cat([data.splits[s]["x"] for s in ("train", "val", "test")])  # type: ignore[attr-defined]
    wanted = np.rint(load_digits().images * 255 / 16).astype(np.uint8)  # type: ignore[attr-defined]
    assert sorted(row.tobytes() for row in every.numpy()) == sorted(row.tobytes() for row in wanted)
    share = [c / 1437 for c in data.spec.class_counts]  # type: ignore[attr-defined]
    assert min(share) > 0.09
    assert max(share) < 0.11


@pytest.mark.parametrize("augment", [None, Augment(shift=1)])
def test_batches_are_normalised_and_raw_encodes_to_them(augment: Augment | None) -> None:
    data = images("digits", batch=100, augment=augment)
    x = torch.cat([b["x"] for b in data.batches("val")])
    y = torch.cat([b["y"] for b in data.batches("val")])
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert x.shape == (180, 1, 8, 8)
    assert abs(float(x.mean())) < 0.05
    assert abs(float(x.std()) - 1) < 0.05
    assert torch.equal(data.spec.encode(data.raw("val", [0, 7]))["x"], x[[0, 7]])
    assert data.names("val", [7]) == ["val 7"]


def test_only_training_is_augmented_and_repeats() -> None:
    data = images("digits", batch=64, augment=Augment(shift=2, rotate=10))
    clean = images("digits", batch=64)
    assert data.summary.facts["held"] == "in memory as uint8"
    assert clean.summary.facts["held"] == "in memory as float32"
    a, b, c = (next(d.batches("train"))["x"] for d in (data, data, clean))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    for one, two in zip(data.batches("test"), clean.batches("test"), strict=True):
        assert torch.equal(one["x"], two["x"])


def test_mean_and_std_are_those_of_the_training_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6), dtype=np.uint8)
    mean, std = mean_std(moments(pixels), 5 * 4 * 6)
    np.testing.assert_allclose(mean, (pixels / 255).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, (pixels / 255).std((0, 2, 3)), rtol=1e-9)
    assert mean_std(moments(np.full((1, 1, 2, 2), 9, np.uint8)), 4)[1] == (1.0,)


def test_size_and_channels_of_a_built_in_set() -> None:
    data = images("digits", batch=64, size=16, channels=3)
    assert next(data.batches("train"))["x"].shape[1:] == (3, 16, 16)
    with pytest.raises(ConfigError, match="channels=2"):
        images("digits", batch=64, channels=2)
    with pytest.raises(DataError, match=r"did you mean digits"):
        images("digit", batch=64)
    for odd in (np.zeros((2, 8, 8)), "x" * 5000, "a\0b", None):
        with pytest.raises(DataError, match="no built-in set") as caught:
            images(odd, batch=64)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif("ENGRAM_DATA" not in os.environ, reason="ENGRAM_DATA is not set")
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_official_test_split(name: str) -> None:
    data = images(name, batch=500, augment=Augment(shift=1))
    assert data.summary.rows == {"train": 54000, "val": 6000, "test": 10000}
    assert torch.bincount(next(data.batches("test"))["y"], minlength=10).sum() == 500
    first = np.asarray(data.raw("test", [0])[0])
    path = Path(os.environ["ENGRAM_DATA"]) / name / "t10k-images-idx3-ubyte.gz"
    assert np.array_equal(first, read_idx(path, 3)[0])
    assert data.spec.mean == pytest.approx((0.1307,) if name == "mnist" else (0.2860,), abs=2e-3)  # type: ignore[attr-defined]


def test_idx_files_are_checked(tmp_path: Path) -> None:
    def written(data: bytes) -> Path:
        (tmp_path / "a.gz").write_bytes(gzip.compress(data))
        return tmp_path / "a.gz"

    good = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(6))
    assert read_idx(written(good), 2).tolist() == [[0, 1, 2], [3, 4, 5]]
    for bad in (good[:-1], good + b"\0", good[:6], b"", bytes([0, 0, 9]) + good[3:]):
        with pytest.raises(DataError, match=r"a\.gz"):
            read_idx(written(bad), 2)
    with pytest.raises(DataError, match="not an IDX file"):
        read_idx(written(good), 3)
    cut = written(good).read_bytes()[:-6]
    for damaged in (cut, b"no gzip", b""):
        (tmp_path / "a.gz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.gz"):
            read_idx(tmp_path / "a.gz", 2)


def test_a_folder_per_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets", {"dög": 20, "cat/old": 6, "cat/new/deep": 14, ".hidden": 3})
    (root / "cat" / ".DS_Store").write_bytes(b"x")
    data = read(root)
    assert data.summary.title == "pets: 40 images 12x12x3 in 2 classes"
    assert data.spec.classes == ("cat", "dög")  # type: ignore[attr-defined]
    assert data.summary.rows == {"train": 32, "val": 4, "test": 4}
    assert data.summary.facts["classes"] == {"cat": 20, "dög": 20}
    assert data.summary.facts["sizes"] == {"12x12": 40}
    assert data.summary.facts["modes"] == {"RGB": 40}
    rows = list(range(4))
    for split in ("val", "test"):
        files = data.names(split, rows)
        [batch] = data.batches(split)
        assert torch.equal(batch["x"], data.spec.encode([root / f for f in files])["x"])
        assert batch["y"].tolist() == [data.spec.classes.index(f.split("/")[0]) for f in files]  # type: ignore[attr-defined]
        assert torch.equal(data.spec.encode(data.raw(split, rows))["x"], batch["x"])
    assert not warnings(data).replace("only 40 rows: validation and test scores are rough guesses", "")


def test_folders_per_split(tmp_path: Path) -> None:
    root = fill(tmp_path, {"Train/a": 10, "Train/b": 10, "valid/a": 2, "valid/b": 3, "test/a": 4, "test/b": 5, "extra/a": 1})
    data = read(root)
    assert data.summary.rows == {"train": 20, "val": 5, "test": 9}
    assert all(n.startswith("test/") for n in data.names("test", list(range(9))))
    assert "left out: extra" in warnings(data)


def test_what_is_missing_is_cut_from_train(tmp_path: Path) -> None:
    data = read(fill(tmp_path, {"train/a": 10, "train/b": 10, "test/a": 2, "test/b": 3}))
    assert data.summary.rows == {"train": 18, "val": 2, "test": 5}
    assert {n.split("/")[0] for n in data.names("val", [0, 1])} == {"train"}
    (tmp_path / "test").rename(tmp_path / "val")
    data = read(tmp_path)
    assert data.summary.rows == {"train": 20, "val": 5}
    assert data.size("test") == 0
    assert "no test split" in infos(data)


def test_one_folder_around_all_is_unwrapped(tmp_path: Path) -> None:
    fill(tmp_path, {"photos/a": 5, "photos/b": 5})
    assert list_folder(tmp_path).root == tmp_path / "photos"
    assert read(tmp_path).spec.classes == ("a", "b")  # type: ignore[attr-defined]


def test_classes_that_are_numbers_are_in_order(tmp_path: Path) -> None:
    assert read(fill(tmp_path, {"10": 4, "9": 4, "x": 4})).spec.classes == ("9", "10", "x")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"a": 5}, "one class only"),
        ({}, "holds no images"),
        ({"a": 0, "b": 0}, "holds no images"),
        ({"": 5}, "5 images but no class folders"),
        ({"train": 5}, "5 images but no class folders"),
        ({"train/a": 5, "test/b": 2}, "one class only"),
        ({"train/a": 3, "train/b": 3, "test/c": 2}, "none of the classes in train"),
        ({"test/a": 5, "val/b": 2}, "no train/"),
        ({"train/a": 0, "test/a": 5, "test/b": 2}, "holds no images in class folders"),
        ({"a": 1, "b": 1}, "at least 3"),
    ],
)
def test_folders_that_cannot_teach(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(fill(tmp_path, counts))
    assert "\n" not in str(caught.value)


def test_a_class_only_in_test_is_known_and_warned_about(tmp_path: Path) -> None:
    data = read(fill(tmp_path, {"train/a": 9, "train/b": 9, "test/a": 2, "test/new": 2}))
    assert data.spec.classes == ("a", "b", "new")  # type: ignore[attr-defined]
    assert data.spec.class_counts[2] == 0  # type: ignore[attr-defined]
    assert data.spec.balanced_weights()[2] == 0  # type: ignore[attr-defined]
    assert "classes new are in test but not in train" in warnings(data)


def test_unreadable_files_are_listed_and_left_out(tmp_path: Path) -> None:
    root = fill(tmp_path, {"a": 10, "b": 10})
    (root / "a" / "text.png").write_text("no image", "utf-8")
    (root / "a" / "zero.jpg").write_bytes(b"")
    (root / "b" / "list.csv").write_text("x,y", "utf-8")
    whole = (root / "b" / "000.png").read_bytes()
    (root / "b" / "000.png").write_bytes(whole[: len(whole) // 2])
    fill(root, {"": 1})
    data = read(root)
    assert sum(data.summary.rows.values()) == 19
    assert "3 of 22 images cannot be read and are left out: a/text.png, a/zero.jpg, b/000.png" in warnings(data)
    assert data.summary.facts["unreadable"] == ["a/text.png", "a/zero.jpg", "b/000.png"]
    assert "1 images outside class folders are left out: 000.png" in warnings(data)
    assert "1 files are no images and are left out: b/list.csv" in infos(data)
    assert data.summary.facts["classes"] == {"a": 10, "b": 9}
    names = [n for s in data.summary.rows for n in data.names(s, list(range(data.size(s))))]
    assert len(set(names)) == 19
    assert "b/000.png" not in names
    for split in ("val", "test"):  # rows still belong to their files
        [batch] = data.batches(split)
        files = [root / n for n in data.names(split, list(range(data.size(split))))]
        assert torch.equal(batch["x"], data.spec.encode(files)["x"])


def test_mostly_unreadable_is_an_error(tmp_path: Path) -> None:
    root = fill(tmp_path, {"a": 4, "b": 4})
    for i in range(5):
        path = root / "ab"[i % 2] / f"{i // 2:03}.png"
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"5 of 8 images cannot be read; the first: .*000\.png"):
        read(root)


def test_a_class_without_readable_images_is_dropped_with_a_warning(tmp_path: Path) -> None:
    root = fill(tmp_path, {"a": 5, "b": 5, "c": 2})
    for path in (root / "c").iterdir():
        path.write_bytes(b"")
    data = read(root)
    assert data.spec.classes == ("a", "b")  # type: ignore[attr-defined]
    assert "no image of c can be read" in warnings(data)


def test_copies_across_splits_are_warned_about(tmp_path: Path) -> None:
    root = fill(tmp_path, {"train/a": 9, "train/b": 9, "val/a": 2, "val/b": 2, "test/a": 2, "test/b": 2})
    with Image.open(root / "train/a/003.png") as image:
        image.save(root / "val/a/001.bmp")  # other bytes, the same pixels
    (root / "test/b/twin.png").write_bytes((root / "test/b/001.png").read_bytes())  # within one split
    data = read(root)
    assert "1 of 5 val images (20.0%) are exact copies of train images" in warnings(data)
    assert "val/a/001.bmp = train/a/003.png" in warnings(data)
    assert "two classes" not in warnings(data)
    (root / "train/b/same.png").write_bytes((root / "train/a/004.png").read_bytes())
    assert "1 images are under two classes" in warnings(read(root))


def test_links_do_not_loop(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", {"a": 3, "b": 3})
    fill(tmp_path, {"elsewhere": 4}, seed=1)
    (root / "a" / "loop").symlink_to(root / "a", target_is_directory=True)
    (root / "c").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "b" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "b" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    data = read(root)
    assert data.summary.facts["classes"] == {"a": 3, "b": 7, "c": 4}
    assert data.summary.facts["unreadable"] == ["b/broken.png"]


@pytest.mark.parametrize(
    ("sizes", "channels", "knobs", "wanted", "crop"),
    [
        ([(28, 28)], 1, {}, (1, 28, 28), "pad"),
        ([(20, 30)], 1, {}, (1, 20, 30), "pad"),
        ([(20, 30)], 3, {}, (3, 20, 30), "crop"),
        ([(20, 30), (24, 30)], 3, {}, (3, 22, 22), "crop"),
        ([(45, 60)], 3, {}, (3, 40, 40), "crop"),
        ([(300, 90), (90, 200)], 3, {}, (3, 64, 64), "crop"),
        ([(300, 90)], 1, {}, (1, 64, 64), "crop"),
        ([(300, 90)], 3, {"size": 24}, (3, 24, 24), "crop"),
        ([(12, 12)], 3, {"channels": 1}, (1, 12, 12), "pad"),
        ([(12, 12)], 1, {"channels": 3}, (3, 12, 12), "crop"),
        ([(1, 1), (2, 1)], 3, {}, (3, 8, 8), "crop"),
    ],
)
def test_the_shape_is_chosen_from_the_images(
    tmp_path: Path, sizes: list[tuple[int, int]], channels: int, knobs: dict[str, int], wanted: tuple[int, ...], crop: str
) -> None:
    for i, size in enumerate(sizes):
        fill(tmp_path, {f"a/{i}": 2, f"b/{i}": 2}, size, channels, seed=i)
    data = read(tmp_path, **knobs)
    assert next(data.batches("train"))["x"].shape[1:] == wanted
    assert data.spec.crop == crop  # type: ignore[attr-defined]
    height, width = wanted[1:]
    assert f"{width}x{height}" in infos(data)


def test_fingerprint_follows_names_and_sizes(tmp_path: Path) -> None:
    root = fill(tmp_path / "one", {"a": 3, "b": 3})
    first = read(root).summary.sha256
    assert read(root).summary.sha256 == first
    assert read(root.rename(tmp_path / "two")).summary.sha256 == first
    (tmp_path / "two/a/000.png").rename(tmp_path / "two/a/new.png")
    assert read(tmp_path / "two").summary.sha256 != first


def test_large_sets_stay_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path, {"a": 6, "b": 6})
    small = read(root)
    monkeypatch.setattr(module, "FLOATS", 100)
    large = read(root)
    assert small.summary.facts["held"] == "in memory as float32"
    assert large.summary.facts["held"] == "in memory as uint8"
    for one, two in zip(small.batches("val"), large.batches("val"), strict=True):
        assert torch.equal(one["x"], two["x"])
    assert torch.equal(next(small.batches("train"))["x"], next(large.batches("train"))["x"])


def test_any_folder_of_images_will_do_without_labels(tmp_path: Path) -> None:
    for number in range(12):
        place = tmp_path / ("a" if number % 2 else "b/c")
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (9, 10 + number % 3, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "loose.png")
    data = images(str(tmp_path), batch=4, labels=False, scale="signed", size=8)
    assert data.spec.classes == ()  # type: ignore[attr-defined]
    assert sum(map(data.size, ("train", "val", "test"))) == 13
    batch = next(data.batches("train"))
    assert set(batch) == {"x"}
    assert batch["x"].min() >= -1
    assert batch["x"].max() <= 1
    assert batch["x"].min() < -0.5 < 0.5 < batch["x"].max()
    assert "classes" not in data.summary.title
    assert set(next(iter(data.spec.labelled(str(tmp_path / "a"))))) == {"x"}


def test_class_folders_keep_their_classes_without_labels(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        Image.new("L", (8, 8), number * 10).save(tmp_path / "ab"[number % 2] / f"{number}.png")
    data = images(str(tmp_path), batch=4, labels=False, scale="unit")
    assert data.spec.classes == ("a", "b")  # type: ignore[attr-defined]
    x = next(data.batches("val"))["x"]
    assert 0 <= x.min() <= x.max() <= 1


def test_one_image_is_too_few(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "only.png")
    with pytest.raises(DataError, match="1 usable row"):
        images(str(tmp_path), batch=4, labels=False)
    (tmp_path / "only.png").unlink()
    with pytest.raises(DataError, match="holds no images"):
        images(str(tmp_path), batch=4, labels=False)


def test_training_on_one_class_is_fine_where_odd_ones_are_sought(tmp_path: Path) -> None:
    for number in range(12):
        place = tmp_path / ("train/good" if number < 8 else f"test/{('good', 'bad')[number % 2]}")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number * 10).save(place / f"{number}.png")
    with pytest.raises(DataError, match="one class only"):
        images(str(tmp_path), batch=4)
    data = images(str(tmp_path), batch=4, labels=False, scale="unit")
    assert data.spec.classes == ("bad", "good")  # type: ignore[attr-defined]
    assert data.size("test") == 4
