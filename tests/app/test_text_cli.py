"""The commands for runs of text: chat, tokenize, inspect, predict; and what they say to bad input."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import engram
from engram.app.cli import main

SIZES = {"layers": 1, "heads": 2, "width": 16, "steps": 8, "batch": 4, "threads": 1, "evals": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    engram.train("gpt", out=folder / "gpt", progress=False, context=32, vocab="char", **SIZES)
    engram.train("chat", out=folder / "chat", progress=False, context=32, start_from=str(folder / "gpt"), **SIZES)
    engram.train("cnn", out=folder / "cnn", progress=False, epochs=0.1, widths=(2,), threads=1)
    return folder


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(a) for a in args])
    out, err = capsys.readouterr()
    return code, out, err


def test_tokenize_shows_pieces_ids_and_cost(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "tokenize", runs / "gpt", "if x: y")
    assert code == 0
    assert out.count(":") >= 7
    assert "7 tokens for 7 bytes" in err
    assert "multiply-adds" in err
    code, out, _ = call(capsys, "tokenize", runs / "gpt", "if x: y", "--json")
    found = json.loads(out)
    assert found["pieces"] == list("if x: y")
    assert len(found["ids"]) == found["tokens"] == 7
    assert found["cache_bytes"] == 2 * 16 * 7 * 4  # keys and values, 16 numbers of 4 bytes for each token
    long = json.loads(call(capsys, "tokenize", runs / "gpt", "a b " * 30, "--json")[1])
    assert any("left out" in s for s in long["sentences"])


def test_inspect_gives_attention_probabilities_and_saliency(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    png = tmp_path / "a.png"
    code, out, _ = call(capsys, "inspect", runs / "gpt", "if x: y", "--json", "--png", png, "--head", 2)
    found = json.loads(out)
    assert code == 0
    assert png.read_bytes().startswith(b"\x89PNG")
    assert len(found["attention"]) == len(found["tokens"]) == len(found["saliency"]) == 8
    assert all(abs(sum(row) - 1) < 1e-3 for row in found["attention"])
    assert [p.get("token") for p in found["probabilities"]] == [*"if x: y", None]
    assert found["answer"]["text"] == found["probabilities"][-1]["alternatives"][0]["token"]
    assert "answer" in call(capsys, "inspect", runs / "gpt", "if x: y")[1]
    chosen = json.loads(call(capsys, "inspect", runs / "gpt", "if x: y", "--json", "--answer", "z")[1])
    assert chosen["answer"]["text"] == "z"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("inspect", "gpt", "if x", "--layer", 3), 2, "1 attention layers"),
        (("inspect", "gpt", "if x", "--head", 9), 2, "2 heads"),
        (("inspect", "gpt", "a b" * 40), 3, "sees 32 at once"),
        (("inspect", "gpt", "\u5b57 \u5b57"), 3, "vocabulary of this run has no"),
        (("inspect", "cnn", "if x"), 2, "does not read text"),
        (("tokenize", "cnn", "if x"), 2, "does not read text"),
        (("tokenize", "gpt", "missing.txt"), 3, "no file"),
        (("chat", "gpt"), 2, "not trained on conversations"),
        (("predict", "gpt", "missing.txt"), 3, "missing.txt"),
    ],
)
def test_bad_input_is_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str], args: tuple[object, ...], code: int, said: str
) -> None:
    found, out, err = call(capsys, args[0], runs / str(args[1]), *args[2:])
    assert (found, out) == (code, ""), err
    assert said in err
    assert err.count("\n") == 1


def test_chat_answers_line_by_line(runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("What is it?\n/new\nAnd that?\n\nnot read\n"))
    code, out, _ = call(capsys, "chat", runs / "chat", "--tokens", 5, "--json", "--system", "Be brief.")
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [a["input"] for a in answers] == ["What is it?", "And that?"]


def test_the_report_shows_the_inside(runs: Path) -> None:
    page = (runs / "gpt" / "report.html").read_text("utf-8")
    assert "Where each token looks" in page
    assert "How likely the network found each token" in page
    assert "perplexity" in page.lower()


def test_a_file_of_text_can_be_measured(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.txt").write_text("The statement is a statement. " * 30)
    code, out, err = call(capsys, "eval", runs / "gpt", tmp_path / "t.txt", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["metrics"]["perplexity"]["value"] > 1


def test_every_kind_of_text_run_can_be_looked_into(tmp_path: Path) -> None:
    """What the answer is follows from the run: a class, tags, a span, a hidden token, or the text written."""
    from engram.app.inside import inside

    small = {"width": 16, "layers": 1, "steps": 2, "threads": 1, "evals": 1, "progress": False, "report": False}
    heads = {"heads": 2}
    asked: list[tuple[str, dict[str, object], object, int]] = [
        ("textcnn", {"embed": 8, "epochs": 0.1, "threads": 1, "progress": False, "report": False}, "a word", 0),
        ("lstm", {"data": "pydoc_code", **small}, ["a", "word", "here"], 0),
        ("bert", {"data": "pydoc", **small, **heads}, "a <mask> here", 1),
        ("transformer", {"data": "numbers", **small, **heads}, "seven", 3),
        ("t5", {"data": "numbers", **small, **heads}, "seven", 3),
        ("seq2seq", {"data": "numbers", **small}, "seven", 1),
    ]
    for name, knobs, text, layers in asked:
        run = engram.train(name, out=tmp_path / name, **knobs)  # type: ignore[arg-type]
        found = inside(run, text)
        assert len(found["saliency"]) == len(found["tokens"]), name
        assert len(found["layers"]) == layers, name
        assert 0 <= found["answer"]["probability"] <= 1, name
    tags = inside(engram.load(tmp_path / "lstm"), ["a", "word", "here"])["answer"]["text"].split()
    assert len(tags) == 3


def test_the_next_command_suits_the_run(runs: Path) -> None:
    from engram.app.progress import next_command
    from engram.checkpoint.folder import RunFolder

    said = {name: next_command(RunFolder.open(runs / name)) for name in ("gpt", "chat", "cnn")}
    assert said["gpt"].startswith("engram generate")
    assert said["chat"].startswith("engram chat")
    assert said["cnn"].startswith("engram predict")
