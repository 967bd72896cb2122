"""Why a step was not finite: repeats it and names the step, the layer and the batch."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn

from engram.core.batch import Batch, fold, split_rows, to_device
from engram.core.data import Data
from engram.core.task import Ctx, Task
from engram.training.guard import Found, NonFinite
from engram.training.seed import seed_generators
from engram.training.update import Update


def explain(bad: NonFinite, task: Task, update: Update, batch: Batch, ctx: Ctx, draw: int) -> str:
    """One line: what was not finite, at which step, which batch, which layer first, and what to do."""
    where = f"at step {ctx.step + 1}, batch {draw}"
    for name, tensor in batch.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            bad_rows = (~tensor.isfinite()).reshape(len(tensor), -1).any(1)
            row = int(bad_rows.nonzero()[0])
            return f"{bad} is not finite {where}: input {name!r} of the batch holds NaN or infinity (row {row}); clean the data"
    weights = [name for name, p in task.named_parameters() if not p.isfinite().all()]
    if weights:
        return f"{bad} is not finite {where}: weights {', '.join(weights[:3])} already were not; lower optim.lr"
    # a loss that compares rows may wait for other ranks, which may have found their reason already
    alone = ctx.mesh.world == 1 or update.phase.splits
    layer = _first_bad_layer(task, update, batch, ctx, draw) if alone else ""
    if layer:
        return f"{bad} is not finite {where}: first in the output of layer {layer}; lower optim.lr or set precision=fp32"
    gradients = [name for name, norm in update.layer_norms().items() if not norm.isfinite()]
    if gradients:
        return f"{bad} is not finite {where}: gradient of {gradients[-1]}; lower optim.lr or set precision=fp32"
    if not float(update.phase.weight(batch)):
        return f"{bad} is not finite {where}: no item of the batch counts (weight 0); check the targets"
    return f"{bad} is not finite {where}: the loss itself, not a layer; check the targets and the loss"


def explain_later(found: Found, task: Task, data: Data) -> str:
    """The same for an update that is past: its batch is drawn again, and the weights are those that it met."""
    mesh, update = found.ctx.mesh, found.update
    batch = to_device(next(data.batches("train", start=found.draw, part=(mesh.rank, mesh.world))), update.device)
    if update.again(batch, found.ctx, found.draw):
        where = f"at step {found.ctx.step + 1}, batch {found.draw}"
        return f"{found.bad} was not finite {where}, and is when repeated; lower optim.lr or set precision=fp32"
    return explain(found.bad, task, update, batch, found.ctx, found.draw)


def _first_bad_layer(task: Task, update: Update, batch: Batch, ctx: Ctx, draw: int) -> str:
    """Runs the forward pass again with the same randomness; the name of the first leaf whose output is not finite."""
    found: list[str] = []
    handles = []
    for name, module in task.named_modules():
        if next(module.children(), None) is not None:
            continue

        def look(module: nn.Module, inputs: tuple, output: object, name: str = name) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and not output.isfinite().all():
                found.append(f"{name} ({type(module).__name__})")

        handles.append(module.register_forward_hook(look))
    try:
        for number, micro in enumerate(split_rows(batch, update.plan.accumulate)):
            seed_generators(update.device, fold(update.plan.seed, draw, update.phase.name, number, ctx.mesh.rank))
            with torch.enable_grad(), contextlib.suppress(ArithmeticError):
                update.phase.loss(micro, ctx)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""
