"""Saving beside the training: what is saved is the moment of the call, whole, and errors are heard."""

from __future__ import annotations

import os
import resource
import sys
import threading
from pathlib import Path
from threading import get_native_id as gettid

import pytest
import torch
from toys import Regress, mlp, optim, run, waves

from engram.checkpoint import files, writer
from engram.checkpoint.files import read_tensors
from engram.checkpoint.writer import StateWriter
from engram.core.errors import RunError
from engram.core.plan import Plan
from engram.core.snapshot import Snapshot


def of(value: float, size: int = 1000) -> Snapshot:
    return Snapshot({"w": torch.full((size,), value), "n": torch.tensor(int(value))}, {"value": value})


def test_the_moment_of_the_call_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The tensors may change as soon as `save` returns, though the thread has not written a byte."""
    go = threading.Event()
    write = writer.write_bytes

    def late(path: Path, *parts: bytes) -> None:
        assert go.wait(20)
        write(path, *parts)

    monkeypatch.setattr(writer, "write_bytes", late)
    saver, snapshot = StateWriter(), of(1)
    saver.save(tmp_path / "a", snapshot)
    assert not (tmp_path / "a").exists()
    snapshot.tensors["w"].fill_(7)
    go.set()
    saver.close()
    assert read_tensors(tmp_path / "a").tensors["w"].unique().tolist() == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads")
def test_only_the_thread_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ranks: list[int] = []
    monkeypatch.setattr(writer, "write_bytes", lambda *given: ranks.append(os.getpriority(os.PRIO_PROCESS, gettid())))
    before = os.getpriority(os.PRIO_PROCESS, gettid())
    saver = StateWriter()
    saver.save(tmp_path / "a", of(1))
    saver.close()
    assert ranks == [19]
    assert os.getpriority(os.PRIO_PROCESS, gettid()) == before


def test_saves_keep_their_order(tmp_path: Path):
    saver = StateWriter()
    for value in range(20):
        saver.save(tmp_path / "a", of(value, size=1000 + 17 * (value % 3)))
        saver.save(tmp_path / "b", of(-value, size=10))
    saver.close()
    for name, value in (("a", 19), ("b", -19)):
        back = read_tensors(tmp_path / name)
        assert back.facts == {"value": value}
        assert back.tensors["w"].unique().tolist() == [value]


def test_the_shape_of_a_state_may_change(tmp_path: Path):
    """L-BFGS gathers history: more tensors, other shapes and types under the same path."""
    saver = StateWriter()
    twice = {"w": torch.ones(2, 3).double(), "v": torch.zeros(0)}
    shapes = [{"w": torch.ones(3)}, {"w": torch.ones(2, 3)}, twice, {"v": torch.ones(4)}]
    for tensors in shapes:
        saver.save(tmp_path / "a", Snapshot(tensors, {}))
        saver.wait()
        back = read_tensors(tmp_path / "a").tensors
        assert back.keys() == tensors.keys()
        assert all(torch.equal(t, tensors[n]) and t.dtype == tensors[n].dtype for n, t in back.items())
    saver.close()


@pytest.mark.parametrize("size", [0, 100, 10**6])
def test_reserved_memory_changes_nothing(size: int, tmp_path: Path):
    saver = StateWriter()
    saver.prepare(tmp_path / "a", size)
    saver.save(tmp_path / "a", of(3))
    saver.prepare(tmp_path / "b", 2 * size)
    saver.save(tmp_path / "b", of(4))
    saver.close()
    assert [read_tensors(tmp_path / n).facts["value"] for n in "ab"] == [3, 4]


def test_two_files_of_one_step_do_not_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import threading

    import engram.checkpoint.writer as writer

    gate, real = threading.Event(), writer.write_bytes

    def held(path: Path, *parts: bytes | memoryview) -> None:
        gate.wait(10)
        real(path, *parts)

    monkeypatch.setattr(writer, "write_bytes", held)
    saver = StateWriter()
    saver.save(tmp_path / "a", of(1))
    saver.save(tmp_path / "b", of(2))  # returns although the first is not written yet
    assert not (tmp_path / "a").exists()
    gate.set()
    saver.close()
    assert [read_tensors(tmp_path / n).facts["value"] for n in "ab"] == [1, 2]


@pytest.mark.parametrize("call", ["save", "wait", "close"])
def test_an_error_is_raised_by_the_next_call(call: str, tmp_path: Path):
    saver = StateWriter()
    saver.save(tmp_path / "no" / "a", of(1))  # returns: the thread finds out
    with pytest.raises(RunError, match="cannot write"):
        saver.save(tmp_path / "no" / "a", of(2)) if call == "save" else getattr(saver, call)()
    saver.save(tmp_path / "a", of(3)) if call != "close" else None  # told once; then it goes on
    saver.close()
    assert call == "close" or read_tensors(tmp_path / "a").facts["value"] == 3


def test_a_full_disk_keeps_the_last_state(tmp_path: Path):
    """A real limit on the size of files: the write fails half way, and what was saved before is still there."""
    saver = StateWriter()
    saver.save(tmp_path / "a", of(1))
    saver.wait()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, old[1]))
    try:
        saver.save(tmp_path / "a", of(2))
        with pytest.raises(RunError, match=r"cannot write .*; what was saved before is untouched"):
            saver.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert read_tensors(tmp_path / "a").facts["value"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    saver.save(tmp_path / "a", of(3))
    saver.close()
    assert read_tensors(tmp_path / "a").facts["value"] == 3


def test_an_error_ends_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    task = Regress(mlp(3, 4, 2))
    with pytest.raises(RunError, match="the disk is full"):
        run((task, waves(8), {"model": optim("SGD", task, 0.1)}), Plan(steps=50, save_every=2), tmp_path)
    assert list(tmp_path.iterdir()) == []
