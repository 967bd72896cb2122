"""A batch is a dict of tensors; rows are the first dimension of every one of them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

Batch = dict[str, Tensor]
Logs = dict[str, Tensor]


def rows(batch: Mapping[str, Tensor]) -> int:
    """How many rows the batch holds."""
    return next(iter(batch.values())).shape[0]


def split_rows(batch: Batch, pieces: int) -> list[Batch]:
    """Cut a batch into `pieces` nearly equal batches of consecutive rows; empty pieces are left out."""
    if pieces == 1:
        return [batch]
    parts = {name: tensor.tensor_split(pieces) for name, tensor in batch.items()}
    return [p for i in range(pieces) if rows(p := {name: part[i] for name, part in parts.items()})]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same batch on `device`; tensors that are there already are not copied."""
    if all(tensor.device == device for tensor in batch.values()):
        return batch
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def fold(*parts: object) -> int:
    """A 32-bit seed that is a pure function of `parts`: randomness then depends on (seed, step, ...) and on nothing else."""
    return zlib.crc32(repr(parts).encode())
