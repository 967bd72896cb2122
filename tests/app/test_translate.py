"""engram translate: texts, files, scores, pictures, and what is said when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import engram
from engram.app.alignment import align
from engram.app.cli import main
from engram.core.errors import ConfigError
from engram.recipes import find

# two letters change places
SWAPPED = [{"source": f"{a} {b}", "target": f"{b} {a}"} for a in "abcdefghijkl" for b in "mnopqrstuvwx"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs") / "run"
    knobs = {**find("transformer").tiny, "data": SWAPPED, "vocab": "word", "context": 8, "heads": 4, "steps": 200, "threads": 1}
    engram.train("transformer", out=folder, progress=False, report=False, **knobs)
    return folder


def test_a_text_and_a_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", str(run), "a m"]) == 0
    one = capsys.readouterr().out
    assert one.split() == ["m", "a"]
    (tmp_path / "in.txt").write_text("b n\na m\nc o\n")
    assert main(["translate", str(run), str(tmp_path / "in.txt"), "--beam", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1] == one.strip()


def test_json_has_scores_and_attention(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "a.png"
    call = ["translate", str(run), "a m", "--json", "--beam", "3", "--best", "3", "--penalty", "0", "--attention", str(picture)]
    assert main(call) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["input"] == "a m"
    assert said["text"] == said["hypotheses"][0]["text"]
    scores = [h["score"] for h in said["hypotheses"]]
    assert scores == sorted(scores, reverse=True)
    assert all(s == h["log_probability"] for s, h in zip(scores, said["hypotheses"], strict=True))
    found = said["attention"]
    assert found["source"] == ["a", "m", "</s>"]
    assert found["target"] == ["m", "a", "</s>"]
    assert [len(row) for row in found["weights"]] == [3, 3, 3]
    assert len(found["layers"][0]) == 4
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_given_target_is_aligned_too(run: Path) -> None:
    found = align(engram.load(run), "a m", "m m m")
    assert found.target == ("m", "m", "m", "</s>")
    assert found.weights.shape == (1, 4, 4, 3)


def test_heads_count_from_one(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(tmp_path / "a.png")
    assert main(["translate", str(run), "a m", "--attention", picture, "--layer", "1", "--head", "4"]) == 0
    assert main(["translate", str(run), "a m", "--attention", picture, "--head", "5"]) == 2
    assert "no layer=None head=5" in capsys.readouterr().err


def test_what_is_said_of_long_and_empty_texts(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", str(run), "a b c d e f g a b"]) == 0
    assert "2 tokens longer than the 7 that this run reads; its end was not translated" in capsys.readouterr().err
    assert main(["translate", str(run), " "]) == 3
    assert "the source is empty" in capsys.readouterr().err


def test_other_runs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = engram.train("mlp", out=tmp_path / "mlp", progress=False, report=False, **{**find("mlp").tiny, "steps": 2})
    assert main(["translate", str(other.path), "a m"]) == 2
    assert "does not go from text to text" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        align(other, "a m")
