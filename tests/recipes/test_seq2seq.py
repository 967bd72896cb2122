"""Runs of seq2seq that were saved before it had norms."""

from __future__ import annotations

import json
from pathlib import Path

import engram
from engram.recipes import find

KNOBS = {**find("seq2seq").tiny, "steps": 6, "device": "cpu", "threads": 1}


def test_a_run_from_before_the_norms_gives_what_it_gave(tmp_path: Path) -> None:
    """Its run.json has no `norm`; it still loads, predicts the same, and trains on."""
    made = engram.train("seq2seq", out=tmp_path / "run", progress=False, norm=False, **KNOBS)
    assert not [name for name in made.task.state_dict() if "norm" in name]
    inputs = ["seven", "two hundred and five"]
    before = made.predict(inputs)
    file = tmp_path / "run" / "run.json"
    info = json.loads(file.read_text("utf-8"))
    del info["knobs"]["norm"]
    file.write_text(json.dumps(info), "utf-8")
    again = engram.load(tmp_path / "run")
    assert again.recipe.norm is False  # type: ignore[attr-defined]
    assert again.predict(inputs) == before
    assert engram.resume(tmp_path / "run", progress=False).predict(inputs) == before


def test_new_runs_have_norms(tmp_path: Path) -> None:
    run = engram.train("seq2seq", out=tmp_path / "run", progress=False, **KNOBS)
    assert engram.load(tmp_path / "run").recipe.norm is True  # type: ignore[attr-defined]
    assert [name for name in run.task.state_dict() if "norm" in name]
