"""One network trained in memory by the library's loop, leaving torch as it was found."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from engram.core.data import Data
from engram.core.errors import ConfigError
from engram.core.plan import Evaluated, Stepped
from engram.core.recipe import Recipe
from engram.core.snapshot import Snapshot, on_cpu
from engram.core.task import Task
from engram.training.fit import fit


@dataclass
class History:
    """What the training told."""

    losses: list[float] = field(default_factory=list)  # training loss, the mean of each epoch
    metrics: list[dict[str, float]] = field(default_factory=list)  # of the validation rows, per evaluation


@contextlib.contextmanager
def undisturbed(threads: int, device: torch.device) -> Iterator[None]:
    """Compute with `threads` threads (0: as torch is set); the caller's threads and random numbers come back after it."""
    before = torch.get_num_threads()
    accelerators = range(torch.cuda.device_count()) if device.type == "cuda" else ()
    with torch.random.fork_rng(devices=list(accelerators)):
        if threads:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def train(recipe: Recipe, task: Task, data: Data, device: torch.device, verbose: int = 0) -> tuple[nn.Module, History]:
    """Train `task` on `device` and return its network in eval mode on the CPU, with the best weights, and the history.

    The best weights are those of the lowest validation loss, or the last where there are no validation rows; the averaged
    ones when the recipe keeps an average. Raises what `fit` raises.
    """
    data.to(device)
    task.to(device)
    plan = recipe.make_plan(data, precision="fp32")
    plan = dataclasses.replace(plan, log_every=plan.steps)
    kept: dict[str, Tensor] = {}

    def keep(snapshot: Snapshot, best: bool) -> None:
        if best:  # then it holds nothing but what predicts, under task/ or mean/
            kept.update({name.partition("/")[2]: t for name, t in on_cpu(snapshot.tensors).items()})

    history, per_epoch = History(), data.steps_per_epoch
    total, count = torch.zeros((), device=device), 0
    for event in fit(task, data, recipe.make_optims(task), plan, save=keep):
        if isinstance(event, Stepped):
            total, count = total + event.logs["model/loss"], count + 1
            if event.step % per_epoch == 0 or event.step == plan.steps:
                history.losses.append(float(total) / count)
                total, count = torch.zeros((), device=device), 0
                if verbose:
                    print(f"epoch {len(history.losses)}: loss {history.losses[-1]:.5f}", file=sys.stderr)
        elif isinstance(event, Evaluated) and event.metrics:
            history.metrics.append(event.metrics)
            if verbose:
                print("  " + "  ".join(f"{n} {v:.5f}" for n, v in event.metrics.items()), file=sys.stderr)
    if kept:
        task.load_state_dict(kept)
    # A copy holds its own weights; those that were trained are views into the optimizer's buffer, with gradients.
    return copy.deepcopy(task.get_submodule("model")).cpu().eval(), history


def device_named(name: str) -> torch.device:
    """The device, after a look whether it is there. Raises ConfigError when it is not."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise ConfigError(f"device={name} is not on this machine; set device='cpu'") from None
    return device
