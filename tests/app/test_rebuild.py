"""engram encode, reconstruct and denoise: files, grids and folders, and what is said when something is wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import engram
from engram.app.cli import main
from engram.app.rebuild import pairs
from engram.recipes import find

Caught = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    knobs = {**find("autoencoder").tiny, "noise": "masking", "odd": "4", "epochs": 1, "threads": 1}
    folder = tmp_path_factory.mktemp("runs") / "run"
    engram.train("autoencoder", out=folder, progress=False, report=False, **knobs)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven pictures of mixed sizes and modes, in folders; two of one name but for the ending."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    (folder / "more").mkdir()
    for number in range(9):
        size = (8 + number, 12)
        Image.fromarray(random.integers(0, 255, size, np.uint8)).save(folder / f"{number}.png")
    Image.fromarray(random.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / "more" / "a.jpg")
    Image.fromarray(random.integers(0, 255, (8, 8), np.uint8)).save(folder / "more" / "a.png")
    return folder


def test_codes_are_the_same_in_every_form(run: Path, photos: Path, tmp_path: Path, capsys: Caught) -> None:
    npy, table = tmp_path / "in" / "c.npy", tmp_path / "c.csv"
    assert main(["encode", str(run), str(photos), "-o", str(npy), "--rows", "4"]) == 0
    assert capsys.readouterr().out.strip() == str(npy)
    codes = np.load(npy)
    assert codes.shape == (11, 16)
    assert codes.dtype == np.float32
    loaded = engram.load(run)
    first = loaded.predictor.encode(loaded.spec.encode(photos / "0.png")["x"])  # type: ignore[attr-defined]
    np.testing.assert_allclose(codes[0], first[0].numpy(), rtol=1e-5, atol=1e-6)
    assert main(["encode", str(run), str(photos), "-o", str(table), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(table), "shape": [11, 16]}
    assert main(["encode", str(run), str(photos)]) == 0
    assert capsys.readouterr().out == table.read_text()
    lines = list(csv.reader(table.open()))
    assert lines[0] == ["input", *(f"c{i}" for i in range(16))]
    assert [line[0] for line in lines[1:]][-2:] == ["more/a.jpg", "more/a.png"]
    np.testing.assert_allclose(np.array([line[1:] for line in lines[1:]], np.float32), codes, rtol=1e-5, atol=1e-6)
    assert main(["encode", str(run), str(photos), "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose([s["code"] for s in said], codes, rtol=1e-5, atol=1e-6)
    assert {path.name for path in tmp_path.rglob("*")} == {"in", "c.npy", "c.csv"}


def test_maps_are_kept_in_npy_and_laid_flat_in_csv(tmp_path: Path, photos: Path, capsys: Caught) -> None:
    knobs = {**find("conv_autoencoder").tiny, "spatial": True, "code": 3, "steps": 2, "epochs": 1, "threads": 1}
    engram.train("conv_autoencoder", out=tmp_path / "run", progress=False, report=False, **knobs)
    assert main(["encode", str(tmp_path / "run"), str(photos), "-o", str(tmp_path / "c.npy")]) == 0
    assert np.load(tmp_path / "c.npy").shape == (11, 3, 2, 2)
    assert main(["encode", str(tmp_path / "run"), str(photos / "0.png")]) == 0
    assert len(capsys.readouterr().out.splitlines()[-1].split(",")) == 13
    # it was trained without noise
    assert main(["denoise", str(tmp_path / "run"), str(photos), "--json"]) == 2
    assert "noise=gaussian makes one" in json.loads(capsys.readouterr().out)["error"]


def test_a_grid_has_pictures_and_below_them_what_comes_back(run: Path, photos: Path, tmp_path: Path, capsys: Caught) -> None:
    target = tmp_path / "pairs.png"
    assert main(["reconstruct", str(run), str(photos), "-o", str(target), "--n", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(target), "n": 3, "inputs": ["0.png", "1.png", "2.png"]}
    loaded = engram.load(run)
    x = loaded.spec.encode([photos / "1.png"])["x"]
    again = loaded.predictor.reconstruct(x)  # type: ignore[attr-defined]
    sheet = np.asarray(Image.open(target))
    assert sheet.shape == (2 * 64 + 2, 3 * 64 + 4)  # 8 pixels shown eightfold
    for top, picture in ((0, x), (66, again)):
        shown = sheet[top : top + 64 : 8, 66 : 66 + 64 : 8].astype(int)
        assert abs(shown - (picture[0, 0] * 255).round().numpy()).max() <= 1
    assert main(["reconstruct", str(run), str(photos)]) == 0  # into the run when nothing is said
    assert Path(capsys.readouterr().out.strip()) == run / "samples" / "reconstructed.png"
    assert Image.open(run / "samples" / "reconstructed.png").size == (8 * 66 - 2, 4 * 66 - 2)


def test_pairs_fill_the_last_line_with_white() -> None:
    before, after = np.zeros((10, 2, 2, 1), np.uint8), np.ones((10, 2, 2, 1), np.uint8)
    found = pairs(before, after)[:, 0, 0, 0].tolist()
    assert found == [0] * 8 + [1] * 8 + [0] * 2 + [255] * 6 + [1] * 2 + [255] * 6


def test_a_folder_gets_every_picture_under_its_name(run: Path, photos: Path, tmp_path: Path, capsys: Caught) -> None:
    target = tmp_path / "clean"
    assert main(["denoise", str(run), str(photos), "-o", str(target), "--rows", "4"]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    names = sorted(p.relative_to(target).as_posix() for p in target.rglob("*.png"))
    assert names == [*(f"{i}.png" for i in range(9)), "more/a.png", "more/a.png.png"]
    loaded = engram.load(run)
    x = loaded.spec.encode([photos / "3.png"])["x"]
    expected = loaded.predictor.denoise(x)  # type: ignore[attr-defined]
    assert abs(np.asarray(Image.open(target / "3.png")).astype(int) - (expected[0, 0] * 255).round().numpy()).max() <= 1


def test_what_is_wrong_is_said_in_one_line(run: Path, photos: Path, tmp_path: Path, capsys: Caught) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    calls = [
        (["encode", str(run), str(photos), "-o", str(tmp_path / "c.txt")], 2, ".npy or .csv"),
        (["reconstruct", str(run), str(photos), "-o", str(tmp_path / "c.gif")], 2, "one grid"),
        (["denoise", str(run), str(photos), "-o", str(tmp_path / "c.png"), "--n", "600"], 2, "at most 512"),
        (["denoise", str(run), str(photos), "-o", str(photos)], 2, "name another folder"),
        (["denoise", str(run), str(photos), "-o", str(photos / "clean" / "all")], 2, "all of which is read"),
        (["denoise", str(run), str(photos), "-o", str(photos / "more" / ".." / "clean")], 2, "name another folder"),
        (["encode", str(run), str(tmp_path / "empty")], 3, "holds no images"),
        (["encode", str(run), str(tmp_path / "missing.png")], 3, "missing.png"),
        (["reconstruct", str(run), str(tmp_path / "text.png")], 3, "text.png"),
        (["encode", str(tmp_path), str(photos)], 1, "not a run folder"),
    ]
    for call, code, words in calls:
        assert main(call) == code, call
        said = capsys.readouterr().err.strip()
        assert words in said
        assert "\n" not in said
    assert not list(tmp_path.glob("*.tmp"))
    assert not list(photos.rglob("clean"))


def test_other_runs_are_refused(tmp_path: Path, photos: Path, capsys: Caught) -> None:
    other = engram.train("mlp", out=tmp_path / "mlp", progress=False, report=False, **{**find("mlp").tiny, "steps": 2})
    for verb in ("encode", "reconstruct", "denoise"):
        assert main([verb, str(other.path), str(photos)]) == 2
        assert "is a run of mlp" in capsys.readouterr().err


def test_odd_pictures_are_named_by_a_threshold_that_the_run_keeps(run: Path, photos: Path, capsys: Caught) -> None:
    loaded = engram.load(run)
    kept = float(loaded.task.get_buffer("threshold"))
    evals = [r["metrics"]["threshold"] for r in loaded.metrics if r["kind"] == "eval" and r.get("best")]
    assert kept == pytest.approx(evals[-1], rel=1e-6)
    assert kept > 0
    assert main(["predict", str(run), str(photos), "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(s["odd"] == ("yes" if s["unexplained"] > kept else "no") for s in said)
    assert [s["odd"] for s in said].count("yes") >= 8  # noise is no digit
    result = loaded.result
    assert result["headline"] == "roc_auc"
    assert result["rows"] == 180
    assert torch.isfinite(torch.tensor([result["metrics"]["roc_auc"][k] for k in ("value", "low", "high")])).all()


def test_averaged_weights_come_with_their_own_threshold(tmp_path: Path) -> None:
    knobs = {**find("autoencoder").tiny, "ema": 0.9, "epochs": 2, "threads": 1, "saves": 5}
    run = engram.train("autoencoder", out=tmp_path / "run", progress=False, report=False, **knobs)
    (best,) = [r["metrics"]["threshold"] for r in run.metrics if r["kind"] == "eval" and r["best"]][-1:]
    assert float(engram.load(run.path).task.get_buffer("threshold")) == pytest.approx(best, rel=1e-6)


REFUSED: list[tuple[dict[str, object], str]] = [
    ({"odd": "10"}, "no class '10'"),
    ({"odd": "4", "normal": "3"}, "two ways"),
    ({"noise": "masking", "amount": 2.0}, "0 to 1"),
    ({"sparse": "kl", "code_activation": "relu"}, "sigmoid does"),
    ({"sparse": "kl", "accumulate": 2}, "mean activation"),
]


@pytest.mark.parametrize(("knobs", "words"), REFUSED)
def test_knobs_that_do_not_go_together(knobs: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(engram.EngramError, match=words):
        engram.train("autoencoder", out=tmp_path / "run", progress=False, **{**find("autoencoder").tiny, **knobs})
