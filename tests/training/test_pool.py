"""ReLU and max pool as one operation give what torch's two give, and stay out of the way of whoever looks between them."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.training import layout
from engram.training.layout import keep_layout
from engram.training.pool import relu_pool, suits


def maps(dtype: torch.dtype, size: tuple[int, int]) -> Tensor:
    """Few different numbers, so that windows with ties, and all below zero, are many."""
    drawn = torch.randint(-3, 4, (3, 5, *size), generator=torch.Generator().manual_seed(0)).to(dtype)
    return drawn.contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [(6, 8), (7, 5), (2, 2), (3, 2)])
def test_outputs_and_gradients_equal_those_of_torch_to_the_last_bit(dtype: torch.dtype, size: tuple[int, int]) -> None:
    x = maps(dtype, size)
    assert suits(x)
    ours, theirs = relu_pool(x), F.max_pool2d(F.relu(x), 2)
    assert torch.equal(ours, theirs)
    arriving = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1)).to(dtype)  # contiguous, as from a flatten
    (got,), (wanted,) = torch.autograd.grad(ours, x, arriving), torch.autograd.grad(theirs, x, arriving)
    assert torch.equal(got, wanted)
    assert got.stride() == x.stride()


def test_a_number_that_is_none_is_seen() -> None:
    x = maps(torch.bfloat16, (4, 4)).detach()
    x[0, 0, 1, 1] = -float("nan")
    assert relu_pool(x)[0, 0, 0, 0].isnan()


def test_the_gradient_can_be_differentiated() -> None:
    def penalty(pool) -> Tensor:
        x = maps(torch.float32, (6, 6)).detach().add(0.5).requires_grad_()
        (slope,) = torch.autograd.grad(pool(x.square() - 1).square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), x)[0]

    torch.testing.assert_close(penalty(relu_pool), penalty(lambda x: F.max_pool2d(F.relu(x), 2)))


def test_it_is_left_to_torch_where_it_would_not_be_faster() -> None:
    x = maps(torch.float32, (6, 6))
    assert not suits(x.contiguous())
    assert not suits(x.double())
    assert not suits(x[..., :1])
    assert not suits(x[0])


def network(pool: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), pool or nn.MaxPool2d(2), nn.Conv2d(6, 4, 3, padding=1), nn.ReLU())
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def kept(net: nn.Sequential) -> nn.Sequential:
    keep_layout(net)
    keep_layout(net)
    return net


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that `relu_pool` is called with."""
    seen: list[tuple[int, ...]] = []

    def spy(x: Tensor) -> Tensor:
        seen.append(tuple(x.shape))
        return relu_pool(x)

    monkeypatch.setattr(layout, "relu_pool", spy)
    return seen


def test_a_sequence_runs_the_pair_as_one_with_the_same_gradients(calls: list[tuple[int, ...]]) -> None:
    x, plain, fast = torch.randn(2, 2, 9, 10), network(), kept(network())
    plain(x).square().sum().backward()
    fast(x).square().sum().backward()
    assert calls == [(2, 6, 7, 8)]
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(plain.parameters(), fast.parameters(), strict=True))  # type: ignore[arg-type]
    assert plain.state_dict().keys() == fast.state_dict().keys()
    twin = copy.deepcopy(fast)
    nn.init.zeros_(fast[3].weight)  # type: ignore[arg-type]
    assert torch.equal(twin(x), plain(x)), "a copy runs its own layers"


def test_whoever_looks_at_a_layer_sees_what_it_is_to_give(calls: list[tuple[int, ...]]) -> None:
    x, fast, seen = torch.randn(2, 2, 8, 8), kept(network()), []
    handle = fast[1].register_forward_hook(lambda layer, inputs, output: seen.append(output))
    assert torch.equal(fast(x), network()(x))
    assert (seen[0] >= 0).all()
    assert calls == []
    handle.remove()
    h = x
    for layer in fast:  # one by one, as networks that take features from the middle do
        h = layer(h)
    assert torch.equal(h, fast(x))
    assert len(calls) == 1


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2)])
def test_other_pools_are_left_alone(pool: nn.Module, calls: list[tuple[int, ...]]) -> None:
    x = torch.randn(2, 2, 9, 9)
    assert torch.equal(kept(network(pool))(x), network(copy.deepcopy(pool))(x))
    assert calls == []
