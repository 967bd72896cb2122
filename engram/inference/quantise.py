"""Copies of a language model with smaller weights, for decoding on a processor, where reading the weights takes the time.

bf16  every number as bfloat16; the weights are laid out once for oneDNN's matrix product, which else does it at every call
int8  linear layers as 8-bit numbers with one scale per output, about -127 to 127 times the largest (absmax); the rest bf16
int4  linear layers as 4-bit numbers, scale and zero per GROUP inputs; the output layer int8; the rest bf16

int8 and int4 use torch's own kernels for few rows (`_weight_int8pack_mm`, `_weight_int4pack_mm_for_cpu`). With many rows, as
when a prompt is read, arithmetic is what takes the time, and the weights are turned into bf16 for that one product.
Activations are bf16 in all three. What that costs is measured in docs/generation.md.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.errors import ConfigError, did_you_mean

Weights = Literal["auto", "fp32", "bf16", "int8", "int4"]
WEIGHTS = ("auto", "fp32", "bf16", "int8", "int4")
GROUP = 32
FEW = {"int8": 6, "int4": 16}  # rows up to which the kernel is faster than bf16; measured on a processor with AVX-512
SMALL = 20_000_000  # weights below which "auto" leaves a model as it is


def choose_weights(wish: str, model: nn.Module, rows: int, bf16: bool) -> str:
    """What "auto" means: a small model stays fp32; else int8 for few rows and bf16 for more, where the processor has bf16.

    Raises ConfigError for an unknown wish.
    """
    if wish not in WEIGHTS:
        raise ConfigError(f"weights={wish} is unknown{did_you_mean(wish, WEIGHTS)}; choose from {', '.join(WEIGHTS)}")
    if wish != "auto":
        return wish
    first = next(model.parameters())
    if first.device.type != "cpu" or not bf16 or sum(p.numel() for p in model.parameters()) < SMALL:
        return "fp32"
    return "int8" if rows <= FEW["int8"] and _transformer(model) else "bf16"


def quantise(model: nn.Module, weights: str) -> nn.Module:
    """A copy for inference with its weights as `weights` says, on the same device; "fp32" gives the model itself.

    Raises ConfigError for a recurrent model in int8 or int4, and for int8 or int4 away from the processor.
    """
    if weights == "fp32":
        return model
    cpu = next(model.parameters()).device.type == "cpu"
    if weights == "bf16" and not (cpu and _transformer(model)):
        return copy.deepcopy(model).to(torch.bfloat16).eval()
    if not _transformer(model):
        raise ConfigError(f"weights={weights} is for Transformers; use weights=bf16 or fp32 for a recurrent run")
    if not cpu:
        raise ConfigError(f"weights={weights} runs on the processor only; use weights=bf16, or device=cpu")
    smaller = copy.deepcopy(model).to(torch.bfloat16).eval().requires_grad_(False)
    net = cast(Any, smaller)
    if net.out is None:  # tied: the table is looked up as bf16, and is once more the output layer
        net.out = _layer(cast(Any, model).tokens.weight, None, "int8" if weights == "int4" else weights)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            parent, _, last = name.rpartition(".")
            form = "int8" if name == "out" and weights == "int4" else weights
            setattr(smaller.get_submodule(parent), last, _layer(layer.weight, layer.bias, form))
    return smaller


def _transformer(model: nn.Module) -> bool:
    """Whether every linear layer of a language model is called as a module, and its cache keeps keys and values."""
    return cast(Any, model).new_cache(1, 1).rewinds


def _layer(weight: Tensor, bias: Tensor | None, weights: str) -> nn.Module:
    weight, bias = weight.detach().float(), None if bias is None else bias.detach().to(torch.bfloat16)
    if weights == "int8":
        return Int8Linear(weight, bias)
    if weights == "int4" and weight.shape[1] % GROUP == 0 and weight.shape[0] % 16 == 0:
        return Int4Linear(weight, bias)
    return Int8Linear(weight, bias) if weights == "int4" else PackedLinear(weight, bias)


class PackedLinear(nn.Module):
    """x W^T + b in bfloat16, W laid out once for oneDNN."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        weight = weight.to(torch.bfloat16)
        try:
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        except (RuntimeError, AttributeError):  # a torch without oneDNN, or one that calls this otherwise
            self.packed = weight
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N)."""
        if self.packed.is_mkldnn:
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return F.linear(x, self.packed, self.bias)


class Int8Linear(nn.Module):
    """x W^T + b with W (N, K) as int8 and a scale for each of the N rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        scale = (weight.abs().amax(1) / 127).clamp(min=1e-12).to(torch.bfloat16)
        self.weight = (weight / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        self.scale, self.bias = scale, bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N)."""
        flat = x.reshape(-1, x.shape[-1])
        if len(flat) > FEW["int8"]:
            y = F.linear(flat, self.weight.to(torch.bfloat16)) * self.scale
        else:
            y = torch.ops.aten._weight_int8pack_mm(flat, self.weight, self.scale)
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], -1)


class Int4Linear(nn.Module):
    """x W^T + b with W (N, K) as numbers q from 0 to 15: (q - 8) * scale + zero, scale and zero for each GROUP of a row."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        groups = weight.unflatten(1, (-1, GROUP))  # (N, K / GROUP, GROUP)
        low, high = groups.amin(2), groups.amax(2)
        scale = ((high - low) / 15).clamp(min=1e-6).to(torch.bfloat16)
        zero = (low + 8 * scale.float()).to(torch.bfloat16)
        q = ((groups - zero.float()[..., None]) / scale.float()[..., None] + 8).round().clamp(0, 15).to(torch.int32)
        self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q.flatten(1), 1)
        self.scales = torch.stack([scale, zero], 2).transpose(0, 1).contiguous()  # (K / GROUP, N, 2)
        self.bias, self.numbers = bias, q.to(torch.uint8).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N)."""
        flat = x.reshape(-1, x.shape[-1])
        if len(flat) > FEW["int4"]:
            y = F.linear(flat, self._whole())
        else:
            y = torch.ops.aten._weight_int4pack_mm_for_cpu(flat, self.packed, GROUP, self.scales)
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], -1)

    def _whole(self) -> Tensor:
        scale, zero = self.scales.transpose(0, 1).unbind(2)
        q = self.numbers.to(torch.bfloat16).unflatten(1, (-1, GROUP)) - 8
        return (q * scale[..., None] + zero[..., None]).flatten(1)
