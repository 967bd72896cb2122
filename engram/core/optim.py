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

    The optimizer steps `buffer`; the networks go on using `members`. Only for optimizers that treat every element alike (SGD,
    Adam ...); one that looks at matrices (Muon) keeps its parameters apart.
    """

    def __init__(self, members: list[nn.Parameter], values: Tensor | None = None, gradient: Tensor | None = None):
        first = members[0]
        if any(p.dtype != first.dtype or p.device != first.device for p in members):
            raise ValueError("a flat group needs parameters of one dtype and device")
        total = sum(p.numel() for p in members)
        self.members = members
        self.buffer = nn.Parameter(torch.empty(total, dtype=first.dtype, device=first.device) if values is None else values)
        self.gradient = torch.zeros_like(self.buffer.data) if gradient is None else gradient
        self.buffer.grad = self.gradient
        self.slices = self.views(self.gradient)
        for p, value, grad in zip(members, self.views(self.buffer.data), self.slices, strict=True):
            value.copy_(p.data)
            p.data = value
            p.grad = grad

    def views(self, flat: Tensor) -> list[Tensor]:
        """A flat tensor of this group's size, cut into the shapes of its members."""
        pieces = flat.split([p.numel() for p in self.members])
        return [_like(piece, p) for piece, p in zip(pieces, self.members, strict=True)]

    def attach(self) -> None:
        """Point every `.grad` at the buffer again (something may have set it to None)."""
        self.buffer.grad = self.gradient
        for p, grad in zip(self.members, self.slices, strict=True):
            p.grad = grad


def flatten(groups: list[list[nn.Parameter]]) -> tuple[FlatGroup, ...]:
    """One FlatGroup per group of parameters, all in one stretch of memory: `whole_gradient` of them is one tensor."""
    first = groups[0][0]
    sizes = [sum(p.numel() for p in members) for members in groups]
    values = torch.empty(sum(sizes), dtype=first.dtype, device=first.device)
    gradient = torch.zeros_like(values)
    parts = zip(groups, values.split(sizes), gradient.split(sizes), strict=True)
    return tuple(FlatGroup(members, value, grad) for members, value, grad in parts)


def whole_gradient(flat: tuple[FlatGroup, ...]) -> list[Tensor]:
    """The gradients of flat groups as few tensors as possible: one when `flatten` made them."""
    if not flat:
        return []
    first = flat[0].gradient
    total = sum(f.gradient.numel() for f in flat)
    base = first._base if first._base is not None else first
    shared = all((f.gradient._base if f.gradient._base is not None else f.gradient) is base for f in flat)
    return [base] if shared and base.numel() == total else [f.gradient for f in flat]


def _like(flat: Tensor, like: Tensor) -> Tensor:
    """View a flat piece with the shape of `like`, keeping channels-last weights channels-last.

    The strides decide: with one channel both layouts hold the same numbers in the same order, but a convolution gives out
    the layout that its weight's strides name, and one of the other layout makes every later layer convert.
    """
    if like.dim() == 4:
        o, i, h, w = like.shape
        if like.stride() == (h * w * i, 1, w * i, i):
            return flat.view(o, h, w, i).permute(0, 3, 1, 2)
    return flat.view(like.shape)


@dataclass(frozen=True)
class Optim:
    """An optimizer and the schedule of its learning rate, counted in optimizer steps."""

    optimizer: torch.optim.Optimizer
    schedule: Schedule = constant
    flat: tuple[FlatGroup, ...] = ()
    fused: bool = False  # its step divides gradients by `grad_scale`, as torch's fused kernels do: clipping is then free

    def tensors(self) -> list[nn.Parameter]:
        """What the optimizer steps: flat buffers or plain parameters."""
        return [p for g in self.optimizer.param_groups for p in g["params"]]

    @property
    def needs_closure(self) -> bool:
        """Whether the optimizer evaluates the loss several times in one step."""
        return isinstance(self.optimizer, torch.optim.LBFGS)

    def members(self) -> list[nn.Parameter]:
        """The parameters of the networks that this optimizer moves."""
        inside = {id(f.buffer): f.members for f in self.flat}
        return [m for p in self.tensors() for m in inside.get(id(p), [p])]
