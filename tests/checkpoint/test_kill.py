"""A run killed with SIGKILL at random moments, again and again, ends as the run never killed, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from engram.checkpoint.folder import RunFolder

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def test_killed_at_random_moments(tmp_path: Path):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(HERE / "kill_chain.py"), str(tmp_path), "30"],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout)
    assert told["kills"] >= 10
    assert told["last"] > 0  # it did go on from a state
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    for a, b in ((whole.read_state(), killed.read_state()), (whole.read_weights(), killed.read_weights())):
        assert a.facts == b.facts
        assert a.tensors.keys() == b.tensors.keys()
        assert all(torch.equal(t, b.tensors[name]) for name, t in a.tensors.items())
    told_once = [r for r in killed.read_metrics() if r["kind"] != "resume"]
    assert told_once == [r for r in whole.read_metrics() if r["kind"] != "resume"]
    assert [r["step"] for r in told_once if r["kind"] == "step"] == list(range(1, 121))
