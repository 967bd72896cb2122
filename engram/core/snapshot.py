"""Snapshot: everything that a run needs to go on exactly: tensors by name, and facts as JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Snapshot:
    """Tensors may be live views of the run: whoever keeps them copies them before the next step."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def pack(value: Any, prefix: str, tensors: dict[str, Tensor]) -> Any:
    """A JSON skeleton of nested dicts, lists, tuples and numbers; tensors move into `tensors` under names below `prefix`."""
    if isinstance(value, Tensor):
        tensors[prefix] = value.detach()
        return {"tensor": prefix}
    if isinstance(value, Mapping):
        items = [[k, pack(v, f"{prefix}/{k}", tensors)] for k, v in value.items()]
        return {"dict": items}
    if isinstance(value, (list, tuple)):
        items = [pack(v, f"{prefix}/{i}", tensors) for i, v in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(f"{prefix} is a {type(value).__name__}: a snapshot holds tensors, numbers, text and containers of these")


def unpack(skeleton: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `pack`; tensors are clones."""
    ((kind, body),) = skeleton.items()
    if kind == "tensor":
        return tensors[body].clone()
    if kind == "dict":
        return {(tuple(k) if isinstance(k, list) else k): unpack(v, tensors) for k, v in body}
    if kind in ("list", "tuple"):
        items = [unpack(v, tensors) for v in body]
        return items if kind == "list" else tuple(items)
    return body


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU."""
    return {name: t.detach().to("cpu", copy=True, memory_format=torch.contiguous_format) for name, t in tensors.items()}
