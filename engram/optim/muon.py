"""Muon: momentum whose update is made orthogonal, for weight matrices; AdamW for every other parameter.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; the AdamW-sized update is from Liu et al. 2025,
"Muon is Scalable for LLM Training". `torch.optim.Muon` is the reference for matrices; this version also takes convolution
kernels (flattened to out x in*k*k), does equal shapes in one batch, and has the AdamW part inside, so that a run has one
optimizer with one state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import sqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from engram.optim.groups import trainable

QUINTIC = (3.4445, -4.7750, 2.0315)  # steepest at 0; takes singular values into about [0.7, 1.2] in five steps
Scale = Literal["spectral", "adamw"]


def orthogonal(x: Tensor, steps: int = 5) -> Tensor:
    """Near U V^T for each x = U S V^T of shape (batch, m, n), by Newton-Schulz iterations in bfloat16."""
    a, b, c = QUINTIC
    tall = x.shape[-2] > x.shape[-1]
    y = x.bfloat16()
    y = y.mT if tall else y
    y = y / y.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # the largest singular value is now at most 1
    for _ in range(steps):
        gram = y @ y.mT
        y = torch.baddbmm(y, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return y.mT if tall else y


def matrix_shape(shape: torch.Size) -> tuple[int, int]:
    """Rows and columns of a weight seen as a matrix: kernels (out, in, k, k) are (out, in*k*k)."""
    return shape[0], shape[1:].numel()


class Muon(torch.optim.Optimizer):
    """Groups with `orthogonal` True take Muon steps, the others AdamW steps.

    `scale` sets the size of Muon's update for a matrix of m rows and n columns: "spectral" sqrt(max(1, m/n)) (Jordan), or
    "adamw" 0.2 sqrt(max(m, n)), whose root mean square is that of a typical AdamW update (Liu, Eq. 4), so that one learning
    rate and decay serve both parts. State: `momentum_buffer`, or `step`, `exp_avg` and `exp_avg_sq`.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        scale: Scale = "adamw",
    ):
        defaults = dict(lr=lr, momentum=momentum, betas=betas, eps=eps, weight_decay=weight_decay, scale=scale, orthogonal=True)
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step. The closure, if any, is called first with gradients on."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                (self._muon if group["orthogonal"] else self._adamw)(group, params)
        return loss

    def _muon(self, group: dict[str, Any], params: list[Tensor]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        same: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for p in params:
            grad = _gradient(p)
            state = self.state[p]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(grad)
            mean = state["momentum_buffer"].lerp_(grad, 1 - momentum)
            shape = matrix_shape(p.shape)
            same.setdefault(shape, []).append((p, grad.lerp(mean, momentum).reshape(shape)))  # Nesterov's look-ahead
        for (rows, columns), pairs in same.items():
            updates = orthogonal(torch.stack([update for _, update in pairs]))
            size = sqrt(max(1, rows / columns)) if group["scale"] == "spectral" else 0.2 * sqrt(max(rows, columns))
            for (p, _), update in zip(pairs, updates, strict=True):
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(update.reshape(p.shape).to(p.dtype), alpha=-lr * size)

    def _adamw(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                zeros = torch.zeros_like(p, memory_format=torch.preserve_format)
                self.state[p].update(step=torch.zeros(()), exp_avg=zeros, exp_avg_sq=zeros.clone())
        states = [self.state[p] for p in params]
        adamw(
            params,
            [_gradient(p) for p in params],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _gradient(p: Tensor) -> Tensor:
    assert p.grad is not None  # `step` leaves out parameters without a gradient
    return p.grad


def muon_groups(module: nn.Module) -> list[tuple[bool, bool, list[nn.Parameter]]]:
    """(orthogonal, decays, parameters): hidden weight matrices for Muon, the rest for AdamW in a decaying and a plain group.

    As is the custom, embeddings and the output layer (the last weight matrix in the module's order) go to AdamW with biases
    and norms: their rows are looked up or answered for one by one, so an orthogonal update has no meaning there.
    """
    found = trainable(module)
    last = [p for _, p in module.named_parameters(remove_duplicate=False) if p.dim() >= 2][-1:]
    apart = {id(p) for p in last} | {id(m.parameter) for m in found if isinstance(m.owner, (nn.Embedding, nn.EmbeddingBag))}
    hidden = {id(m.parameter) for m in found if m.decays and min(matrix_shape(m.parameter.shape)) > 1} - apart
    kinds: dict[tuple[bool, bool], list[nn.Parameter]] = {(True, True): [], (False, True): [], (False, False): []}
    for m in found:
        kinds[id(m.parameter) in hidden, m.decays].append(m.parameter)
    return [(orthogonal, decays, parameters) for (orthogonal, decays), parameters in kinds.items() if parameters]
