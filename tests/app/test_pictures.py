"""Grids and films of what a run makes; looks inside as PNG and JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import engram
from engram.app.pictures import GAP, captioned, check_film, film_page, grid, write_film, write_samples
from engram.app.views import draw, read_film, read_views, write_shown, write_views
from engram.core.errors import ConfigError, RunError
from engram.core.predictor import Predictor, View
from engram.data.image_spec import ImageSpec
from engram.inference.pictures import Ask, Drawn, Pictures
from engram.nn.noise import RowNoise

SPEC = ImageSpec(channels=3, height=64, width=64, mean=(0.5,) * 3, std=(0.5,) * 3, classes=("a", "b"))


class Flat(Pictures):
    """Pictures of one colour each, drawn from the noise; two steps."""

    verbs = frozenset({"sample"})
    films = True
    options = frozenset({"steps", "label", "mask"})
    gives: ClassVar = {}

    def __init__(self, spec: Any = SPEC):
        self.spec = spec

    def draw(self, ask: Ask, noise: RowNoise, rows: int) -> Drawn:
        x = noise.uniform(self.spec.channels, 1, 1).mul(2).sub(1).expand(-1, -1, self.spec.height, self.spec.width)  # type: ignore[attr-defined]
        film = [self.to_uint8(f) for f in (x * 0, x)] if ask.keep_steps else []
        return Drawn(x, film, film[::-1])

    def outputs(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {}

    def __call__(self, *, images: Any) -> dict[str, list[Any]]:
        return {}


class AtOnce(Flat):
    """Nothing to film."""

    films = False


def test_chunks_change_nothing() -> None:
    whole = [c.arrays for c in Flat().sample(7, seed=2)]
    parts = [c.arrays for c in Flat().sample(7, seed=2, chunk=3)]
    assert [len(p) for p in parts] == [3, 3, 1]
    assert np.array_equal(np.concatenate(whole), np.concatenate(parts))
    assert not np.array_equal(whole[0], next(Flat().sample(7, seed=3)).arrays)
    assert len({tuple(p[0, 0]) for p in whole[0]}) == 7


def test_wishes_are_refused_before_anything_is_drawn() -> None:
    for wish in ({"guidance": 2.0}, {"prompt": "a cat"}, {"colour": 1}):
        with pytest.raises(ConfigError, match="means nothing to this run; its samples take label, mask, steps"):
            Flat().sample(2, **wish)
    for n in (0, -1, 10**9):
        with pytest.raises(ConfigError, match="must be 1 to"):
            Flat().sample(n)
    with pytest.raises(ConfigError, match="does not code pictures"):
        Flat().encode(torch.zeros(1))
    with pytest.raises(ConfigError, match="in one go"):
        AtOnce().sample(1, keep_steps=True)
    with pytest.raises(ConfigError, match="black all over"):
        Flat().sample(1, mask=torch.zeros(64, 64, dtype=torch.bool))


def test_a_grid_has_every_picture_in_its_place() -> None:
    arrays = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.full((5, 70, 80, 1), 40, np.uint8)
    sheet = np.asarray(grid(arrays, 3))
    assert sheet.shape == (2 * 70 + GAP, 3 * 80 + 2 * GAP)
    assert [sheet[35 + 72 * (i // 3), 40 + 82 * (i % 3)] for i in range(5)] == [0, 40, 80, 120, 160]
    assert sheet[-1, -1] == 255
    assert grid(arrays[:, :8, :8]).size == (3 * 64 + 2 * GAP, 2 * 64 + GAP)  # small ones are enlarged


def test_captions_stand_below_their_pictures() -> None:
    arrays = np.full((3, 8, 8, 3), 90, np.uint8)
    sheet = np.asarray(captioned(arrays, 2, ["a long caption that does not fit on one line", "", "b"]))
    plain = np.asarray(captioned(arrays, 2, ["", "", ""]))
    assert sheet.shape[1] == plain.shape[1]
    assert sheet.shape[0] > plain.shape[0]
    cell = sheet.shape[0] // 2
    assert (sheet[:64, :64] == 90).all()
    assert (sheet[cell : cell + 64, :64] == 90).all()
    text = (sheet < 60).any(2)
    assert text[64:cell, :90].any()
    assert not text[64:cell, 90:].any()
    assert text[cell + 64 :, :90].any()


def test_samples_go_to_a_grid_an_array_or_a_folder(tmp_path: Path) -> None:
    arrays = next(Flat().sample(5)).arrays
    write_samples(Flat().sample(5, chunk=2), 5, tmp_path / "deep" / "grid.png")
    assert Image.open(tmp_path / "deep" / "grid.png").size == (3 * 64 + 2 * GAP, 2 * 64 + GAP)
    write_samples(Flat().sample(5, chunk=2), 5, tmp_path / "all.npy")
    assert np.array_equal(np.load(tmp_path / "all.npy"), arrays)
    write_samples(Flat().sample(5, chunk=2), 5, tmp_path / "folder")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "folder" / "000004.png")), arrays[4])
    with pytest.raises(ConfigError, match=r"written as \.png"):
        write_samples(Flat().sample(1), 1, tmp_path / "a.txt")
    with pytest.raises(ConfigError, match="at most 1,024"):
        write_samples(Flat().sample(2000), 2000, tmp_path / "a.png")


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    for name in ("all.npy", "grid.webp", "grid.png"):
        write_samples(Flat().sample(4, chunk=2), 4, tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 3

    def broken() -> Any:
        yield next(Flat().sample(2, seed=1))
        raise KeyboardInterrupt

    for path in before:
        with pytest.raises(KeyboardInterrupt):
            write_samples(broken(), 4, path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_folder_may_be_the_one_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_samples(Flat().sample(2), 2, Path())
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["000000.png", "000001.png"]


def test_a_folder_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "out.v2").mkdir()
    write_samples(Flat().sample(2), 2, tmp_path / "out.v2")
    assert (tmp_path / "out.v2" / "000001.png").is_file()


def test_a_film_shows_the_steps(tmp_path: Path) -> None:
    sampled = next(Flat().sample(3, keep_steps=True))
    write_film(sampled, tmp_path / "film.gif")
    assert Image.open(tmp_path / "film.gif").n_frames == 2  # type: ignore[attr-defined]
    page = np.asarray(film_page(sampled.steps, sampled.guesses))
    assert page.shape == (6 * 64 + 5 * GAP, 2 * 64 + GAP, 3)
    assert np.array_equal(page[0, -1], sampled.arrays[0, 0, 0])
    assert np.array_equal(page[64 + GAP, 0], sampled.arrays[0, 0, 0])  # below: the guesses
    with pytest.raises(ConfigError, match="in one go"):
        write_film(next(Flat().sample(1)), tmp_path / "film.gif")
    with pytest.raises(ConfigError, match=r"\.gif or \.png"):
        write_film(sampled, tmp_path / "film.mp4")


class Looks(Flat):
    """One look of each kind."""

    def views(self, batches: Any) -> Any:
        yield View("map", "A map", "points", {"x": [0.0, 1.0], "y": [1.0, 0.0], "label": ["a", "b"]})
        yield View("course", "A course", "lines", {"x": [0, 1], "series": {"p": [1.0, 2.0], "q": [0.0, 1.0]}})
        yield View("use", "Use", "bars", {"names": ["a", "b"], "values": [1, 2], "ylabel": "times"})
        yield View("heat", "Heat", "heat", {"values": [[0.0, 1.0]], "rows": ["r"], "columns": ["c", "d"]})
        pictures = torch.zeros(4, 3, 64, 64, dtype=torch.uint8)
        yield View("faces", "Faces", "pictures", {"columns": 4, "captions": []}, pictures)


def test_looks_are_kept_as_png_and_json(tmp_path: Path) -> None:
    made = write_views(tmp_path, Looks(), lambda: ())
    assert [title for title, _ in read_views(tmp_path)] == ["A course", "Faces", "Heat", "A map", "Use"]
    assert json.loads((tmp_path / "views" / "use.json").read_text())["values"] == [1, 2]
    for view in made:
        image = Image.open(io.BytesIO(draw(view)))
        assert min(image.size) >= 64
        if view.kind != "pictures":
            assert len(np.unique(np.asarray(image.convert("L")))) > 10
    (tmp_path / "views" / "heat.json").write_text("{")
    assert "Heat" not in dict(read_views(tmp_path))
    assert not list(Predictor.views(Flat(), lambda: ()))


def test_the_film_of_a_training(tmp_path: Path) -> None:
    for step in range(1, 30):
        write_shown(tmp_path, SPEC, torch.full((4, 3, 64, 64), step / 30), step)
    frames = read_film(tmp_path)
    assert [step for step, _ in frames] == [1, 5, 9, 13, 17, 21, 25, 29]
    assert np.asarray(Image.open(frames[-1][1]))[0, 0, 0] == round((29 / 30 * 0.5 + 0.5) * 255)


def test_a_film_of_another_kind_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.gif or \.png"):
        check_film(tmp_path / "film.mp4")
    check_film(tmp_path / "film.GIF")


def test_a_run_whose_knobs_this_version_refuses_says_so(tmp_path: Path) -> None:
    run = engram.train("cnn", epochs=1, widths=(4,), out=tmp_path / "run", threads=1, progress=False, report=False)
    path = run.folder.run_json
    path.write_text(path.read_text().replace('"relu"', '"relax"'))
    with pytest.raises(RunError, match="cannot be built by this version: unknown activation 'relax'"):
        engram.load(tmp_path / "run").predict(np.zeros((8, 8), np.uint8))
