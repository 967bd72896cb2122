"""Several processes of one run, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from engram.core.mesh import Mesh

_MESSAGE = 1 << 24  # numbers summed in one message: few messages, and little memory beside the gradients


class Ranks(Mesh):
    """The ranks of the default process group. R ranks with the same data equal one process with the whole batch."""

    def __init__(self):
        self.rank, self.world = dist.get_rank(), dist.get_world_size()

    def sum(self, value: Tensor) -> Tensor:
        """The sum of `value` over all ranks."""
        value = value.detach().clone()
        dist.all_reduce(value)
        return value

    def gather(self, value: Tensor) -> Tensor:
        """Rows of all ranks in order; ranks may hold different numbers of them. Differentiable once."""
        sizes = torch.zeros(self.world, dtype=torch.int64, device=value.device)
        sizes[self.rank] = len(value)
        return _Gather.apply(value, self.rank, self.sum(sizes).tolist())  # type: ignore[return-value]

    def sum_gradients(self, tensors: Iterable[Tensor]) -> None:
        """Add up `.grad` over ranks in place. One that no rank has stays None, as in one process; one that some lack is zero
        there."""
        message: list[Tensor] = []
        for tensor in tensors:
            full = sum(t.numel() for t in message) + tensor.numel() > _MESSAGE
            if message and (full or tensor.dtype != message[0].dtype or tensor.device != message[0].device):
                _sum_message(message)
                message = []
            message.append(tensor)
        if message:
            _sum_message(message)

    def barrier(self) -> None:
        """Wait for every rank."""
        dist.barrier()


class _Gather(torch.autograd.Function):
    """Rows of all ranks; the gradient of a row is the sum of what every rank's loss says about it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, rank: int, sizes: list[int]) -> Tensor:
        padded = value.new_zeros(max(sizes), *value.shape[1:])  # a message has one size
        padded[: len(value)] = value
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        ctx.begin, ctx.end = sum(sizes[:rank]), sum(sizes[: rank + 1])
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.begin : ctx.end], None, None


def _sum_message(tensors: list[Tensor]) -> None:
    """One message for many gradients: latency, not size, is what small tensors cost. Its tail says who has a gradient."""
    sizes = [t.numel() for t in tensors]
    message = tensors[0].new_zeros(sum(sizes) + len(tensors))
    *places, has = message.split([*sizes, len(tensors)])
    for number, (tensor, place) in enumerate(zip(tensors, places, strict=True)):
        if tensor.grad is not None:
            place.view(tensor.shape).copy_(tensor.grad)
            has[number] = 1
    dist.all_reduce(message)
    for number, (tensor, place) in enumerate(zip(tensors, places, strict=True)):
        if tensor.grad is not None:
            tensor.grad.copy_(place.view(tensor.shape))
        elif has[number] > 0:  # only asked where a gradient is missing here
            tensor.grad = torch.empty_like(tensor).copy_(place.view(tensor.shape))


def from_environment(device: torch.device) -> Mesh:
    """The mesh that torchrun's environment describes; one process without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Mesh()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks()
