"""Gradients in the layout of their activations, where torch's own kernels would convert them slowly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def keep_layout(network: nn.Module) -> None:
    """Hand every max pool its gradient channels-last when its output was. Call it as often as you like.

    What follows the last pool flattens the map, so the gradient comes back contiguous, and the kernel then converts more than
    that gradient: 5.3 ms where 1.6 do with the conversion done before (bf16, 128 x 64 x 24 x 24). The numbers are the same.
    """
    for module in network.modules():
        if isinstance(module, nn.MaxPool2d) and _watch not in module._forward_hooks.values():
            module.register_forward_hook(_watch)


def _watch(pool: nn.Module, inputs: Any, output: Tensor) -> None:
    if output.requires_grad and output.is_contiguous(memory_format=torch.channels_last):
        output.register_hook(_channels_last)


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)
