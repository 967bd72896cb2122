"""Gradients keep the layout of their activations, and nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from engram.core.batch import Batch, Logs
from engram.core.optim import Optim, flatten
from engram.core.plan import Plan
from engram.core.task import Ctx
from engram.tasks.classify import Classify
from engram.training.layout import keep_layout
from engram.training.update import Update


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 9, 3))
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def strides(net: nn.Sequential, x: Tensor) -> tuple[list[Tensor], list[tuple[int, ...]]]:
    """The gradients of the weights, and the strides of the gradient that the pool is given."""
    seen: list[tuple[int, ...]] = []
    h = net[:3](x)
    h.register_hook(lambda g: seen.append(g.stride()))  # after the hook of the pool, if there is one
    net[3:](h).square().sum().backward()
    return [p.grad for p in net.parameters() if p.grad is not None], seen


def test_a_pool_is_given_its_gradient_channels_last_with_the_same_numbers() -> None:
    x = torch.randn(2, 1, 8, 8)
    plain, before = strides(network(), x)
    watched = network()
    for _ in range(3):
        keep_layout(watched)
    assert len(watched[2]._forward_hooks) == 1
    kept, seen = strides(watched, x)
    assert (before, seen) == ([(72, 9, 3, 1)], [(72, 1, 24, 8)])
    assert all(torch.equal(a, b) for a, b in zip(plain, kept, strict=True))
    with torch.no_grad():
        assert torch.equal(watched(x), network()(x))
    assert torch.equal(copy.deepcopy(watched)(x), network()(x))


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_step_asks_for_it_only_where_the_plan_is_channels_last(channels_last: bool) -> None:
    task = Classify(network())
    pool = task.get_submodule("model")[2]  # type: ignore[index]
    sgd = Optim(torch.optim.SGD(task.parameters(), lr=0.1))
    step = Update(task, task.phases()[0], sgd, Plan(steps=1, channels_last=channels_last), torch.device("cpu"))
    assert len(pool._forward_hooks) == channels_last
    batch: Batch = {"x": torch.randn(4, 1, 8, 8), "y": torch.tensor([0, 1, 2, 0])}
    logs: Logs = step(batch, Ctx(), 0)[0]
    assert bool(logs["model/loss"].isfinite())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_flat_convolution_gives_out_the_layout_of_the_loose_one(channels: int) -> None:
    """With one channel the layouts hold the same numbers: only strides tell, and the convolution goes by these."""
    loose = nn.Conv2d(channels, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    flat, plain = copy.deepcopy(loose), nn.Conv2d(channels, 4, 3)
    flatten([list(flat.parameters())])
    x = torch.randn(2, channels, 6, 6)
    assert flat.weight.stride() == loose.weight.stride()
    assert flat(x).stride() == loose(x).stride() == (64, 1, 16, 4)
    assert torch.equal(flat(x), loose(x))
    before = plain.weight.stride()
    flatten([list(plain.parameters())])
    assert plain.weight.stride() == before
