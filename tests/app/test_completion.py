"""What the shell is offered at TAB."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from engram.app.cli.complete import Bash, script
from engram.app.cli.group import cli


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs, the newer one second; a table and a folder."""
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("new-001", "old-001")):
        Path("runs", name).mkdir(parents=True)
        made = Path("runs", name, "run.json")
        made.write_text("{}")
        os.utime(made, (1_000_000 - age, 1_000_000 - age))
    Path("houses.csv").write_text("a,b\n1,2\n")
    Path("photos").mkdir()
    return tmp_path


def offered(*words: str) -> list[str]:
    """Values for the last word."""
    *before, last = words
    return [item.value for item in ShellComplete(cli, {}, "engram", "_ENGRAM_COMPLETE").get_completions(before, last)]


def test_commands():
    assert offered("re") == ["resume", "reconstruct", "report"]


def test_recipes_data_and_paths():
    found = offered("train", "")
    assert {"cnn", "mlp", "iris", "houses.csv", "photos/"} <= set(found)
    assert found.index("cnn") < found.index("iris") < found.index("houses.csv")
    assert offered("train", "cn") == ["cnn"]


def test_runs_newest_first():
    assert offered("predict", "")[:2] == ["runs/new-001", "runs/old-001"]
    assert offered("resume", "runs/o") == ["runs/old-001"]
    assert offered("compare", "runs/new-001", "runs/o") == ["runs/old-001"]


def test_knobs_after_the_recipe():
    found = offered("train", "cnn", "")
    assert {"epochs=", "widths=", "optim.lr="} <= set(found)
    assert "cnn" not in found
    assert offered("train", "mlp", "epochs=3", "tar") == ["target="]
    assert "target=" in offered("train", "houses.csv", "")


def test_values():
    assert offered("train", "cnn", "pool=") == ["pool=max", "pool=avg"]
    assert offered("train", "cnn", "augment.flip=") == ["augment.flip=true", "augment.flip=false"]
    assert offered("train", "mlp", "data=ir") == ["data=iris"]
    assert offered("train", "mlp", "data=hou") == ["data=houses.csv"]
    assert offered("train", "cnn", "start_from=runs/n") == ["start_from=runs/new-001"]


def test_bash_breaks_words_at_the_equals_sign():
    assert offered("train", "cnn", "pool", "=") == ["max", "avg"]
    assert offered("train", "cnn", "pool", "=", "a") == ["avg"]
    assert offered("train", "cnn", "epochs", "=", "3", "poo") == ["pool="]


def test_options():
    assert offered("train", "--dry") == ["--dry-run"]


def test_own_recipe_files_are_not_run(folder: Path):
    Path("own.py").write_text("raise SystemExit('ran')")
    assert offered("train", "own.py", "e") == []


def test_scripts():
    for shell in ("bash", "zsh", "fish"):
        text = script(cli, shell)
        assert f"_ENGRAM_COMPLETE={shell}_complete" in text
        assert "%(" not in text


def test_bash_runs_the_script(tmp_path: Path):
    """bash itself, with a stand-in for the program that prints what the program would."""
    answers = "\n".join(Bash(cli, {}, "engram", "").format_completion(item) for item in items("train", "cnn", "optim.l"))
    program = tmp_path / "engram"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{answers}\nEND\n")
    program.chmod(0o755)
    code = f"{script(cli, 'bash')}\nCOMP_WORDS=(engram train cnn optim.l) COMP_CWORD=3\n" + (
        'compopt() { echo "option ${*: -1}"; }\n_engram_completion "$0"\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", code, str(program)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PATH": f"{tmp_path}:/bin:/usr/bin"},
    )
    assert done.stdout.split("\n")[:3] == ["option nospace", "option nospace", "optim.lr="]


def items(*words: str) -> list:
    *before, last = words
    return ShellComplete(cli, {}, "engram", "_ENGRAM_COMPLETE").get_completions(before, last)


@pytest.mark.parametrize("words", ["engram train c", "engram predict ru", "engram train mlp data=i"])
def test_the_answer_to_the_shell_imports_no_torch(words: str):
    code = (
        "import sys; from engram.app.cli import main; code = main([]);"
        "print(sorted({'torch', 'numpy', 'pandas', 'rich'} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    asked = {"_ENGRAM_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | asked, cwd=os.getcwd()
    )
    assert done.stdout.startswith("plain,")
    assert done.stderr.strip() == "[]"
