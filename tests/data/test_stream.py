"""Streamed batches equal those in memory, and worker processes come and go cleanly."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engram.core.batch import fold
from engram.core.data import Data
from engram.core.errors import DataError
from engram.data.augment import DRAWS, Augment
from engram.data.images import images
from engram.data.memory import MemoryData
from engram.data.order import walk
from engram.data.stream import StreamData

torch.set_num_threads(1)
AUGMENT = Augment(shift=2, flip=True, rotate=15, erase=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, count in {"train/a": 12, "train/b": 11, "val/a": 3, "val/b": 2, "test/a": 2, "test/b": 1}.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (14, 11, 3), dtype=np.uint8)).save(root / name / f"ä{i}.jpg")
    (root / "train/a/bad.jpg").write_bytes((root / "train/a/ä0.jpg").read_bytes()[:200])
    return root


def stream(folder: Path, augment: Augment | None = None) -> StreamData:
    data = images(folder, batch=5, seed=3, augment=augment, budget=0)
    assert isinstance(data, StreamData)
    return data


def some(data: Data, split: str, count: int, start: int = 0, part: tuple[int, int] = (0, 1)) -> list[dict[str, torch.Tensor]]:
    batches = data.batches(split, start, part)
    taken = list(itertools.islice(batches, count))
    batches.close()  # type: ignore[attr-defined]
    return taken


@pytest.mark.parametrize("augment", [None, AUGMENT])
def test_streamed_batches_equal_those_in_memory(folder: Path, augment: Augment | None) -> None:
    streamed, held = stream(folder, augment), images(folder, batch=5, seed=3, augment=augment)
    assert isinstance(held, MemoryData)
    assert streamed.spec == held.spec
    assert streamed.summary.rows == held.summary.rows == {"train": 23, "val": 5, "test": 3}
    assert streamed.steps_per_epoch == held.steps_per_epoch == 5
    keep = streamed.batches("train")  # holds the workers while the others come and go
    next(keep)
    for split, start, part in itertools.product(("train", "val", "test"), (0, 1, 4, 7), ((0, 1), (0, 2), (1, 2), (2, 7))):
        ours, theirs = some(streamed, split, 7, start, part), some(held, split, 7, start, part)
        assert len(ours) == len(theirs) == (7 if split == "train" else max(0, 1 - start))
        for a, b in zip(ours, theirs, strict=True):
            assert a.keys() == b.keys()
            assert torch.equal(a["x"], b["x"])
            assert torch.equal(a["y"], b["y"])
    assert streamed.names("val", [0, 4]) == held.names("val", [0, 4])
    for a, b in zip(streamed.raw("train", [1, 5]), held.raw("train", [1, 5]), strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))
    keep.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("budget", [0, 1 << 30])
def test_augmented_parts_of_ranks_are_the_batch_of_one_process(folder: Path, budget: int) -> None:
    data = images(folder, batch=5, seed=3, augment=AUGMENT, budget=budget)
    plain = images(folder, batch=5, seed=3, budget=budget)
    for start in (0, 4):  # batches of 5 and of 4 rows
        (whole,) = some(data, "train", 1, start)
        (still,) = some(plain, "train", 1, start)
        draws = torch.rand(len(whole["x"]), DRAWS, generator=torch.Generator().manual_seed(fold(3, "augment", start, (0, 1))))
        raw = data.spec.picture  # type: ignore[attr-defined]
        x = torch.stack([torch.from_numpy(np.asarray(raw(image)).copy()).permute(2, 0, 1) for image in still["x"]])
        assert torch.equal(whole["x"], data.spec.normalise(AUGMENT(x, draws)))  # type: ignore[attr-defined]
        for ranks in (2, 3, 7):
            parts = [some(data, "train", 1, start, (rank, ranks))[0] for rank in range(ranks)]
            for name in ("x", "y"):
                assert torch.equal(torch.cat([part[name] for part in parts]), whole[name]), (start, ranks, name)


def test_order_is_equal_cuts_of_a_permutation_per_epoch() -> None:
    found = list(itertools.islice(walk("train", 23, 5, seed=3), 10))
    assert [n for n, _ in found] == list(range(10))
    for epoch in (0, 1):
        epochs = [rows for _, rows in found[5 * epoch : 5 * epoch + 5]]
        assert [len(rows) for rows in epochs] == [5, 5, 5, 4, 4]
        generator = torch.Generator().manual_seed(fold(3, "order", epoch))
        assert torch.equal(torch.cat(epochs), torch.randperm(23, generator=generator))
    for start in (1, 4, 5, 9):
        for (a, x), (b, y) in zip(
            itertools.islice(walk("train", 23, 5, seed=3, start=start), 10 - start), found[start:], strict=True
        ):
            assert a == b
            assert torch.equal(x, y)
    parts = [list(itertools.islice(walk("train", 23, 5, seed=3, part=(rank, 3)), 10)) for rank in range(3)]
    for number in range(10):
        assert torch.equal(torch.cat([p[number][1] for p in parts]), found[number][1])
    assert torch.cat([rows for _, rows in walk("val", 7, 3, seed=3, start=1)]).tolist() == [3, 4, 5, 6]


def test_workers_start_with_the_first_batch_and_end_with_the_last_iterator(folder: Path) -> None:
    data = stream(folder)
    train = data.batches("train")
    assert data.pool is None
    next(train)
    pool = data.pool
    assert pool is not None
    processes = list(pool._processes.values())
    assert len(list(data.batches("val"))) == 1
    assert data.pool is pool  # validation used the same workers
    train.close()  # type: ignore[attr-defined]
    assert data.pool is None
    assert all(not p.is_alive() for p in processes)
    assert len(list(data.batches("val"))) == 1  # and they start again
    assert data.pool is None


def test_a_dead_worker_is_a_clear_error(folder: Path) -> None:
    data = stream(folder)
    train = data.batches("train")
    next(train)
    assert data.pool is not None
    for process in list(data.pool._processes.values()):
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(DataError, match="process that decodes the data died"):
        list(itertools.islice(train, 50))
    assert data.pool is None
    assert len(some(data, "train", 2)) == 2  # a new iterator starts new workers


def test_a_file_that_vanishes_is_named(folder: Path) -> None:
    data = stream(folder)
    victim = folder / "val/a/ä1.jpg"
    kept = victim.read_bytes()
    victim.unlink()
    try:
        with pytest.raises(DataError, match=r"val/a/ä1\.jpg"):
            list(data.batches("val"))
    finally:
        victim.write_bytes(kept)
    assert data.pool is None


def test_it_decodes_ahead_but_not_without_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, asked = stream(folder), []
    ask = data._ask
    monkeypatch.setattr(data, "_ask", lambda pool, split, index: asked.append(index) or ask(pool, split, index))
    data.depth = 3
    train = data.batches("train")
    for taken in (1, 2, 3):
        next(train)
        assert len(asked) == taken + 3
    train.close()  # type: ignore[attr-defined]


def test_workers_do_not_import_torch() -> None:
    code = "import sys, engram.data.decode, engram.data.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
