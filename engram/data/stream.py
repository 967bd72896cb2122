"""Data that does not fit in memory: worker processes decode batches ahead of the loop, in the order of MemoryData."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engram.core.batch import Batch
from engram.core.data import Data, Summary
from engram.core.errors import DataError
from engram.core.spec import Spec
from engram.data.memory import Transform, plain
from engram.data.order import draws, rows_of, walk
from engram.data.worker import start_worker

Load = Callable[[Sequence[str]], np.ndarray]


class StreamData(Data):
    """Files per split, decoded batch by batch. The batches equal those of MemoryData over the same rows, bit for bit.

    `load(files)` gives the array (B, ...) of some files, their "x"; it runs in worker processes, so it must be importable (a
    function or a `functools.partial` of one) and should not import torch. `transform` is MemoryData's and runs here, on the
    training device. `depth` batches are decoded ahead. Workers start with the first batch and end with the last open iterator.
    """

    def __init__(
        self,
        spec: Spec,
        summary: Summary,
        files: dict[str, list[str]],
        labels: dict[str, Tensor] | None,
        *,
        load: Load,
        batch: int,
        seed: int = 0,
        transform: Transform = plain,
        raw: Callable[[str, list[int]], list[Any]] | None = None,
        names: Callable[[str, list[int]], list[str]] | None = None,
        workers: int = 0,
        depth: int = 4,
    ):
        self.spec, self.summary, self.files, self.labels = spec, summary, files, labels
        self.load, self.batch, self.seed, self.transform, self._raw, self._names = load, batch, seed, transform, raw, names
        self.workers, self.depth = workers or max(1, (os.cpu_count() or 2) - 1), depth
        self.device = torch.device("cpu")
        self.pool: ProcessPoolExecutor | None = None
        self._open = 0  # iterators that use the pool

    def size(self, split: str) -> int:
        """Rows in a split."""
        return len(self.files.get(split, ()))

    def to(self, device: torch.device) -> None:
        """Batches cross to `device` as bytes and are prepared there."""
        self.device = device

    def raw(self, split: str, rows: list[int]) -> list[Any]:
        """Raw inputs as the source gives them."""
        return self._raw(split, rows) if self._raw else super().raw(split, rows)

    def names(self, split: str, rows: list[int]) -> list[str]:
        """File names."""
        return self._names(split, rows) if self._names else super().names(split, rows)

    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """See Data.batches. Raises DataError when a file has become unreadable or a worker process dies."""
        waiting: deque[tuple[int, Tensor, list[Future[np.ndarray]]]] = deque()
        with self._workers() as pool:
            try:
                for number, index in walk(split, self.size(split), self.batch, seed=self.seed, start=start, part=part):
                    waiting.append((number, index, self._ask(pool, split, index)))
                    if len(waiting) > self.depth:
                        yield self._take(split, part, *waiting.popleft())
                while waiting:
                    yield self._take(split, part, *waiting.popleft())
            except BrokenProcessPool:
                raise DataError(
                    "a process that decodes the data died: out of memory, killed, or started from a script whose work is not "
                    'under `if __name__ == "__main__":`; add that line, lower batch, or raise budget to keep the data in memory'
                ) from None
            finally:
                for _, _, futures in waiting:
                    for future in futures:
                        future.cancel()

    def _ask(self, pool: ProcessPoolExecutor, split: str, index: Tensor) -> list[Future[np.ndarray]]:
        """One batch in pieces, so that all workers decode the batch that is needed next."""
        rows, files = index.tolist(), self.files[split]
        piece = max(1, -(-len(rows) // self.workers))
        starts = range(0, max(len(rows), 1), piece)  # an empty batch is asked for too: its shape is needed
        return [pool.submit(self.load, [files[r] for r in rows[s : s + piece]]) for s in starts]

    def _take(self, split: str, part: tuple[int, int], number: int, index: Tensor, futures: list[Future[np.ndarray]]) -> Batch:
        x = torch.from_numpy(np.concatenate([future.result() for future in futures]))
        batch = {"x": x.to(self.device, non_blocking=True)}
        if self.labels is not None:
            batch["y"] = self.labels[split].index_select(0, index).to(self.device, non_blocking=True)
        if split != "train" or self.transform is plain:
            return self.transform(batch, None)
        whole = rows_of(self.size(split), self.batch, number)
        return self.transform(batch, draws(self.seed, number, whole, part, self.device))

    @contextmanager
    def _workers(self) -> Iterator[ProcessPoolExecutor]:
        """The pool, shared by all open iterators (training goes on ahead while validation runs)."""
        if self.pool is None:
            # Forking a process that runs torch's threads can hang; these start from a clean process instead.
            methods = multiprocessing.get_all_start_methods()
            context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
            context.set_forkserver_preload(["engram.data.decode", "engram.data.worker"])
            self.pool = ProcessPoolExecutor(self.workers, context, start_worker)
        self._open += 1
        pool = self.pool
        try:
            yield pool
        finally:
            self._open -= 1
            if not self._open:
                self.pool = None
                pool.shutdown(cancel_futures=True)
