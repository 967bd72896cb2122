"""Every command and every Python block of the documentation runs, page by page, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from engram.app.cli import main

ROOT = Path(__file__).parent.parent
PAGES = sorted(p for p in [*ROOT.glob("docs/**/*.md"), ROOT / "CONTRIBUTING.md"] if p.exists())
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text("utf-8"))


def run_shell(line: str) -> None:
    """Plain `engram` lines run in this process, which has torch already; pipes go through bash."""
    if line.startswith("engram ") and not re.search(r"[|><$]", line):
        assert main(shlex.split(line)[1:]) == 0, line
        return
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    engram = f"engram() {{ {shlex.quote(sys.executable)} -m engram \"$@\"; }}; set -euo pipefail; "
    done = subprocess.run(["bash", "-c", engram + line], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": "__main__"}
    for kind, text in blocks(page):
        if kind == "python":
            exec(compile(text, str(page), "exec"), scope)
            continue
        for line in text.splitlines():
            if line.strip() and not line.startswith("#"):
                run_shell(line.partition("   #")[0].strip())


def test_every_page_has_something_that_runs() -> None:
    silent = [str(p.relative_to(ROOT)) for p in PAGES if not blocks(p) and p.name != "peers.md"]
    assert not silent, f"nothing runs in {silent}"


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
