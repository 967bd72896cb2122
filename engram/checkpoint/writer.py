"""Saving beside the training: the step path pays for one copy in memory; a thread writes it to disk.

The thread gives way to everybody else (nice 19): a training that keeps every core busy waits at each layer for its slowest
thread, so a writer of equal rank cost it three times the processor time that writing takes. A file is on disk later instead.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engram.checkpoint.files import Layout, write_bytes
from engram.core.snapshot import Snapshot


class _Slot:
    """The memory of one file to write: a snapshot is copied here, and may be overwritten when it is on disk."""

    def __init__(self):
        self.layout: Layout | None = None
        self.buffer = torch.empty(0, dtype=torch.uint8)
        self.pending: Future[None] | None = None
        self.lock = threading.Lock()

    def reserve(self, size: int) -> None:
        """Make the buffer at least this large, with its pages in place before they are needed."""
        with self.lock:
            if self.buffer.numel() < size:
                memory = np.empty(size, dtype=np.uint8)
                memory.fill(0)  # by numpy: torch would start OpenMP threads of its own here, which get in the way
                self.buffer = torch.from_numpy(memory)


class StateWriter:
    """Writes snapshots in the order given, each file from memory of its own, so that two files of one step do not wait for each
    other. An error of the thread is raised by the next call."""

    def __init__(self):
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="engram-save", initializer=give_way)
        self._slots: dict[Path, _Slot] = {}

    def prepare(self, path: Path, size: int) -> None:
        """Reserve memory for snapshots of about `size` bytes in the background, so that the first save need not wait for it."""
        self._pool.submit(self._slots.setdefault(path, _Slot()).reserve, size)

    def save(self, path: Path, snapshot: Snapshot) -> None:
        """Copy the tensors and return; the file appears, whole, a little later. Raises RunError of an earlier write."""
        self._raise_errors()
        slot = self._slots.setdefault(path, _Slot())
        _finish(slot)
        if slot.layout is None or not slot.layout.fits(snapshot.tensors):
            slot.layout = Layout(snapshot.tensors)
        slot.reserve(slot.layout.size)
        slot.layout.copy(snapshot.tensors, slot.buffer)
        data = memoryview(slot.buffer.numpy())[: slot.layout.size]  # type: ignore[arg-type]
        slot.pending = self._pool.submit(_write, path, slot.layout, snapshot.facts, data)

    def wait(self) -> None:
        """Until everything is on disk. Raises RunError if something could not be written."""
        for slot in self._slots.values():
            _finish(slot)

    def close(self) -> None:
        """Finish writing and end the thread."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def _raise_errors(self) -> None:
        for slot in self._slots.values():
            if slot.pending and slot.pending.done():
                _finish(slot)


def give_way() -> None:
    """This thread computes when nobody else wants its core. Only Linux has priorities of threads; elsewhere nothing changes."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def _finish(slot: _Slot) -> None:
    if slot.pending:
        pending, slot.pending = slot.pending, None
        pending.result()


def _write(path: Path, layout: Layout, facts: dict[str, Any], data: memoryview) -> None:
    write_bytes(path, layout.header(facts, zlib.crc32(data)), data)
