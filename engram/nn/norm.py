"""Normalisation layers by name, and a batch norm that means the same on one process and on several.

Papers: batch normalisation, Ioffe & Szegedy 2015, Algorithm 1; layer normalisation, Ba et al. 2016, Eq. 3; group
normalisation, Wu & He 2018, Eq. 7 (32 groups, as there). One group over all channels is layer norm of an image.

When `torch.distributed` runs with more than one rank, `BatchNorm` in training takes its statistics over the rows of
all ranks, so R ranks equal one process with the whole batch; the ranks may hold different numbers of rows. Each rank
must then call it equally often. Differs from `torch.nn.SyncBatchNorm`: it also runs on the CPU (gloo), needs no
conversion of the model, and sends one message per layer.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engram.nn.activations import unknown

NORMS = ("batch", "layer", "group", "none")


class BatchNorm(_BatchNorm):
    """Batch normalisation of dimension 1, for vectors (B, C) and images (B, C, H, W) alike.

    Parameters, buffers and their names are those of `torch.nn.BatchNorm2d`. The running averages move by `momentum`
    each training step and are used in eval mode.
    """

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(features, eps=eps, momentum=momentum)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) to the same shape and dtype. ValueError when training on one row without further dimensions."""
        if self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return self._over_ranks(input)
        return super().forward(input)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2 or input.shape[1] != self.num_features:
            wanted, got = f"(B, {self.num_features}, ...)", tuple(input.shape)
            raise ValueError(f"BatchNorm({self.num_features}) takes {wanted}, got {got}")

    def _over_ranks(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        axes = [axis for axis in range(x.dim()) if axis != 1]
        rows = x.numel() // x.shape[1]
        mean = x.mean(axes) if rows else x.new_zeros(x.shape[1])
        spread = (x - _per_channel(mean, x)).square().sum(axes)  # (C,), around the mean of this rank
        # Not traced: it is a collective inside an autograd function. No decorator, because that imports the compiler, which
        # takes as long as torch itself, wherever a network is opened.
        count, mean, spread = torch.compiler.disable(_combine)(rows, mean, spread)  # type: ignore[reportCallIssue]
        variance = spread / count
        with torch.no_grad():
            self._move_averages(mean, spread / (count - 1).clamp(min=1))
        scale = torch.rsqrt(variance + self.eps) * self.weight
        y = x * _per_channel(scale, x) + _per_channel(self.bias - mean * scale, x)
        return y.to(input.dtype)

    def _move_averages(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


def norm(name: str, channels: int, image: bool = True) -> nn.Module:
    """The layer called `name` in `NORMS` for (B, C, H, W), or for (B, C) with `image=False`.

    "group" takes the largest number of groups up to 32 that divides `channels` and leaves each at least 2 channels of
    an image, or 16 numbers of a vector: a group of one number would become zero. Raises ValueError for another name.
    """
    if name == "batch":
        return BatchNorm(channels)
    if name == "layer":
        return nn.GroupNorm(1, channels) if image else nn.LayerNorm(channels)
    if name == "group":
        least = 2 if image else 16
        groups = [g for g in range(2, 33) if channels % g == 0 and channels // g >= least]
        return nn.GroupNorm(max(groups, default=1), channels)
    if name == "none":
        return nn.Identity()
    raise unknown("norm", name, NORMS)


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all ranks. Every rank's loss depends on it, so the gradient is summed likewise.

    Written here because `torch.distributed.nn.functional.all_reduce` is deprecated from torch 2.13 on.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _SumOverRanks.apply(gradients[0])  # type: ignore[return-value]  # differentiable once more


def _combine(rows: int, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (), means (C,) and summed squared deviations (C,) of one rank to those of all ranks together.

    Chan et al. 1979, Eq. 2.1 for any number of parts: exact where a difference of large sums would cancel. Each rank
    fills its own row of one small table, so a single sum over ranks is a gather that carries gradients.
    """
    own = torch.cat([mean, spread, mean.new_full((1,), rows)])
    table = F.pad(own[None], (0, 0, dist.get_rank(), dist.get_world_size() - dist.get_rank() - 1))
    table = _SumOverRanks.apply(table)  # (R, 2C + 1)
    means, spreads, counts = table.split([len(mean), len(mean), 1], dim=1)  # type: ignore[union-attr]
    count = counts.sum()
    together = (counts * means).sum(0) / count
    return count, together, (spreads + counts * (means - together).square()).sum(0)


def _per_channel(value: Tensor, like: Tensor) -> Tensor:
    """(C,) shaped to broadcast along dimension 1 of `like`."""
    return value.view(1, -1, *[1] * (like.dim() - 2))


__all__ = ["NORMS", "BatchNorm", "norm"]
