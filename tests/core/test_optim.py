"""Flat groups: parameters as views into one buffer change nothing but the number of kernels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engram.core.optim import FlatGroup, Optim, constant, flatten, whole_gradient


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)).to(memory_format=torch.channels_last)


def two_groups(module: nn.Module) -> list[list[nn.Parameter]]:
    return [[p for p in module.parameters() if p.dim() > 1], [p for p in module.parameters() if p.dim() == 1]]


def test_values_shapes_and_strides_stay():
    one, two = net(), net()
    flatten(two_groups(two))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()
        assert b.grad is not None
        assert b.grad.stride() == b.stride()


def test_views_share_memory_with_the_buffer():
    module = net()
    weights, biases = flatten(two_groups(module))
    with torch.no_grad():
        weights.buffer.fill_(2.0)
        biases.gradient.fill_(3.0)
    assert all(bool((p == (2.0 if p.dim() > 1 else p)).all()) for p in module.parameters())
    assert all(p.grad is not None and bool((p.grad == 3.0).all()) for p in module.parameters() if p.dim() == 1)


def test_one_stretch_of_memory_holds_all_gradients():
    flat = flatten(two_groups(net()))
    (whole,) = whole_gradient(flat)
    assert whole.numel() == sum(f.buffer.numel() for f in flat)
    whole.fill_(5.0)
    assert all(bool((f.gradient == 5.0).all()) for f in flat)
    assert whole_gradient(()) == []


def test_groups_made_apart_are_not_taken_for_one():
    module = net()
    flat = tuple(FlatGroup(members) for members in two_groups(module))
    assert [g.data_ptr() for g in whole_gradient(flat)] == [f.gradient.data_ptr() for f in flat]
    some = flatten(two_groups(net()))[:1]
    assert [len(g) for g in whole_gradient(some)] == [len(some[0].gradient)]


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_steps_are_those_of_plain_parameters(kind: str):
    """Bit for bit: the optimizers treat every element alike."""
    plain, flat = net(), net()
    groups = flatten(two_groups(flat))
    make = getattr(torch.optim, kind)
    one = make([{"params": g} for g in two_groups(plain)], lr=0.1, weight_decay=0.01)
    two = make([{"params": [g.buffer]} for g in groups], lr=0.1, weight_decay=0.01)
    x = torch.randn(5, 3, 4, 4)
    for _ in range(4):
        for module, optimizer in ((plain, one), (flat, two)):
            for gradient in whole_gradient(groups):
                gradient.zero_()
            plain.zero_grad()
            module(x).square().mean().backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), flat.parameters(), strict=True))


def test_gradients_find_back_to_the_buffer():
    module = net()
    groups = flatten(two_groups(module))
    module.zero_grad(set_to_none=True)
    groups[0].buffer.grad = None
    for g in groups:
        g.attach()
    module(torch.ones(1, 3, 4, 4)).sum().backward()
    assert all(bool(f.gradient.abs().sum() > 0) for f in groups)
    assert groups[0].buffer.grad is groups[0].gradient


def test_mixed_types_are_refused():
    with pytest.raises(ValueError, match="one dtype and device"):
        FlatGroup([nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2).double())])


def test_an_optim_knows_the_networks_weights():
    module = net()
    groups = flatten(two_groups(module))
    made = Optim(torch.optim.SGD([f.buffer for f in groups], lr=1.0), flat=groups)
    assert {id(p) for p in made.members()} == {id(p) for p in module.parameters()}
    assert [id(p) for p in made.tensors()] == [id(f.buffer) for f in groups]
    assert not made.needs_closure
    assert Optim(torch.optim.LBFGS(net().parameters())).needs_closure
    assert made.schedule is constant
    assert constant(3, 10) == 1.0
