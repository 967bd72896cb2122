"""From knobs to an optimizer with its groups, buffers and schedule."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from engram.core.errors import ConfigError
from engram.core.optim import FlatGroup, Optim, flatten
from engram.optim.adam import FusedAdam
from engram.optim.groups import split, trainable
from engram.optim.knobs import OptimKnobs
from engram.optim.muon import Muon, muon_groups
from engram.optim.schedules import make


def build(module: nn.Module, knobs: OptimKnobs) -> Optim:
    """The optimizer of a module's trainable parameters; call it when the module is on its device.

    With `knobs.flat` the parameters become views into one buffer per group (not for muon and lbfgs, which look at
    matrices and at all parameters together). A parameter that took no part in a loss then has a gradient of zero, not None.

    Raises ConfigError when nothing is trainable, or when lbfgs is given l1 or weight_decay.
    """
    knobs = knobs.settled()
    schedule = make(knobs)
    if knobs.name == "lbfgs":
        return Optim(_lbfgs(module, knobs), schedule)
    if knobs.name == "muon":
        kinds = muon_groups(module)
        groups = [_group(members, decays, knobs) | {"orthogonal": orthogonal} for orthogonal, decays, members in kinds]
        optimizer: torch.optim.Optimizer = Muon(groups, momentum=knobs.momentum or 0.0, betas=(knobs.beta1, knobs.beta2 or 0.0))
        flat: list[FlatGroup] = []
    else:
        parts = split(module)
        flat = _flatten([members for _, members in parts]) if knobs.flat else []
        held = [[f.buffer] for f in flat] or [members for _, members in parts]
        groups = [_group(members, decays, knobs) for (decays, _), members in zip(parts, held, strict=True)]
        optimizer = _elementwise(groups, knobs)
    if knobs.l1:
        optimizer.register_step_pre_hook(_add_l1)
    fused = not knobs.l1 and bool(optimizer.defaults.get("fused"))  # L1 is added to gradients that are clipped already
    return Optim(optimizer, schedule, tuple(flat), fused)


def _group(parameters: list[nn.Parameter], decays: bool, knobs: OptimKnobs) -> dict[str, Any]:
    return {
        "params": parameters,
        "lr": knobs.lr,
        "initial_lr": knobs.lr,
        "weight_decay": knobs.weight_decay if decays else 0.0,
        "l1": knobs.l1 if decays else 0.0,
    }


def _flatten(groups: list[list[nn.Parameter]]) -> list[FlatGroup]:
    """A flat group for each group; those of one dtype and device share one stretch of memory."""
    alike: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for number, members in enumerate(groups):
        alike.setdefault((members[0].dtype, members[0].device), []).append(number)
    flat: dict[int, FlatGroup] = {}
    for numbers in alike.values():
        flat |= zip(numbers, flatten([groups[n] for n in numbers]), strict=True)
    return [flat[n] for n in range(len(groups))]


def _elementwise(groups: list[dict[str, Any]], knobs: OptimKnobs) -> torch.optim.Optimizer:
    momentum, beta2 = knobs.momentum or 0.0, knobs.beta2 or 0.0
    betas = (knobs.beta1, beta2)
    every = [p for g in groups for p in g["params"]]
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in every) or None
    match knobs.name:
        case "sgd":
            return torch.optim.SGD(groups, fused=fused)
        case "momentum":
            return torch.optim.SGD(groups, momentum=momentum, fused=fused)
        case "nesterov":
            return torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0, fused=fused)
        case "rmsprop":
            return torch.optim.RMSprop(groups, alpha=beta2, momentum=momentum)
        case "adagrad":
            on_cpu = all(p.device.type == "cpu" for p in every)  # the CUDA kernel is newer than the oldest torch we take
            return torch.optim.Adagrad(groups, fused=(fused and on_cpu) or None)
        case "adadelta":
            return torch.optim.Adadelta(groups, rho=beta2)
        case "adam":
            return FusedAdam(groups, betas=betas) if fused else torch.optim.Adam(groups, betas=betas)
        case "nadam":
            return torch.optim.NAdam(groups, betas=betas, decoupled_weight_decay=True)
        case "adamw":
            return FusedAdam(groups, betas=betas, decoupled=True) if fused else torch.optim.AdamW(groups, betas=betas)
    raise ConfigError(f"optim.name={knobs.name} is not an elementwise optimizer")


def _lbfgs(module: nn.Module, knobs: OptimKnobs) -> torch.optim.LBFGS:
    """L-BFGS with a strong-Wolfe line search (Nocedal & Wright 2006, algorithms 7.5 and 3.5): all parameters in one group."""
    for name, value in (("l1", knobs.l1), ("weight_decay", knobs.weight_decay)):
        if value:
            raise ConfigError(f"optim.{name}={value} does not go with lbfgs, which sees the loss alone; set it to 0")
    parameters = [m.parameter for m in trainable(module)]
    optimizer = torch.optim.LBFGS(parameters, lr=knobs.lr, history_size=10, line_search_fn="strong_wolfe")
    optimizer.param_groups[0]["initial_lr"] = knobs.lr
    return optimizer


def _add_l1(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Adds the gradient of l1 * |w|, taking 0 at w = 0."""
    with torch.no_grad():
        for group in optimizer.param_groups:
            if group["l1"]:
                for p in group["params"]:
                    if p.grad is not None:
                        p.grad.add_(p.sign(), alpha=group["l1"])
