"""Convolutions that halve a map, of any size, in any number format."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Strided(nn.Conv2d):
    """An odd kernel over (B, C, H, W), padded by half of itself: (B, width, H / stride, W / stride), rounded up.

    Over a map one place wide it does not stride sideways. The numbers are the same, and with such a stride oneDNN's gradient of
    the weights in bfloat16 is memory that nobody wrote (torch 2.13, any height, kernels of 3 or more).
    """

    def __init__(self, channels: int, width: int, kernel: int = 3, stride: int = 2, bias: bool = True) -> None:
        super().__init__(channels, width, kernel, stride, kernel // 2, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[-1] > 1:
            return super().forward(input)
        return F.conv2d(input, self.weight, self.bias, (self.stride[0], 1), self.padding)


__all__ = ["Strided"]
