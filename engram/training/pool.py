"""ReLU and 2 x 2 max pool as one operation for channels-last maps on the processor, where torch's two take twice as long.

The largest of four ReLUs is the ReLU of the largest, so ReLU is left with a quarter of the work. The pool is two maxima, and
the gradient goes back the same two steps. On the way back numbers are compared and masked as the integers that their bits
spell: the kernels are faster, and in windows that receive a gradient, whose largest number is positive, the order is the
same. Outputs and gradients equal those of torch to the last bit: of equal numbers in a window the first receives the gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


def suits(x: Tensor) -> bool:
    """Whether `relu_pool` is the faster way for (B, C, H, W)."""
    plain = x.device.type == "cpu" and x.dtype in BITS and x.dim() == 4 and min(x.shape[-2:]) > 1
    return plain and x.is_contiguous(memory_format=torch.channels_last)


def relu_pool(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, H / 2, W / 2), rounded down: `max_pool2d(relu(x), 2)`."""
    result: Tensor = _ReluPool.apply(x)  # type: ignore[assignment]
    return result


class _ReluPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        even = _even(x)
        pairs = torch.maximum(even[..., 0::2], even[..., 1::2])
        largest = torch.maximum(pairs[..., 0::2, :], pairs[..., 1::2, :]).relu_()
        ctx.save_for_backward(x, pairs, largest)
        return largest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x, pairs, largest = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody differentiates the gradient: leave that to torch
            return torch.autograd.grad(F.max_pool2d(F.relu(x), 2), x, gradients[0], create_graph=True)[0]
        bits = BITS[x.dtype]
        gradient = gradients[0].contiguous(memory_format=torch.channels_last).view(bits)
        gradient = gradient * torch.gt(largest.view(bits), 0, out=torch.empty_like(gradient))
        pairs, x = pairs.view(bits), x.view(bits)
        of_pairs, of_x = torch.empty_like(pairs), (torch.empty_like if _even(x).shape == x.shape else torch.zeros_like)(x)
        _share(gradient, _halves(pairs, -2), _halves(of_pairs, -2))
        _share(of_pairs, _halves(_even(x), -1), _halves(_even(of_x), -1))
        return of_x.view(largest.dtype)


def _even(x: Tensor) -> Tensor:
    """Without the last row and column that no window holds."""
    return x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2]


def _halves(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return (x[..., 0::2], x[..., 1::2]) if dim == -1 else (x[..., 0::2, :], x[..., 1::2, :])


def _share(gradient: Tensor, values: tuple[Tensor, Tensor], into: tuple[Tensor, Tensor]) -> None:
    """The gradient to the larger of two values, to the first if they are equal, and 0 to the other; all as integers."""
    first = torch.ge(*values, out=torch.empty_like(gradient))
    torch.mul(gradient, first, out=into[0])
    torch.sub(gradient, into[0], out=into[1])
