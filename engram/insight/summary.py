"""What a network is made of and what it costs: layers with shapes, parameters and multiply-adds, and the memory to train it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from engram.core.batch import Batch, rows
from engram.core.optim import Optim
from engram.core.task import Ctx, Task


@dataclass(frozen=True)
class Row:
    """One layer. `shape` is the output's without its first dimension (the rows of the batch); () when it was not called."""

    name: str  # as in state_dict
    type: str
    shape: tuple[int, ...]
    parameters: int  # its own numbers, trained or not; shared ones count where they come first
    multiply_adds: int  # per row of the batch


def summarise(network: nn.Module, batch: Batch) -> list[Row]:
    """The layers that ran on `batch`, in the order of first use, and as the last row, named 'total', the whole network.

    A Task is called with the batch (its first loss is computed when it has no forward), another module with the tensors of the
    batch in order. Layers are modules without children or with parameters of their own. Nothing is changed: modes, buffers and
    the random state are as before. Multiply-adds are those of matrix products, convolutions and attention, counted as they run.
    """
    order: dict[str, tuple[int, ...]] = {}
    handles = []
    for name, module in network.named_modules():
        if name and (next(module.children(), None) is None or next(module.parameters(recurse=False), None) is not None):
            handles.append(module.register_forward_hook(_note(order, name)))
    counter = FlopCounterMode(display=False)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its one fused kernel hides the products inside
    try:
        with untouched(network), counter:
            network.eval()
            result = _Call(network)(batch)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()
    flops = {str(name).removeprefix("_Call.network."): sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    owner = _first_owners(network)
    modules, count = dict(network.named_modules()), 2 * max(rows(batch), 1)
    layers = [
        Row(name, type(modules[name]).__name__, shape, owner.get(name, 0), flops.get(name, 0) // count)
        for name, shape in order.items()
    ]
    total = sum(p.numel() for p in network.parameters())
    return [*layers, Row("total", type(network).__name__, _shape(result), total, counter.get_total_flops() // count)]


def memory_estimate(
    task: Task, batch: Batch, optims: Mapping[str, Optim], *, batch_rows: int = 0, bf16: bool = False, ema: bool = False
) -> dict[str, int]:
    """Bytes that training needs: weights, gradients, optimizer, average, activations, batch, and their total.

    Activations are measured: what autograd keeps for the backward pass of one and of two rows' worth of `batch` (its first
    quarter and half), scaled to `batch_rows` (default: the rows of `batch`). The workspace of kernels comes on top.
    """
    wanted = batch_rows or rows(batch)
    small, large = max(rows(batch) // 4, 1), max(rows(batch) // 2, 2)
    low, high = (_kept(task, {n: t[:k] for n, t in batch.items()}, bf16) for k in (small, large))
    k = (min(small, rows(batch)), min(large, rows(batch)))
    slope = (high - low) / (k[1] - k[0]) if k[1] > k[0] else high / k[1]
    weights = sum(_bytes(t) for t in task.state_dict().values())
    found = {
        "weights": weights,
        "gradients": sum(_bytes(p) for p in task.parameters() if p.requires_grad),
        "optimizer": sum(_states(optim.optimizer) for optim in optims.values()),
        "average": sum(_bytes(p) for p in task.parameters()) if ema else 0,
        "activations": round(high + slope * (wanted - k[1])),
        "batch": sum(_bytes(t) for t in batch.values()) * wanted // max(rows(batch), 1),
    }
    return found | {"total": sum(found.values())}


@contextmanager
def untouched(network: nn.Module) -> Iterator[None]:
    """Afterwards modes, buffers, gradients and the CPU random state are as they were."""
    modes = [(m, m.training) for m in network.modules()]
    buffers = [(b, b.detach().clone()) for b in network.buffers()]
    gradients = [(p, p.grad) for p in network.parameters()]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for parameter, gradient in gradients:
            parameter.grad = gradient


class _Call(nn.Module):
    """The root under which the counter names modules: a Task whose loss is called is never entered itself."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> Any:
        network = self.network
        if not isinstance(network, Task):
            with torch.no_grad():
                return network(*batch.values())
        if type(network).forward is nn.Module.forward:
            phase, *_ = network.phases()
            return phase.loss(batch, Ctx())[0]  # may differentiate inside, so gradients stay on
        with torch.no_grad():
            return network(batch)


def _note(order: dict[str, tuple[int, ...]], name: str) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        order.setdefault(name, _shape(output))

    return hook


def _shape(output: Any) -> tuple[int, ...]:
    """Of the first tensor in an output, without the dimension of the rows."""
    if isinstance(output, Tensor):
        return tuple(output.shape[1:])
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (list, tuple)) and output:
        return _shape(output[0])
    return ()


def _first_owners(network: nn.Module) -> dict[str, int]:
    """Parameters of each module's own, shared ones once."""
    seen: set[int] = set()
    counts: dict[str, int] = {}
    for name, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                counts[name] = counts.get(name, 0) + parameter.numel()
    return counts


def _kept(task: Task, batch: Batch, bf16: bool) -> int:
    """Bytes that autograd keeps for the backward pass, each stretch of memory once, weights and batch not counted."""
    device = next(task.parameters()).device
    known = {t.untyped_storage().data_ptr() for t in (*task.parameters(), *task.buffers(), *batch.values())}
    stretches: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            stretches[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    most = 0
    with untouched(task):
        task.train()
        for phase in task.phases():
            stretches.clear()
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    loss, _ = phase.loss(batch, Ctx())
                del loss
            most = max(most, sum(stretches.values()))
            alive.clear()
    return most


def _states(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's state once it has stepped: tried out on a small parameter for each of its own."""
    if isinstance(optimizer, torch.optim.LBFGS):
        vectors = 2 * optimizer.param_groups[0]["history_size"] + 3  # steps and gradients, direction, last gradient, flat one
        return vectors * sum(_bytes(p) for p in optimizer.param_groups[0]["params"])
    total = 0
    for group in optimizer.param_groups:
        for dims in {p.dim() for p in group["params"]}:
            trial = nn.Parameter(torch.zeros((2,) * dims))
            trial.grad = torch.zeros_like(trial)
            options = {k: v for k, v in group.items() if k != "params"}
            make: Any = type(optimizer)
            copy = make([{"params": [trial], **options}])
            copy.step()
            ratio = sum(_bytes(t) for t in copy.state[trial].values() if isinstance(t, Tensor) and t.shape == trial.shape)
            alike = sum(_bytes(p) for p in group["params"] if p.dim() == dims)
            total += alike * ratio // _bytes(trial)
    return total


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
