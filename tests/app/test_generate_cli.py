"""engram generate: text on stdout as it comes, talk on stderr, and a clear line for what cannot be done."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import engram
from engram.app.cli import main

SIZES: dict[str, Any] = {"layers": 1, "heads": 2, "width": 16, "steps": 8, "batch": 4, "threads": 1, "evals": 1}
SMALLER: dict[str, Any] = {**SIZES, "width": 8}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate")
    text = folder / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog; if x: y\n" * 60)
    data = str(text)
    engram.train("gpt", data=data, out=folder / "gpt", progress=False, context=32, vocab="char", **SIZES)
    engram.train("gpt", data=data, out=folder / "small", progress=False, context=16, vocab="char", **SMALLER)
    engram.train("gpt", data=data, out=folder / "bytes", progress=False, context=16, vocab="byte", **SIZES)
    engram.train("cnn", out=folder / "cnn", progress=False, epochs=0.1, widths=(2,), threads=1)
    return folder


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["generate", *map(str, args)])
    out, err = capsys.readouterr()
    return code, out, err


def test_text_samples_and_seeds(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs / "gpt"
    code, out, err = call(capsys, run, "if x", "--tokens", 20)
    assert (code, err) == (0, "")
    assert 1 < len(out) <= 21
    assert out.endswith("\n")
    assert call(capsys, run, "if x", "--tokens", 20)[1] == out
    assert call(capsys, run, "if x", "--tokens", 20, "--seed", 1)[1] != out
    three = call(capsys, run, "if x", "--tokens", 20, "--samples", 3)[1]
    assert three.startswith(out[:-1] + "\n\n")
    lines = [json.loads(s) for s in call(capsys, run, "if x", "--tokens", 20, "--samples", 3, "--json")[1].splitlines()]
    assert sorted(o["sample"] for o in lines) == [0, 1, 2]
    assert "\n\n".join(o["text"] for o in sorted(lines, key=lambda o: o["sample"])) + "\n" == three
    assert all("".join(t["token"] for t in o["tokens"] if t["id"] > 8) == o["text"] for o in lines)
    assert all(0 < t["probability"] <= 1 for o in lines for t in o["tokens"])


def test_prompt_from_stdin_and_none(runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    typed = call(capsys, runs / "gpt", "if x", "--tokens", 9)[1]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"if x\n")))
    assert call(capsys, runs / "gpt", "-", "--tokens", 9)[1] == typed
    assert call(capsys, runs / "gpt", "--tokens", 9)[0] == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    code, _, err = call(capsys, runs / "gpt", "-")
    assert (code, "standard input is empty" in err) == (3, True)


def test_probs_beams_stop_draft_weights(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs / "gpt"
    code, out, _ = call(capsys, run, "if x", "--tokens", 5, "--temperature", 0, "--probs", 3)
    rows = [line.split("\t") for line in out.splitlines()]
    assert (code, len(rows)) == (0, 5)
    assert all(others.startswith(token) and others.count("  ") >= 2 for token, others in rows)
    greedy = call(capsys, run, "if x", "--tokens", 30, "--temperature", 0)[1]
    assert call(capsys, run, "if x", "--tokens", 30, "--temperature", 0, "--draft", runs / "small")[1] == greedy
    stop = greedy[4:6]
    assert call(capsys, run, "if x", "--tokens", 30, "--temperature", 0, "--stop", stop)[1] == greedy.split(stop)[0] + "\n"
    assert call(capsys, run, "if x", "--tokens", 12, "--beams", 3)[0] == 0
    code, _, err = call(capsys, run, "if x", "--tokens", 5, "--weights", "int8")
    assert code == 0
    assert "as int8" in err


def test_long_prompt_is_said(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, runs / "gpt", "if x" * 20, "--tokens", 3, "--json")
    assert code == 0
    assert "longer than the 32 tokens" in err
    assert "its first 49 are left out" in err
    assert json.loads(out)["left_out"] == 49


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["gpt", ""], 3, "the prompt is empty"),
        (["gpt", "\u4f60"], 3, "has no '\u4f60'"),
        (["cnn", "a"], 2, "is a cnn run, which writes no text"),
        (["nothing", "a"], 1, "nothing"),
        (["gpt", "if", "--draft", "bytes"], 2, "another vocabulary"),
        (["gpt", "if", "--top-p", "2"], 2, "top-p"),
        (["gpt", "if", "--temperature", "nan"], 2, "temperature"),
        (["gpt", "if", "--beams", "3"], 2, "context of 32 tokens"),
    ],
)
def test_errors(runs: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, line: str) -> None:
    names = {"gpt", "cnn", "nothing", "bytes"}
    found, out, err = call(capsys, *(runs / w if w in names else w for w in words))
    assert (found, out) == (code, "")
    assert line in err
    assert len(err.splitlines()) == 1


def test_streams_into_a_pipe_and_ends_cleanly(runs: Path) -> None:
    """The first text is there long before the last token; Ctrl-C then ends with 130 and one line."""
    command = [
        sys.executable,
        "-m",
        "engram",
        "generate",
        str(runs / "gpt"),
        "if x",
        "--tokens",
        "10000000",
        "--temperature",
        "0",
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.read(5)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        err = process.stderr.read().decode()
        assert process.wait(20) == 130
    assert err == "engram: interrupted\n"
