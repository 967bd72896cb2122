"""Several processes of one run, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from engram.core.mesh import Mesh


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
        """Rows of all ranks in order; every rank must hold the same number. Differentiable."""
        return torch.cat(list(all_gather(value)))  # type: ignore[arg-type]

    def sum_gradients(self, tensors: Iterable[Tensor]) -> None:
        """Add up `.grad` over ranks in place; a tensor without one counts as zero."""
        for tensor in tensors:
            if tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
            dist.all_reduce(tensor.grad)

    def barrier(self) -> None:
        """Wait for every rank."""
        dist.barrier()


def from_environment(device: torch.device) -> Mesh:
    """The mesh that torchrun's environment describes; one process without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Mesh()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks()
