"""What a training needs to go on, as one snapshot, and back."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from engram.core.errors import RunError
from engram.core.optim import Optim
from engram.core.plan import Plan
from engram.core.snapshot import Snapshot, pack, unpack
from engram.core.task import Task
from engram.training.average import Average


@dataclass
class Position:
    """Where the run stands; saved with every state."""

    step: int = 0
    draws: int = 0  # batches taken from the training split
    best: float | None = None
    best_step: int = 0
    bad: int = 0  # evaluations since the best


def snapshot(task: Task, optims: dict[str, Optim], average: Average, at: Position, best: bool = False) -> Snapshot:
    """Live views of everything that the run needs to go on; for the best state only what predicts."""
    mean = {f"mean/{name}": t for name, t in average.mean.items()}
    tensors: dict[str, Tensor] = {}
    if not (best and mean):
        tensors |= {f"task/{name}": t.detach() for name, t in task.state_dict().items()}
    tensors |= mean
    facts: dict[str, Any] = {"at": {f.name: getattr(at, f.name) for f in fields(at)}}
    if not best:
        facts["optims"] = {key: pack(o.optimizer.state_dict(), f"optim/{key}", tensors) for key, o in optims.items()}
    return Snapshot(tensors, facts)


def restore(state: Snapshot, task: Task, optims: dict[str, Optim], average: Average, at: Position) -> None:
    """Put a snapshot back, in place, so that views and flat buffers stay valid. Raises RunError when it does not fit."""
    live = {f"task/{name}": t for name, t in task.state_dict().items()}
    live |= {f"mean/{name}": t for name, t in average.mean.items()}
    saved = {name: t for name, t in state.tensors.items() if name.startswith(("task/", "mean/"))}
    advice = "resume with the knobs that the run was made with"
    if live.keys() != saved.keys() or any((live[n].shape, live[n].dtype) != (saved[n].shape, saved[n].dtype) for n in live):
        raise RunError(f"the saved state does not fit this recipe's networks; {advice}")
    if optims.keys() != state.facts.get("optims", {}).keys():
        raise RunError(f"the saved state does not fit this recipe's optimizers; {advice}")
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(saved[name])
    for key, optim in optims.items():
        try:
            optim.optimizer.load_state_dict(unpack(state.facts["optims"][key], state.tensors))
        except (ValueError, KeyError) as error:
            raise RunError(f"the saved state of optimizer {key!r} does not fit ({error}); {advice}") from None
        _lay_out(optim.optimizer)
    for name, value in state.facts["at"].items():
        setattr(at, name, value)


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Moments in the layout of their weights, which files do not keep: fused kernels walk through both as they lie."""
    for p, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == p.shape and value.stride() != p.stride():
                state[name] = torch.empty_like(p, dtype=value.dtype).copy_(value)


def snapshot_size(task: Task, optims: dict[str, Optim], plan: Plan) -> int:
    """About how many bytes a saved state takes: weights, average, and two numbers per weight for the optimizer."""
    weights = sum(t.numel() * t.element_size() for t in task.state_dict().values())
    moved = sum(p.numel() * p.element_size() for o in optims.values() for p in o.tensors())
    return weights * (2 if plan.ema else 1) + 2 * moved
