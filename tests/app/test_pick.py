"""From the user's data to a recipe, looking at no more than needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from engram.app.pick import is_known, pick
from engram.core.errors import ConfigError, DataError
from engram.data.images import images
from engram.recipes.mlp import Mlp


def write_images(root: Path, side: int, folders: tuple[str, ...] = ("cat", "dog")) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        Image.new("L", (side + 6, side)).save(root / folder / "1.png")
    return root


def test_recipes_pass_unchanged():
    recipe = Mlp()
    for given in ("cnn", "own/recipe.py", Mlp, recipe):
        assert pick(given, {"epochs": 2}) == (given, {"epochs": 2}, [])


SETS = [("iris", "mlp"), ("adult", "mlp"), ("digits", "cnn"), ("fashion_mnist", "cnn"), ("shapes", "latent_diffusion")]


@pytest.mark.parametrize(("name", "recipe"), SETS)
def test_built_in_data(name: str, recipe: str):
    picked, knobs, why = pick(name, {"epochs": "2"})
    assert (picked, knobs) == (recipe, {"data": name, "epochs": "2"})
    assert len(why) == 1
    assert f"{name} is a built-in" in why[0]
    assert why[0].endswith(f"training {recipe}")


def test_csv_rows_are_counted_with_newlines_inside_quotes(tmp_path: Path):
    path = tmp_path / "houses.csv"
    path.write_text('price;note\n1;"two\nlines"\n2;b\n\n')
    picked, knobs, why = pick(str(path), {})
    assert (picked, knobs) == ("mlp", {"data": str(path)})
    assert why == ["houses.csv is a table of 2 rows: training mlp"]


def test_other_tables(tmp_path: Path):
    frame = pd.DataFrame({"a": range(1460), "y": range(1460)})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.head(3).to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    assert pick(tmp_path / "t.parquet", {})[2] == ["t.parquet is a table of 1,460 rows: training mlp"]
    assert pick(str(tmp_path / "t.jsonl"), {})[2] == ["t.jsonl is a table of 3 rows: training mlp"]


def test_large_files_are_not_read(tmp_path: Path):
    path = tmp_path / "large.csv"
    with path.open("wb") as file:
        file.write(b"a,b\n1,2\n" * 10_000)
        file.truncate(3_100_000_000)  # sparse: takes no space, and counting its lines would take long
    assert pick(str(path), {})[2] == ["large.csv is a table of 3.1 GB: training mlp"]


def test_a_data_frame():
    frame = pd.DataFrame({"a": [1, 2], "y": [0, 1]})
    picked, knobs, why = pick(frame, {"target": "y"})
    assert picked == "mlp"
    assert knobs["data"] is frame
    assert knobs["target"] == "y"
    assert why == ["a table of 2 rows: training mlp"]


@pytest.mark.parametrize(("side", "recipe"), [(28, "cnn"), (64, "cnn"), (65, "resnet"), (224, "resnet")])
def test_folders_by_the_size_of_their_images(tmp_path: Path, side: int, recipe: str):
    root = write_images(tmp_path / "photos", side)
    picked, knobs, why = pick(str(root), {})
    assert (picked, knobs) == (recipe, {"data": str(root)})
    assert f"{side + 6}x{side}" in why[0]


def test_the_size_knob_decides(tmp_path: Path):
    root = write_images(tmp_path, 224)
    assert pick(str(root), {"size": "32"})[0] == "cnn"
    assert pick(str(root), {"size": 128})[0] == "resnet"


def test_splits_are_looked_into(tmp_path: Path):
    root = write_images(tmp_path, 20, ("train/cat", "train/dog", "test/cat", "test/dog"))
    assert pick(str(root), {})[0] == "cnn"


def test_unreadable_images_are_passed_over(tmp_path: Path):
    root = write_images(tmp_path / "photos", 90, ("a", "b", "c", "d"))
    (root / "a" / "0.png").write_bytes(b"")
    (root / "b" / "0.jpg").write_text("no image")
    (root / "c" / "0.jpg").symlink_to("nowhere.jpg")
    picked, _, why = pick(str(root), {})
    assert picked == "resnet"
    assert "96x90" in why[0]


def test_a_folder_without_a_readable_image_is_left_to_the_recipe(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"")
    picked, knobs, why = pick(str(tmp_path), {})
    assert picked == "cnn"
    assert "cannot be read" in why[0]
    with pytest.raises(DataError, match="2 of 2 images cannot be read"):
        images(knobs["data"], batch=2)


def test_one_odd_image_does_not_decide(tmp_path: Path):
    root = write_images(tmp_path, 20, ("b", "c", "d", "e"))
    (root / "a").mkdir()
    Image.new("L", (900, 900)).save(root / "a" / "1.png")
    assert pick(str(root), {})[0] == "cnn"


@pytest.mark.parametrize(
    ("word", "error", "parts"),
    [
        ("cn", ConfigError, ("no recipe or data called 'cn'", "did you mean cnn?")),
        ("digit", ConfigError, ("did you mean digits?", "recipes: ", "data: digits")),
        ("", ConfigError, ("no recipe or data called ''",)),
        ("house.csv", DataError, ("no file house.csv", "did you mean houses.csv?")),
        ("nowhere/houses.csv", DataError, ("no folder nowhere",)),
        ("link.csv", DataError, ("link.csv is a link to nowhere, which does not exist",)),
        ("photoz/", DataError, ("did you mean photos?",)),
        ("photo.png", DataError, ("photo.png is an image",)),
        ("empty.csv", DataError, ("empty.csv is empty",)),
        ("bad.parquet", DataError, ("bad.parquet is damaged",)),
        ("photos", DataError, ("holds no images", "it holds a.csv: name one file")),
        ("runs/one", ConfigError, ("is a run, not data", "engram resume runs/one")),
    ],
)
def test_errors_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, error: type[Exception], parts: tuple[str, ...]
):
    monkeypatch.chdir(tmp_path)
    Path("houses.csv").write_text("a,b\n1,2\n")
    Path("empty.csv").touch()
    Path("link.csv").symlink_to("nowhere")
    Path("bad.parquet").write_bytes(b"PAR1 no more")
    Path("photos").mkdir()
    Path("photos/a.csv").write_text("a,b\n1,2\n")
    Image.new("L", (8, 8)).save("photo.png")
    Path("runs/one").mkdir(parents=True)
    Path("runs/one/run.json").write_text("{}")
    with pytest.raises(error) as caught:
        pick(word, {})
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_data_given_twice_is_refused():
    with pytest.raises(ConfigError, match="given twice: iris and data=wine"):
        pick("iris", {"data": "wine"})


def test_known_words(tmp_path: Path):
    assert is_known("cnn")
    assert is_known("digits")
    assert is_known(str(tmp_path))
    assert not is_known("")
    assert not is_known("epochs")


def test_picking_imports_no_torch_and_no_pandas():
    code = (
        "import sys; from engram.app.pick import pick; pick('iris', {}); print({'torch', 'pandas', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def _pictures(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (number * 9, 0, 0)).save(folder / name)


def test_pictures_without_classes_get_a_generator(tmp_path: Path) -> None:
    _pictures(tmp_path / "flat", ["a.png", "b.png", "c.png"])
    _pictures(tmp_path / "one", ["in/a.png", "in/b.png"])
    for folder in ("flat", "one"):
        recipe, knobs, why = pick(str(tmp_path / folder), {"epochs": 2})
        assert (recipe, knobs) == ("vae", {"data": str(tmp_path / folder), "epochs": 2})
        assert "without classes" in why[0]


def test_pictures_with_captions_get_text_to_image(tmp_path: Path) -> None:
    _pictures(tmp_path / "beside", ["a.png", "b.png"])
    (tmp_path / "beside" / "a.txt").write_text("a red square")
    _pictures(tmp_path / "table", ["train/a.png", "train/b.png"])
    (tmp_path / "table" / "train" / "captions.csv").write_text("file_name,caption\na.png,red\nb.png,blue\n")
    for folder in ("beside", "table"):
        assert pick(str(tmp_path / folder), {})[0] == "latent_diffusion"
    _pictures(tmp_path / "classes", ["x/a.png", "y/b.png"])
    assert pick(str(tmp_path / "classes"), {})[0] == "cnn"
