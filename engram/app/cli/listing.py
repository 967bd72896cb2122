"""engram list: recipes, built-in data sets, and the runs in ./runs. Nothing here imports torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from engram.app.cli.options import json_option
from engram.app.cli.output import emit, emit_json, emit_table, number, say

SHOWN = 20  # runs in the table; --json gives all


def run_folders(parent: Path = Path("runs")) -> list[Path]:
    """The runs in a folder, newest first."""
    try:
        found = [(p.stat().st_mtime, p.parent) for p in parent.glob("*/run.json")]
    except OSError:
        return []
    return [path for _, path in sorted(found, key=lambda pair: (-pair[0], pair[1]))]


def describe_run(path: Path) -> dict[str, Any]:
    """What run.json and result.json say in short; a damaged folder is listed as such."""
    info, result = _json(path / "run.json"), _json(path / "result.json")
    data = info.get("data")
    about: dict[str, Any] = {
        "run": str(path),
        "recipe": info.get("recipe"),
        "data": data.get("title") if isinstance(data, dict) else None,
        "created": info.get("created"),
        "state": "damaged" if "recipe" not in info else "finished" if result else "unfinished",
    }
    return about | {"result": result.get("verdict")}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@click.command("list")
@click.argument("what", required=False, type=click.Choice(["recipes", "data", "runs"]))
@json_option
def command(what: str | None, as_json: bool) -> None:
    """List recipes, built-in data sets and runs (newest first)."""
    from engram.data.sources import BUILT_IN
    from engram.recipes import names, summary

    folders = run_folders()
    if as_json:
        found: dict[str, Any] = {
            "recipes": {name: summary(name) for name in names()},
            "data": {
                n: {"kind": s.kind, "rows": s.rows, "description": s.description, "licence": s.licence}
                for n, s in BUILT_IN.items()
            },
            "runs": [describe_run(path) for path in folders],
        }
        emit_json(found[what] if what else found)
        return
    if what in (None, "recipes"):
        emit_table(["RECIPE", "FOR"], [[name, summary(name)] for name in names()])
    if what is None:
        emit("")
    if what in (None, "data"):
        rows = [[n, s.kind, number(s.rows), s.description] for n, s in BUILT_IN.items()]
        emit_table(["DATA", "KIND", "ROWS", "WHAT"], rows, right=[2])
    if what in (None, "runs"):
        _runs(folders, what is None)


def _runs(folders: list[Path], apart: bool) -> None:
    if not folders:
        say("no runs in ./runs yet; `engram train` makes one")
        return
    if apart:
        emit("")
    found = [describe_run(path) for path in folders[:SHOWN]]
    rows = [[r["run"], (r["created"] or "")[:16].replace("T", " "), r["state"], r["result"] or r["data"] or ""] for r in found]
    emit_table(["RUN", "CREATED (UTC)", "STATE", "RESULT"], rows)
    if len(folders) > SHOWN:
        say(f"and {len(folders) - SHOWN} older runs; `engram list runs --json` gives all")
