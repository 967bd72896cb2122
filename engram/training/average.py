"""Exponential moving average of the weights (Polyak & Juditsky 1992): mean <- decay * mean + (1 - decay) * weights.

The decay of step n (from 0) is at most (1 + n) / (10 + n): a mean that began with all its weight on the untrained network would
still be mostly that after a short run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from engram.core.optim import FlatGroup
from engram.core.task import Task


class Average:
    """Follows every floating tensor of the task's state; counters are copied. With decay 0 there is no second copy."""

    def __init__(self, task: Task, decay: float, flat: Iterable[FlatGroup] = ()):
        self.decay = decay
        self.live: dict[str, Tensor] = {name: t.detach() for name, t in task.state_dict().items()} if decay else {}
        self.mean: dict[str, Tensor] = {}
        self._pairs: list[tuple[Tensor, Tensor]] = []  # (mean, live), flat buffers whole
        if not decay:
            return
        inside: dict[int, Tensor] = {}
        for group in flat:
            copy = group.buffer.detach().clone()
            self._pairs.append((copy, group.buffer.detach()))
            inside |= {p.data_ptr(): view for p, view in zip(group.members, group.views(copy), strict=True)}
        for name, tensor in self.live.items():
            known = inside.get(tensor.data_ptr()) if tensor.numel() else None
            if known is not None and known.shape == tensor.shape:
                self.mean[name] = known  # part of a flat buffer, or tied to a weight above: moved and swapped once
            else:
                self.mean[name] = inside[tensor.data_ptr()] = tensor.clone()
                self._pairs.append((self.mean[name], tensor))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the mean towards the weights; call once per optimizer step with its number, from 0."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for mean, live in self._pairs:
            if mean.is_floating_point():
                mean.lerp_(live, share)
            else:
                mean.copy_(live)

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The task computes with the mean inside the block; the weights come back after it, bit for bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for mean, live in self._pairs:
            kept = live.clone()
            live.copy_(mean)
            mean.copy_(kept)
