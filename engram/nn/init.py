"""Starting weights: `initialise` fills the weights of linear and convolution layers by a named scheme.

With fan_in and fan_out the number of terms in a layer's forward and backward sums, and g = `gain(activation)`:

    xavier_*       Var W = 2 / (fan_in + fan_out)     Glorot & Bengio 2010, Eq. 16 (uniform) and Eq. 12
    he_*           Var W = g^2 / fan_in               He et al. 2015 "Delving deep into rectifiers", Eq. 10 and 15
    lecun_normal   Var W = 1 / fan_in                 LeCun et al. 1998 "Efficient BackProp", Eq. 16
    orthogonal     rows or columns orthonormal, times g                      Saxe et al. 2014
    zeros          every weight 0: all neurons of a layer stay equal, to show why the others exist
    auto           He for the ReLU family (relu, leaky_relu, gelu, silu, elu), Xavier for the rest

Biases become zero; the scale and shift of norms become one and zero. Differs from `torch.nn.init` in the fans of
grouped and transposed convolutions, which torch counts as if they were plain ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from engram.nn.activations import ACTIVATIONS, LEAKY_SLOPE, unknown

RELU_FAMILY = ("relu", "leaky_relu", "gelu", "silu", "elu")
SCHEMES = (
    "auto", "xavier_uniform", "xavier_normal", "he_uniform", "he_normal", "lecun_normal", "orthogonal", "zeros"
)  # fmt: skip


def gain(activation: str) -> float:
    """How much larger the weights before an activation must be so that signals keep their size.

    sqrt(2 / (1 + slope^2)) for the ReLU family (He et al. 2015, Eq. 15; slope 0 but for leaky_relu) and 1 for all
    others, which are near the identity around zero or end the network.
    """
    if activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS)
    if activation not in RELU_FAMILY:
        return 1.0
    slope = LEAKY_SLOPE if activation == "leaky_relu" else 0.0
    return math.sqrt(2 / (1 + slope**2))


def fans(layer: nn.Linear | _ConvNd) -> tuple[float, float]:
    """(fan_in, fan_out): terms in each sum of the forward and of the backward pass.

    A transposed convolution spreads its kernel over stride x stride outputs, so each output sums that many fewer.
    """
    window = math.prod(layer.weight.shape[2:])  # 1 for a linear layer
    if isinstance(layer, _ConvTransposeNd):  # weight: (in, out / groups, *kernel)
        inputs = layer.in_channels // layer.groups
        return inputs * window / math.prod(layer.stride), layer.weight.shape[1] * window
    groups = layer.groups if isinstance(layer, _ConvNd) else 1  # weight: (out, in / groups, *kernel)
    return layer.weight.shape[1] * window, layer.weight.shape[0] // groups * window


@torch.no_grad()
def initialise(
    module: nn.Module,
    scheme: str = "auto",
    activation: str = "linear",
    generator: torch.Generator | None = None,
    scale: float = 1.0,
) -> None:
    """Fill, in place, every linear, convolution and norm layer inside `module`.

    `activation` is the one that follows the layers ("linear" for a last layer); He and orthogonal take their gain from
    it and "auto" its scheme. `scale` multiplies every drawn weight. Draws come from `generator`, else from torch's
    global one. Raises ValueError for an unknown scheme or activation.
    """
    if scheme not in SCHEMES:
        raise unknown("initialisation", scheme, SCHEMES)
    factor = gain(activation)  # also rejects an unknown activation
    if scheme == "auto":
        scheme = "he_normal" if activation in RELU_FAMILY else "xavier_uniform"
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, _ConvNd)):
            _fill(layer.weight, scheme, factor, scale, fans(layer), generator)
            if layer.bias is not None:
                layer.bias.zero_()
        elif isinstance(layer, (_NormBase, nn.GroupNorm, nn.LayerNorm)):
            if layer.weight is not None:
                layer.weight.fill_(1)
            if layer.bias is not None:
                layer.bias.zero_()


def _fill(
    weight: Tensor,
    scheme: str,
    factor: float,
    scale: float,
    fan: tuple[float, float],
    generator: torch.Generator | None,
) -> None:
    fan_in, fan_out = fan
    if scheme == "zeros":
        weight.zero_()
    elif scheme == "orthogonal":
        nn.init.orthogonal_(weight, gain=factor * scale, generator=generator)
    else:
        family, _, shape = scheme.partition("_")
        variance = {"xavier": 2 / (fan_in + fan_out), "he": factor**2 / fan_in, "lecun": 1 / fan_in}[family]
        deviation = scale * math.sqrt(variance)
        if shape == "normal":
            weight.normal_(0, deviation, generator=generator)
        else:  # U(-b, b) has variance b^2 / 3
            bound = math.sqrt(3) * deviation
            weight.uniform_(-bound, bound, generator=generator)
