"""Going on with a run: one writer, records that count once, and nothing needed that the run folder holds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import engram
from engram.checkpoint.folder import RunFolder
from engram.core.plan import Event, Stepped
from engram.recipes.mlp import Mlp

KNOBS: dict[str, Any] = {"data": "iris", "hidden": (8,), "steps": 30, "evals": 3, "threads": 1, "precision": "fp32"}
QUIET: dict[str, Any] = {"progress": False, "report": False}


class Killed(Exception):
    """What stands for a process that is gone."""


def kill_at(step: int) -> Callable[[Event], None]:
    def watch(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == step:
            raise Killed

    return watch


def broken_off(out: Path, step: int, **more: Any) -> RunFolder:
    """A run that ended at a step, without saving there; evaluations and saves are at 10, 20 and 30."""
    with pytest.raises(Killed):
        engram.train("mlp", out=out, on_event=kill_at(step), **KNOBS, **QUIET, **more)
    return RunFolder(out)


def steps(folder: RunFolder) -> list[int]:
    return [r["step"] for r in folder.read_metrics() if r["kind"] == "step"]


@pytest.mark.parametrize("step", [3, 15])
def test_records_count_once_wherever_the_run_was_killed(step: int, tmp_path: Path):
    """Before its first save there is no state to go back to: it begins again, and so do its records."""
    whole = engram.train("mlp", out=tmp_path / "whole", **KNOBS, **QUIET)
    folder = broken_off(tmp_path / "run", step)
    assert folder.state.exists() == (step > 10)
    engram.resume(folder.path, **QUIET)
    assert steps(folder) == steps(whole.folder)
    assert folder.weights.read_bytes() == whole.folder.weights.read_bytes()


def test_the_run_that_the_weights_came_from_may_be_gone(tmp_path: Path):
    first = engram.train("mlp", out=tmp_path / "first", **KNOBS, **QUIET)
    folder = broken_off(tmp_path / "run", 15, start_from=str(first.path))
    early = broken_off(tmp_path / "early", 3, start_from=str(first.path))
    shutil.rmtree(first.path)
    assert engram.resume(folder.path, **QUIET).result
    with pytest.raises(engram.RunError, match="no run at"):  # without a state the weights are still needed
        engram.resume(early.path, **QUIET)


def test_one_process_writes_a_run(tmp_path: Path):
    folder = broken_off(tmp_path / "run", 15)
    log = folder.log()
    with pytest.raises(engram.RunError, match="is being trained by another process"):
        engram.resume(folder.path, **QUIET)
    log.close()
    assert engram.resume(folder.path, **QUIET).result


def test_two_ranks_resume_and_one_of_them_writes(tmp_path: Path):
    folder = broken_off(tmp_path / "run", 15)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "engram"]
    done = subprocess.run([*command, "resume", str(folder.path), "--no-report"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [str(folder.path)]
    assert steps(folder) == sorted(set(steps(folder)))
    assert folder.read_state().facts["at"]["step"] == 30
    assert folder.read_result()


def test_knobs_beside_a_recipe_keep_its_data(tmp_path: Path):
    frame = pd.DataFrame({"a": range(40), "b": [i % 7 for i in range(40)], "y": ["u", "v"] * 20})
    run = engram.train(Mlp(data=frame, target="y", hidden=(4,)), out=tmp_path / "run", epochs=1, threads=1, **QUIET)
    assert run.info["data"]["rows"]["train"] > 20
