"""Row-wise Adagrad: every row of a table of vectors has one rate, lr / sqrt(sum of its mean squared gradients).

Adagrad (Duchi et al. 2011) with one accumulator per row instead of one per number, as is usual for embeddings: rare words make
large steps, frequent ones small steps, and a batch of thousands of words is as stable as one word at a time. A row without a
gradient does not move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from engram.core.knobs import knob
from engram.core.optim import FlatGroup, Optim
from engram.optim.knobs import OptimKnobs
from engram.optim.schedules import make


class RowAdagrad(torch.optim.Optimizer):
    """Groups give "row", the numbers of a row. State per parameter: "sum" (rows,), of the rows' mean squared gradients."""

    def __init__(self, groups: list[dict[str, Any]], lr: float):
        super().__init__(groups, {"lr": lr, "row": 1})
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {"sum": torch.zeros(p.numel() // group["row"], dtype=p.dtype, device=p.device)}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the rows that have a gradient; `closure` is not called."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    width = group["row"]
                    row_step(p.view(-1, width), p.grad.view(-1, width), self.state[p]["sum"], group["lr"])


def row_step(rows: Tensor, gradient: Tensor, total: Tensor, lr: float) -> None:
    """total += mean(gradient^2); rows -= lr gradient / sqrt(total), for rows with a gradient; all (rows, width) in place."""
    square = torch.linalg.vector_norm(gradient, dim=1).square_()
    total.add_(square, alpha=1 / rows.shape[1])
    moved = square.nonzero()[:, 0]
    rate = total[moved].rsqrt_().mul_(-lr)
    rows.index_add_(0, moved, gradient[moved].mul_(rate[:, None]))


@dataclass(frozen=True, kw_only=True)
class RowKnobs:
    """Optimizer of tables of vectors.

    `adagrad` is row-wise Adagrad. `sgd` is plain gradient descent on the mean loss of a batch, so its rate is larger than the
    one per pair of the papers: about the number of examples in a batch times 0.025.
    """

    name: Literal["adagrad", "sgd"] = knob("adagrad", "row-wise Adagrad, or plain gradient descent")
    lr: float = knob(0.1, "base learning rate", low=0)
    schedule: Literal["constant", "cosine", "linear"] = knob("linear", "how the rate falls over the run")
    warmup: float = knob(0.0, "rising start: fraction of the steps, or steps from 1 on", low=0)
    final: float = knob(0.0, "last rate as a fraction of lr", low=0, high=1)


def build_rows(module: nn.Module, knobs: RowKnobs) -> Optim:
    """The optimizer of all tables of a module, those of one width in one buffer; call it when the module is on its device.

    A parameter of shape (rows,) has rows of one number.
    """
    alike: dict[int, list[nn.Parameter]] = {}
    for p in module.parameters():
        if p.requires_grad:
            alike.setdefault(p.numel() // len(p), []).append(p)
    flat = tuple(FlatGroup(members) for members in alike.values())
    groups = [{"params": [f.buffer], "row": row} for f, row in zip(flat, alike, strict=True)]
    schedule = make(OptimKnobs(schedule=knobs.schedule, warmup=knobs.warmup, final=knobs.final))
    made = RowAdagrad(groups, knobs.lr) if knobs.name == "adagrad" else torch.optim.SGD([f.buffer for f in flat], lr=knobs.lr)
    return Optim(made, schedule, flat)
