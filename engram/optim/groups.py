"""Parameter groups: weights decay, the rest does not. The order is that of the module, so a saved optimizer fits again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from engram.core.errors import ConfigError

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class Member(NamedTuple):
    """A trainable parameter, where it lives, and whether decay and L1 apply to it."""

    name: str
    parameter: nn.Parameter
    owner: nn.Module
    decays: bool


def members(module: nn.Module) -> Iterator[Member]:
    """Trainable parameters in the order of `module.named_parameters()`; a shared one comes once, at its first place."""
    seen: set[int] = set()
    for prefix, owner in module.named_modules():
        for name, p in owner.named_parameters(recurse=False):
            if id(p) not in seen and p.requires_grad:
                seen.add(id(p))
                yield Member(f"{prefix}.{name}" if prefix else name, p, owner, decays(owner, name, p))


def decays(owner: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    """Decay is for matrices and kernels: not for norms, gains, biases (tables of biases too) and other vectors."""
    return parameter.dim() >= 2 and not isinstance(owner, NORMS) and not name.startswith("bias") and not name.endswith("bias")


def trainable(module: nn.Module) -> list[Member]:
    """`members` as a list. Raises ConfigError when there is none."""
    found = list(members(module))
    if not found:
        raise ConfigError(f"{type(module).__name__} has nothing to train: every parameter is frozen; unfreeze a layer")
    return found


def split(module: nn.Module) -> list[tuple[bool, list[nn.Parameter]]]:
    """(decays, parameters) groups: weights first, then the rest; parameters of unlike dtype or device are kept apart.

    Raises ConfigError when the module has no trainable parameter.
    """
    found: dict[tuple[bool, str, str], list[nn.Parameter]] = {}
    for m in sorted(trainable(module), key=lambda m: not m.decays):  # a stable sort: the module's order within each kind
        found.setdefault((m.decays, str(m.parameter.dtype), str(m.parameter.device)), []).append(m.parameter)
    return [(key[0], parameters) for key, parameters in found.items()]
