"""What the two commonest predictors share: running a model on encoded batches."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.inference.fold import fold

NUMBERS = 128 * 28 * 28  # numbers of input that a processor's core takes at a time: what a network makes of them stays near it
LEAST = 16  # rows
VECTOR = 64  # numbers that a token counts for


class Runner:
    """A model in eval mode on its device. Inputs are the named tensors of a batch; outputs are float32 on the CPU.

    On a processor many rows are cut into pieces, one for each core at a time: memory is bounded, what is computed stays in the
    cache, and cores do not wait for each other at every layer (measured by `benchmarks.predict`).
    """

    def __init__(self, model: nn.Module, inputs: tuple[str, ...]):
        self.model, self.inputs = model, inputs
        self.dtype = torch.float32
        self.layout = torch.contiguous_format

    def tune(self, example: Batch, bf16: bool, channels_last: bool) -> None:
        """Compute with a copy of the model: norms folded, in bfloat16, channels-last. The model itself stays as it is."""
        device = next(self.model.parameters()).device
        images = any(isinstance(m, nn.Conv2d) for m in self.model.modules())
        model = fold(self.model, tuple(noise(example[name]).to(device) for name in self.inputs)) if images else self.model
        if bf16:
            self.dtype = torch.bfloat16
            model = copy.deepcopy(model).to(torch.bfloat16)
        if channels_last and images:
            self.layout = torch.channels_last
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = model

    def __call__(self, batch: Batch) -> Tensor:
        """One row per row of the batch."""
        device = next(self.model.parameters()).device
        given = [batch[name].to(device) for name in self.inputs]
        rows, piece = len(given[0]), rows_at_a_time(given)
        if device.type != "cpu" or rows <= piece * torch.get_num_threads():
            return self._run(*given)
        return torch.cat(list(side_by_side(self._run, *(t.split(piece) for t in given))))

    def _run(self, *given: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.model(*map(self._prepared, given)).float().cpu()

    def _prepared(self, x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x
        return x.to(self.dtype, memory_format=self.layout) if x.dim() == 4 else x.to(self.dtype)


def rows_at_a_time(given: list[Tensor]) -> int:
    """Rows that a core takes in one piece."""
    each = sum(t[:1].numel() * (1 if t.is_floating_point() else VECTOR) for t in given)
    return max(LEAST, NUMBERS // max(each, 1))


def side_by_side(function: Callable[..., Any], *pieces: Iterable[Any]) -> Iterator[Any]:
    """`map(function, *pieces)` in order, on as many threads as torch uses here; within each, torch uses one."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(function, *pieces)
        return
    try:
        yield from _pool(threads).map(function, *pieces)
    finally:
        torch.set_num_threads(threads)  # what a new thread begins with; those of the pool have set it to one


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "engram-predict", initializer=torch.set_num_threads, initargs=(1,))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads


def noise(x: Tensor) -> Tensor:
    """Normal numbers of the shape of `x`, the same every time; integers stay."""
    if not x.is_floating_point():
        return x
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
