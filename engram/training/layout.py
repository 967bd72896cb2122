"""Maps and gradients in the layout and order of operations that the processor's kernels are fast with."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
from torch import Tensor, nn

from engram.training.pool import relu_pool, suits


def keep_layout(network: nn.Module) -> None:
    """Hand every max pool its gradient channels-last when its output was; a ReLU and a 2 x 2 max pool that follow each other in
    an `nn.Sequential` run as one operation. Call it as often as you like.

    What follows the last pool flattens the map, so the gradient comes back contiguous, and the kernel then converts more than
    that gradient: 5.3 ms where 1.6 do with the conversion done before (bf16, 128 x 64 x 24 x 24). The numbers are the same.
    """
    for module in network.modules():
        if isinstance(module, nn.MaxPool2d) and _watch not in module._forward_hooks.values():
            module.register_forward_hook(_watch)
        if type(module) is nn.Sequential and any(itertools.starmap(_pair, itertools.pairwise(module))):
            # Its layers stay as they are, for whoever runs them one by one.
            module.forward = functools.partial(_run, module)  # type: ignore[method-assign]


def _run(layers: nn.Sequential, input: Tensor) -> Tensor:
    """What `nn.Sequential` does."""
    x = input
    waiting = list(layers)
    while waiting:
        layer = waiting.pop(0)
        if waiting and _pair(layer, waiting[0]) and suits(x):
            waiting.pop(0)
            x = relu_pool(x)
        else:
            x = layer(x)
    return x


def _pair(relu: nn.Module, pool: nn.Module) -> bool:
    """Whether two layers are a ReLU and a 2 x 2 max pool whose outputs nobody else looks at."""
    if type(relu) is not nn.ReLU or type(pool) is not nn.MaxPool2d:
        return False
    sizes = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    halves = all(size in (n, (n, n)) for size, n in zip(sizes, (2, 2, 0, 1), strict=True))
    return halves and not pool.ceil_mode and not pool.return_indices and not _hooked(relu) and not _hooked(pool)


def _hooked(module: nn.Module) -> bool:
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return bool(module._backward_hooks or module._backward_pre_hooks or set(hooks) - {_watch})


def _watch(pool: nn.Module, inputs: Any, output: Tensor) -> None:
    if output.requires_grad and output.is_contiguous(memory_format=torch.channels_last):
        output.register_hook(_channels_last)


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)
