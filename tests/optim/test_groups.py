"""Which parameters decay, in which order; flat buffers and L1."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engram.core.errors import ConfigError
from engram.optim.build import build
from engram.optim.groups import members, split
from engram.optim.knobs import USUAL, OptimKnobs

torch.set_num_threads(1)
ELEMENTWISE = [n for n in USUAL if n not in ("muon", "lbfgs")]


class Mixed(nn.Module):
    """A layer of every kind that decay must tell apart."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.conv = nn.Conv2d(3, 4, 3)
        self.batch = nn.BatchNorm2d(4)
        self.layer = nn.LayerNorm((4, 2))  # two-dimensional gain
        self.group = nn.GroupNorm(2, 4)
        self.rms = nn.RMSNorm(4)
        self.lstm = nn.LSTM(4, 5)
        self.gain = nn.Parameter(torch.ones(4))
        self.bias_table = nn.Parameter(torch.ones(3, 3))
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embed.weight  # tied


WEIGHTS = ["embed.weight", "conv.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"]


def test_decay_is_for_weights_only():
    found = list(members(Mixed()))
    assert [m.name for m in found if m.decays] == WEIGHTS
    assert {"layer.weight", "batch.weight", "gain", "bias_table", "head.bias", "lstm.bias_ih_l0"} <= {
        m.name for m in found if not m.decays
    }


def test_order_is_the_modules_and_tied_parameters_come_once():
    module = Mixed()
    assert [m.name for m in members(module)] == [name for name, _ in module.named_parameters()]
    parts = split(module)
    assert [decays for decays, _ in parts] == [True, False]
    everything = [p for _, parameters in parts for p in parameters]
    assert len({id(p) for p in everything}) == len(everything) == len(list(module.parameters()))


def test_frozen_parameters_are_left_out():
    module = Mixed()
    module.conv.requires_grad_(False)
    assert "conv.weight" not in [m.name for m in members(module)]
    with pytest.raises(ConfigError, match="nothing to train"):
        build(module.requires_grad_(False), OptimKnobs())


@pytest.mark.parametrize("name", [*ELEMENTWISE, "muon"])
def test_decay_shrinks_weights_and_leaves_norms_and_biases(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 5), nn.Linear(5, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    optim = build(model, OptimKnobs(name=name, lr=0.01, weight_decay=0.5, flat=name != "muon"))
    for _ in range(3):
        for p in model.parameters():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad.zero_()
        optim.optimizer.step()
    for key, p in model.named_parameters():
        decayed = key.endswith("weight") and not key.startswith("1.")
        assert bool((p < 1).all()) if decayed else torch.equal(p, torch.ones_like(p)), key


@pytest.mark.parametrize("flat", [True, False])
def test_l1_adds_the_sign_to_weights_only(flat):
    layer = nn.Linear(2, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0], [0.0, 0.5]]))
        layer.bias.fill_(1.0)
    optim = build(layer, OptimKnobs(name="sgd", lr=0.1, l1=0.3, flat=flat))
    for p in layer.parameters():
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    optim.optimizer.step()
    expected = torch.tensor([[0.97, -1.97], [0.0, 0.47]], dtype=torch.float64)
    torch.testing.assert_close(layer.weight.data, expected, rtol=0, atol=1e-12)
    assert torch.equal(layer.bias.data, torch.ones(2).double())


def test_l1_drives_useless_weights_to_zero():
    torch.manual_seed(0)
    x = torch.randn(200, 6)
    y = x[:, :1] * 2.0  # five inputs say nothing
    noisy = y + 0.5 * torch.randn_like(y)
    sizes = {}
    for l1 in (0.0, 0.3):
        torch.manual_seed(1)
        layer = nn.Linear(6, 1)
        optim = build(layer, OptimKnobs(name="sgd", lr=0.02, l1=l1))
        for _ in range(300):
            optim.optimizer.zero_grad(set_to_none=False)
            (layer(x) - noisy).square().mean().backward()
            optim.optimizer.step()
        sizes[l1] = layer.weight.detach().abs()[0]
    assert sizes[0.3][1:].max() < 0.007  # one step of the subgradient: lr * l1
    assert sizes[0.0][1:].max() > 0.015
    assert 1.5 < sizes[0.3][0] < sizes[0.0][0]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_parameters_stay_views_of_the_flat_buffer(name):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)).to(memory_format=torch.channels_last)
    before = [p.detach().clone() for p in model.parameters()]
    optim = build(model, OptimKnobs(name=name, lr=0.1))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    for _ in range(3):
        optim.optimizer.zero_grad(set_to_none=False)
        model(torch.randn(2, 3, 4, 4)).square().mean().backward()
        optim.optimizer.step()
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not model[0].weight.is_contiguous()
    for flat in optim.flat:
        low = flat.buffer.data_ptr()
        high = low + flat.buffer.numel() * flat.buffer.element_size()
        assert all(low <= p.data_ptr() < high and low != p.grad.data_ptr() for p in flat.members)
        torch.testing.assert_close(flat.buffer.norm(), torch.cat([p.flatten() for p in flat.members]).norm())
    assert not torch.equal(model[0].weight, before[0])
    assert {id(p) for p in optim.members()} == {id(p) for p in model.parameters()}


def test_parameters_of_unlike_dtype_get_their_own_buffers():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2).double())
    optim = build(model, OptimKnobs(name="sgd", lr=0.1, weight_decay=1.0))
    assert sorted(str(p.dtype) for p in optim.tensors()) == ["torch.float32"] * 2 + ["torch.float64"] * 2
    assert [g["weight_decay"] for g in optim.optimizer.param_groups] == [1.0, 1.0, 0.0, 0.0]
    before = model[1].weight.detach().clone()
    optim.optimizer.step()
    torch.testing.assert_close(model[1].weight.data, before * 0.9)


@pytest.mark.parametrize("name", list(USUAL))
def test_every_group_knows_its_initial_rate(name):
    optim = build(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)), OptimKnobs(name=name, lr=0.123))
    assert {g["initial_lr"] for g in optim.optimizer.param_groups} == {0.123}
    assert {g["lr"] for g in optim.optimizer.param_groups} == {0.123}
