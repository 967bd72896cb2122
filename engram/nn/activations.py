"""Activation functions by name.

`activation("relu")` builds the module; `ACTIVATIONS` lists the names. All work on tensors of any shape, element by
element, except softmax, which normalises over dimension 1: the features of (B, C) and the channels of (B, C, H, W).

Papers: ReLU, Nair & Hinton 2010; leaky ReLU, Maas et al. 2013 (slope 0.01 below zero); ELU, Clevert et al. 2016;
GELU, Hendrycks & Gimpel 2016 (the exact form, with the normal distribution function); SiLU, Elfwing et al. 2018;
the straight-through gradient of the step, Bengio et al. 2013, section 4.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

from torch import Tensor, nn

LEAKY_SLOPE = 0.01  # slope of leaky ReLU below zero; the He initialisation reads it too


class Step(nn.Module):
    """Heaviside step: 1 where x > 0, else 0, so that a neuron either fires or stays quiet.

    Its true gradient is zero everywhere, so nothing would learn. The straight-through estimator of Bengio et al. 2013
    passes the gradient on as if the step were the identity, here only where |x| <= 1 (the clipping of Hubara et al.
    2016, Eq. 4): a neuron that is far from its threshold is left alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape and dtype out."""
        through = x.clamp(-1, 1)  # gradient 1 inside, 0 outside
        # through - through.detach() is exactly zero, so the value is the step and the gradient is the clamp's.
        return (x > 0).to(x.dtype) + (through - through.detach())


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "step": Step,
    "linear": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE),
    "softmax": lambda: nn.Softmax(dim=1),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
}


def activation(name: str) -> nn.Module:
    """A new module for one of `ACTIVATIONS`. Raises ValueError, with the nearest name, for any other."""
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def unknown(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that is not among the `known` ones, suggesting the nearest."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ValueError(f"unknown {kind} {name!r}: {hint}choose from {', '.join(names)}")
