"""One optimizer step of one phase: micro-batches, ranks, clipping, guards. It names no family."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from engram.core.batch import Batch, Logs, fold, rows, split_rows
from engram.core.errors import ConfigError
from engram.core.optim import Optim, whole_gradient
from engram.core.plan import Plan
from engram.core.task import Ctx, Phase, Task
from engram.training.guard import Guard, at_once
from engram.training.layout import keep_layout
from engram.training.seed import seed_generators


class Update:
    """The step of one phase, prepared once. N micro-batches on R ranks give the gradient of one big batch."""

    def __init__(
        self, task: Task, phase: Phase, optim: Optim, plan: Plan, device: torch.device, guard: Guard | None = None
    ):
        self.task, self.phase, self.optim, self.plan, self.device = task, phase, optim, plan, device
        self.guard = guard or Guard(device)
        self.parameters = phase.parameters()
        mine = {id(p) for p in self.parameters}
        self.names = {id(p): name for name, p in task.named_parameters()}
        self.frozen = [p for p in task.parameters() if p.requires_grad and id(p) not in mine]
        buffers = {id(f.buffer) for f in optim.flat}
        self.apart = [p for p in optim.tensors() if id(p) not in buffers]  # another phase may share the optimizer
        self.loose = [p for p in self.apart if id(p) in mine]
        self.flat_gradients = whole_gradient(optim.flat)
        self.rate = (math.nan, torch.tensor(math.nan))
        self.titles: dict[str, str] = {}
        self.before: list[Tensor] = []  # the weights before a step with trial steps
        for group in optim.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        if plan.channels_last and not plan.compile:
            keep_layout(task)

    def __call__(self, batch: Batch, ctx: Ctx, draw: int, layers: bool = False) -> tuple[Logs, dict[str, Tensor] | None]:
        """Draw number `draw` seeds dropout and noise. Returns logs and, if asked, the gradient norm per parameter.

        Raises NonFinite before the optimizer touches the weights (on an accelerator the guard finds it later), ConfigError when
        the batch has no rows for this rank.
        """
        if not rows(batch):
            raise ConfigError(f"batch {draw} has no rows for rank {ctx.mesh.rank} of {ctx.mesh.world}; raise batch")
        micro, shares = self._cut(batch, ctx)
        first, end = self.phase.stage(ctx.steps)
        factor = self.optim.schedule(ctx.step - first, end - first)
        for group in self.optim.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        found: dict[str, Tensor] | None = None
        logs: Logs = {}

        def closure() -> Tensor:
            nonlocal found, logs
            new = self._backward(micro, shares, ctx, draw)
            if self.optim.needs_closure:
                self._in_rows()
            norm = self._norm()
            self.guard.look(new["loss"], norm, self, ctx, draw, now=self.optim.needs_closure)
            if not logs:  # of several evaluations the first is at the weights before the step
                logs = new | {"grad_norm": norm}
                found = self.layer_norms() if layers else None
            if not self.optim.needs_closure:  # a line search compares the loss with its true gradient
                self._clip(norm)
            return new["loss"]

        with self._only_mine():
            if self.optim.needs_closure:
                self.before = [p.detach().clone() for p in self.optim.tensors()]
                self.optim.optimizer.step(closure)  # type: ignore[arg-type]
            else:
                closure()
                self._hold()
                self.optim.optimizer.step()
                if self.optim.fused:
                    self.optim.optimizer.grad_scale = self.optim.optimizer.found_inf = None  # type: ignore[attr-defined]
        logs["lr"] = self._rate(self.optim.optimizer.param_groups[0]["lr"])
        if self.titles.keys() != logs.keys():
            self.titles = {name: f"{self.phase.name}/{name}" for name in logs}
        return {self.titles[name]: value for name, value in logs.items()}, found

    def _in_rows(self) -> None:
        """L-BFGS lays gradients end to end with `view`, which knows no channels-last."""
        for p in self.loose:
            if p.grad is not None:
                p.grad = p.grad.contiguous()

    def _rate(self, lr: float) -> Tensor:
        """The rate as a tensor, a new one only when it has changed."""
        if lr != self.rate[0]:
            self.rate = (lr, torch.tensor(lr))
        return self.rate[1]

    @torch.no_grad()
    def undo(self) -> None:
        """Take back the trial steps of an optimizer with a closure, after NonFinite."""
        for p, value in zip(self.optim.tensors() if self.before else [], self.before, strict=True):
            p.copy_(value)

    def _cut(self, batch: Batch, ctx: Ctx) -> tuple[list[Batch], list[Tensor]]:
        """Micro-batches, and what each counts for in the mean over the whole batch of all ranks (nothing: it is all)."""
        micro = split_rows(batch, self.plan.accumulate)
        if len(micro) == ctx.mesh.world == 1:
            return micro, []
        held = torch.zeros(len(micro), dtype=torch.float64, device=self.device)
        for number, batch in enumerate(micro):
            held[number] = self.phase.weight(batch)
        return micro, list(held / ctx.mesh.sum(held.sum()))

    def _backward(self, micro: list[Batch], shares: list[Tensor], ctx: Ctx, draw: int) -> Logs:
        """Gradients of the whole batch into `.grad`; the loss and the task's logs as means over its items."""
        for gradient in self.flat_gradients:
            gradient.zero_()
        for p in self.apart:
            p.grad = None
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(micro):
            seed_generators(self.device, fold(self.plan.seed, draw, self.phase.name, number, ctx.mesh.rank))
            with self._autocast():
                loss, extra = self.phase.loss(batch, ctx)
            if not shares:  # one micro-batch, one rank
                loss.backward()
                return {"loss": loss.detach()} | {name: value.detach() for name, value in extra.items()}
            share = shares[number]
            if not self._nothing_counts(share):
                _scaled(loss, share).backward()
            for name, value in {"loss": loss, **extra}.items():
                sums[name] = sums.get(name, 0) + _scaled(value.detach(), share)
        if ctx.mesh.world > 1:
            for gradient in self.flat_gradients:
                gradient.copy_(ctx.mesh.sum(gradient))
            ctx.mesh.sum_gradients(self.loose)
            sums = {name: ctx.mesh.sum(value) for name, value in sums.items()}
        return sums

    def _nothing_counts(self, share: Tensor) -> bool:
        """Whether a piece weighs nothing: its mean over no items is NaN, and so are its gradients. An accelerator is not asked
        (it would make the processor wait); where the loss compares rows, other ranks wait for this backward pass."""
        return self.device.type == "cpu" and self.phase.splits and share.item() == 0

    def _norm(self) -> Tensor:
        """The 2-norm of all gradients of the phase together."""
        gradients = self.flat_gradients + [p.grad for p in self.loose if p.grad is not None]
        if at_once(self.device):  # on processors a dot product is several times faster than vector_norm there
            squares = [torch.dot(g, g) for g in map(in_a_row, gradients)]
            return sum(squares[1:], squares[0]).sqrt() if squares else torch.zeros(())
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))  # type: ignore[arg-type]

    def _hold(self) -> None:
        """Keep the weights where they are once the guard has seen a bad update; without a fused kernel momentum moves on."""
        held = self.guard.held()
        if held is None:
            return
        if self.optim.fused:
            self.optim.optimizer.found_inf = held.float()  # type: ignore[attr-defined]
            return
        for gradient in self.flat_gradients + [p.grad for p in self.loose if p.grad is not None]:
            gradient.masked_fill_(held, 0)

    def again(self, batch: Batch, ctx: Ctx, draw: int) -> bool:
        """Repeat the backward pass of a draw, for whoever looks for a reason; whether loss and gradient are finite."""
        with self._only_mine():
            logs = self._backward(*self._cut(batch, ctx), ctx, draw)
            return bool(logs["loss"].isfinite() & self._norm().isfinite())

    def _clip(self, norm: Tensor) -> None:
        clip = self.plan.clip
        if not clip:
            return
        if at_once(self.device):
            if norm.item() <= clip:
                return
            factor = clip / (norm.item() + 1e-6)
            if self.optim.fused:  # the step reads every gradient anyway and scales it on the way
                self.optim.optimizer.grad_scale = torch.tensor(1 / factor)  # type: ignore[attr-defined]
                return
        else:
            factor = (clip / (norm + 1e-6)).clamp(max=1.0)
        for gradient in self.flat_gradients:
            gradient.mul_(factor)
        for p in self.loose:
            if p.grad is not None:
                p.grad.mul_(factor)

    def layer_norms(self) -> dict[str, Tensor]:
        """The gradient norm of every parameter that has one, by its name in the task."""
        held = [p for p in self.parameters if p.grad is not None]
        norms = torch._foreach_norm([p.grad for p in held]) if held else ()  # type: ignore[arg-type]
        return {self.names[id(p)]: norm for p, norm in zip(held, norms, strict=True)}

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.plan.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    @contextlib.contextmanager
    def _frozen(self) -> Iterator[None]:
        for p in self.frozen:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in self.frozen:
                p.requires_grad_(True)

    def _only_mine(self) -> contextlib.AbstractContextManager[None]:
        """Other phases' parameters are frozen during the step; with one phase there is nothing to freeze."""
        return self._frozen() if self.frozen else contextlib.nullcontext()


def _scaled(mean: Tensor, share: Tensor) -> Tensor:
    """`mean * share`, and 0 rather than NaN for the mean over no items."""
    return torch.where(share == 0, 0.0, mean * share)


def update(task: Task, phase: Phase, optim: Optim, batch: Batch, ctx: Ctx, plan: Plan) -> Logs:
    """One step by hand, for notebooks and the learning-rate finder; `fit` prepares `Update` once instead."""
    device = next(iter(batch.values())).device
    return Update(task, phase, optim, plan, device)(batch, ctx, ctx.step)[0]


def in_a_row(x: Tensor) -> Tensor:
    """The elements of a dense tensor in the order of its memory, without a copy."""
    if x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        x = x.permute(0, 2, 3, 1)
    return x.reshape(-1)
