"""Optim: an optimizer with its schedule. `FlatGroup` lays the parameters of a group end to end in one buffer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Schedule = Callable[[int, int], float]  # (step, steps) -> factor of the base learning rate


def constant(step: int, steps: int) -> float:
    """The base rate throughout."""
    return 1.0


class FlatGroup:
    """Parameters of one group as views into one buffer, gradients likewise.

    Step, clip, sum over ranks and save are then one operation each, whatever the number of layers. Only for optimizers that
    treat every element alike (SGD, Adam ...); one that looks at matrices (Muon) keeps its parameters apart.
    """

    def __init__(self, members: list[nn.Parameter]):
        first = members[0]
        if any(p.dtype != first.dtype or p.device != first.device for p in members):
            raise ValueError("a flat group needs parameters of one dtype and device")
        self.members = members
        total = sum(p.numel() for p in members)
        self.buffer = nn.Parameter(torch.empty(total, dtype=first.dtype, device=first.device))
        self.buffer.grad = torch.zeros_like(self.buffer)
        self.slices: list[Tensor] = []
        at = 0
        for p in members:
            view = _like(self.buffer.data[at : at + p.numel()], p)
            view.copy_(p.data)
            p.data = view
            grad = _like(self.buffer.grad[at : at + p.numel()], p)
            self.slices.append(grad)
            p.grad = grad
            at += p.numel()

    def attach(self) -> None:
        """Point every member's `.grad` at the buffer again (something may have set it to None)."""
        for p, grad in zip(self.members, self.slices, strict=True):
            p.grad = grad


def _like(flat: Tensor, like: Tensor) -> Tensor:
    """View a flat piece with the shape of `like`, keeping channels-last weights channels-last."""
    if like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous():
        o, i, h, w = like.shape
        return flat.view(o, h, w, i).permute(0, 3, 1, 2)
    return flat.view(like.shape)


@dataclass(frozen=True)
class Optim:
    """An optimizer and the schedule of its learning rate, counted in optimizer steps."""

    optimizer: torch.optim.Optimizer
    schedule: Schedule = constant
    flat: tuple[FlatGroup, ...] = ()

    def tensors(self) -> list[nn.Parameter]:
        """What the optimizer steps: flat buffers or plain parameters."""
        return [p for g in self.optimizer.param_groups for p in g["params"]]

    def members(self) -> list[nn.Parameter]:
        """The parameters of the networks that this optimizer moves."""
        inside = {id(f.buffer): f.members for f in self.flat}
        return [m for p in self.tensors() for m in inside.get(id(p), [p])]
