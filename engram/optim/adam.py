"""Adam and AdamW with nothing around the kernel.

Adam: Kingma & Ba 2015, algorithm 1; AdamW: Loshchilov & Hutter 2019, algorithm 2. The arithmetic is torch's fused kernel, the
very call that torch.optim.Adam(fused=True) makes, so the weights are the same to the last bit. What torch does around it at
every step, above all a mark for its profiler, takes several times as long as the kernel when the network is small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class FusedAdam(torch.optim.Optimizer):
    """Adam, or AdamW with `decoupled`: for floating-point parameters on the CPU or CUDA.

    State per parameter, as torch names it: `step`, `exp_avg`, `exp_avg_sq`. Gradients are divided by `grad_scale` (a tensor
    with one number) in the same pass when it is set; nothing moves when `found_inf` (likewise) is 1. Parameters without a
    gradient stay as they are. Hooks of this optimizer run; torch's hooks for all optimizers and its profiler mark do not.
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "fused": True}
        super().__init__(groups, defaults)
        self.kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_  # type: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; with a closure that computes the loss and its gradients, its value is returned."""
        for before in self._optimizer_step_pre_hooks.values():
            before(self, (), {})
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            held = [p for p in group["params"] if p.grad is not None]
            if not held:
                continue
            states = [self.state[p] or self._begin(p) for p in held]
            counts = [s["step"] for s in states]
            torch._foreach_add_(counts, 1)  # type: ignore[reportPrivateImportUsage]
            first, second = group["betas"]
            self.kernel(
                held, [p.grad for p in held], [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states], [], counts,
                lr=group["lr"], beta1=first, beta2=second, weight_decay=group["weight_decay"], eps=group["eps"],
                amsgrad=False, maximize=False, grad_scale=self.grad_scale, found_inf=self.found_inf,
            )  # fmt: skip
            if self.found_inf is not None:
                torch._foreach_sub_(counts, [self.found_inf] * len(counts))  # type: ignore[reportPrivateImportUsage]
        for after in self._optimizer_step_post_hooks.values():
            after(self, (), {})
        return loss

    step.hooked = True  # type: ignore[attr-defined]  # torch then leaves it as it is

    def _begin(self, p: Tensor) -> dict[str, Tensor]:
        self.state[p] = {
            "step": torch.zeros((), dtype=torch.float32, device=p.device),
            "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
        }
        return self.state[p]
