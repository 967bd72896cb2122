"""Batches: rows are cut without loss, and seeds are pure functions."""

from __future__ import annotations

import itertools

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


def test_seeds_are_the_same_everywhere():
    """Unlike Python's hash, in every process and version: the number is written down here."""
    assert fold(0, "order", 3, (0, 1)) == 2236523169


def test_seeds_differ():
    every = itertools.product(range(4), ("order", "augment", "model"), range(50), range(3))
    assert len({fold(*parts) for parts in every}) == 4 * 3 * 50 * 3
