"""Passages with their lines, and the command that searches them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import engram
from engram.app.cli import main
from engram.inference.search import passages

TEXT = "One two. Three\nfour five.\n\n  \n  Six seven eight nine ten eleven.\n\nTwelve.\n"


def test_passages_hold_every_word_once_and_know_their_line() -> None:
    for words in (1, 2, 4, 100):
        found = list(passages(TEXT, "f.txt", words))
        assert " ".join(p.text for p in found).split() == TEXT.split()
        assert max(len(p.text.split()) for p in found) <= words
        for p in found:
            assert p.text.split()[0] in TEXT.splitlines()[p.line - 1]
    assert [(p.line, p.text) for p in passages(TEXT, "f.txt", 5)] == [
        (1, "One two. Three four five."), (5, "Six seven eight nine ten"), (5, "eleven."), (7, "Twelve."),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"source": f"{a} {b}", "target": f"{b} {a}"} for a in "abcdefgh" for b in "mnopqrst"]
    small = {"vocab": "word", "context": 8, "layers": 1, "heads": 2, "width": 16, "dropout": 0.0, "steps": 60, "batch": 16}
    path = tmp_path_factory.mktemp("search") / "run"
    engram.train("sentence", data=rows, out=path, progress=False, report=False, threads=1, **{**small, "optim.lr": 3e-3})
    return path


def test_search_finds_and_keeps_an_index(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, index = tmp_path / "notes", tmp_path / "i.safetensors"
    folder.mkdir()
    (folder / "a.txt").write_text("a m\n\nb n\n\nc o\n")
    (folder / "b.md").write_text("d p\n")
    ask = ["search", str(run), str(folder), "n b", "--top", "2", "--json", "--index", str(index)]
    assert main(ask) == 0
    first = json.loads(capsys.readouterr().out)
    assert len(first) == 2
    assert (first[0]["text"], first[0]["line"], Path(first[0]["file"]).name) == ("b n", 3, "a.txt")
    written = index.stat().st_mtime_ns
    assert main(ask) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert index.stat().st_mtime_ns == written  # used, not made anew
    (folder / "b.md").write_text("n b\n")
    assert main(ask) == 0
    assert {row["text"] for row in json.loads(capsys.readouterr().out)} == {"n b", "b n"}
    assert index.stat().st_mtime_ns != written


def test_search_says_what_is_wrong(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source, question, said in (
        (tmp_path / "no.txt", "a", "no file"),
        (tmp_path, "a", "no text file"),
        (tmp_path, " ", "empty"),
    ):
        assert main(["search", str(run), str(source), question]) == 3
        assert said in capsys.readouterr().err
