"""Near words and analogies, by the predictor and by `engram neighbours`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engram.app.cli import main
from engram.data.vectors import load_vectors, save_vectors
from engram.data.word_spec import WordSpec
from engram.inference.neighbours import Neighbours, analogy, nearest, unit

WORDS = ("man", "king", "woman", "queen", "car")
VECTORS = torch.tensor([[1.0, 0, 0.1], [1, 0, 2], [0, 3, 0.1], [0, 1, 1], [-1, -1, 0]])


@pytest.fixture
def file(tmp_path: Path) -> str:
    save_vectors(tmp_path / "v.txt", WORDS, VECTORS)
    return str(tmp_path / "v.txt")


def test_nearest_is_sorted_by_the_cosine_and_leaves_out_the_word() -> None:
    cosines, numbers = nearest(unit(VECTORS), VECTORS[:1], 9, torch.tensor([[0]]))
    expected = torch.nn.functional.cosine_similarity(VECTORS[:1], VECTORS)
    assert numbers.tolist() == [[1, 3, 2, 4]]
    torch.testing.assert_close(cosines[0], expected[numbers[0]])


def test_analogy() -> None:
    assert analogy(unit(VECTORS), torch.tensor([[0, 1, 2]]))[1].tolist() == [[3]]


def test_predictor_takes_words_together() -> None:
    predictor = Neighbours(VECTORS, WORDS, WordSpec(words=WORDS, counts=(5, 4, 3, 2, 1)), most=2)
    out = predictor(input=["man", ["king", "woman"]])["neighbours"]
    assert [n["word"] for n in out[0]] == ["king", "queen"]
    assert [n["word"] for n in out[1]] == ["queen", "man"]
    expected = torch.nn.functional.cosine_similarity(VECTORS[1:3].mean(0), VECTORS[3], dim=0)
    assert out[1][0]["similarity"] == pytest.approx(float(expected), abs=1e-4)


def test_command_on_a_file(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["neighbours", file, "King", "--analogy", "man king woman", "--most", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["neighbours"]["King"][0]["word"] == "queen"
    assert found["analogies"]["man king woman"][0]["word"] == "queen"


def test_command_writes_vectors(file: str, tmp_path: Path) -> None:
    assert main(["neighbours", file, "--save", str(tmp_path / "out.txt")]) == 0
    words, vectors = load_vectors(tmp_path / "out.txt")
    assert words == list(WORDS)
    assert torch.equal(vectors, VECTORS)


def test_command_evaluates(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wordsim").mkdir()
    (tmp_path / "wordsim" / "EN-WS-353-ALL.txt").write_text("man king 7\nking car 1\nman dog 3\n", "utf-8")
    monkeypatch.setenv("ENGRAM_DATA", str(tmp_path))
    assert main(["neighbours", file, "--evaluate", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["evaluation"]
    assert found == {"wordsim353": {"spearman": pytest.approx(1.0), "covered": 2, "pairs": 3}}
    monkeypatch.setenv("ENGRAM_DATA", str(tmp_path / "wordsim"))
    assert main(["neighbours", file, "--evaluate"]) == 3
    assert "set ENGRAM_DATA" in capsys.readouterr().err


def test_command_says_what_is_wrong(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code, said in (
        ([file], 2, "nothing to do"),
        ([file, "kin"], 3, "did you mean king"),
        ([file, "--analogy", "man king"], 2, "takes three words"),
        ([f"{file}.gone", "man"], 1, "no run at"),
    ):
        assert main(["neighbours", *arguments]) == code
        assert said in capsys.readouterr().err
