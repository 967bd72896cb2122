"""Saving beside the training: the step path pays for one copy in memory; a thread writes it to disk."""

from __future__ import annotations

import threading
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from engram.checkpoint.files import Layout, write_bytes
from engram.core.snapshot import Snapshot


class StateWriter:
    """Writes snapshots in the order given, one at a time. An error of the thread is raised by the next call."""

    def __init__(self):
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="engram-save")
        self._pending: Future[None] | None = None
        self._layouts: dict[Path, Layout] = {}
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._lock = threading.Lock()

    def prepare(self, size: int) -> None:
        """Reserve memory for snapshots of about `size` bytes in the background, so that the first save need not wait for it."""
        self._pool.submit(self._reserve_locked, size)

    def _reserve_locked(self, size: int) -> None:
        with self._lock:
            self._reserve(size)

    def save(self, path: Path, snapshot: Snapshot) -> None:
        """Copy the tensors and return; the file appears, whole, a little later. Raises RunError of an earlier write."""
        self.wait()
        with self._lock:
            layout = self._layouts.get(path)
            if layout is None or not layout.fits(snapshot.tensors):
                layout = self._layouts[path] = Layout(snapshot.tensors)
            self._reserve(layout.size)
            layout.copy(snapshot.tensors, self._buffer)
            data = memoryview(self._buffer.numpy())[: layout.size]  # type: ignore[arg-type]
            self._pending = self._pool.submit(_write, path, layout, snapshot, data)

    def wait(self) -> None:
        """Until the last save is on disk. Raises RunError if it could not be written."""
        if self._pending:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Finish writing and end the thread."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def _reserve(self, size: int) -> None:
        if self._buffer.numel() < size:
            self._buffer = torch.zeros(size, dtype=torch.uint8)  # zeros, so that its pages are there before they are needed


def _write(path: Path, layout: Layout, snapshot: Snapshot, data: memoryview) -> None:
    write_bytes(path, layout.header(snapshot.facts, zlib.crc32(data)), data)
