"""Batches: rows are cut without loss, and seeds are pure functions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engram.core.batch import fold, rows, split_rows, to_device


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 10, 50])
def test_pieces_are_the_batch(pieces: int):
    batch = {"x": torch.arange(20).reshape(10, 2), "y": torch.arange(10)}
    cut = split_rows(batch, pieces)
    assert all(p.keys() == batch.keys() and rows(p) == len(p["y"]) > 0 for p in cut)
    assert len(cut) == min(pieces, 10)
    assert max(map(rows, cut)) - min(map(rows, cut)) <= 1
    for name, t in batch.items():
        assert torch.equal(torch.cat([p[name] for p in cut]), t)


def test_what_is_there_is_not_copied():
    batch = {"x": torch.ones(2)}
    assert split_rows(batch, 1)[0] is batch
    assert to_device(batch, torch.device("cpu"))["x"] is batch["x"]


def test_seeds_are_the_same_in_another_process():
    """Not Python's hash, which differs from process to process."""
    code = "from engram.core.batch import fold; print(fold(0, 'order', 3, (0, 1)))"
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert int(done.stdout) == fold(0, "order", 3, (0, 1))
    assert 0 <= fold("a") < 2**32


def test_seeds_differ():
    seeds = {
        fold(s, what, k, r) for s in range(4) for what in ("order", "augment", "model") for k in range(50) for r in range(3)
    }
    assert len(seeds) == 4 * 3 * 50 * 3
