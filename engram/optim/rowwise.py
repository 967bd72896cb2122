"""Row-wise Adagrad: every row of a table of vectors has one rate, lr / sqrt(sum of its mean squared gradients).

Adagrad (Duchi et al. 2011) with one accumulator per row instead of one per number, as is usual for embeddings: rare words make
large steps, frequent ones small steps, and a batch of thousands of words is as stable as one word at a time. A row without a
gradient does not move.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from engram.core.knobs import knob
from engram.core.optim import Optim
from engram.optim.knobs import OptimKnobs
from engram.optim.schedules import make

EPSILON = 1e-12  # of the squared gradient: only rows that never moved have less


class RowAdagrad(torch.optim.Optimizer):
    """State per parameter: "sum" (rows,), for a matrix (rows, ...) or a vector (rows,)."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float):
        super().__init__(list(params), {"lr": lr})
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {"sum": torch.zeros(len(p), dtype=torch.float32, device=p.device)}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient; `closure` is not called."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    row_step(p, p.grad, self.state[p]["sum"], group["lr"])


def row_step(p: Tensor, grad: Tensor, total: Tensor, lr: float) -> None:
    """sum += mean(grad^2); p -= lr grad / sqrt(sum), row by row."""
    rows = grad.view(len(grad), -1)
    total.add_(torch.linalg.vector_norm(rows, dim=1).square_(), alpha=1 / rows.shape[1])
    rate = (total + EPSILON).rsqrt_()
    p.view_as(rows).addcmul_(rows, rate[:, None], value=-lr)


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
    """The optimizer of all tables of a module; call it when the module is on its device."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    schedule = make(OptimKnobs(schedule=knobs.schedule, warmup=knobs.warmup, final=knobs.final))
    if knobs.name == "sgd":
        return Optim(torch.optim.SGD(parameters, lr=knobs.lr), schedule)
    return Optim(RowAdagrad(parameters, knobs.lr), schedule)
