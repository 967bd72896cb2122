"""Muon against torch.optim.Muon for matrices and torch.optim.AdamW for the rest."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from engram.core.snapshot import pack, unpack
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.optim.muon import Muon, muon_groups, orthogonal

torch.set_num_threads(1)


class Net(nn.Module):
    """Embedding, three hidden matrices (two alike, one tall), a norm and an output layer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.tall = nn.Linear(8, 20)
        self.head = nn.Linear(20, 3)

    def forward(self, x):
        x = torch.relu(self.second(torch.relu(self.first(self.embed(x)))))
        return self.head(torch.relu(self.tall(self.norm(x))))


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def backward(model, k: int) -> None:
    g = torch.Generator().manual_seed(k)
    x, y = torch.randint(11, (9,), generator=g), torch.randint(3, (9,), generator=g)
    nn.functional.cross_entropy(model(x), y).backward()


HIDDEN = ["first.weight", "second.weight", "tall.weight"]


@pytest.mark.parametrize(("scale", "theirs_scale"), [("spectral", "original"), ("adamw", "match_rms_adamw")])
def test_matches_torch_muon_and_adamw(scale, theirs_scale):
    ours, theirs = net(), net()
    groups = [
        {"params": members, "orthogonal": o, "weight_decay": 0.1 if decays else 0.0} for o, decays, members in muon_groups(ours)
    ]
    opt = Muon(groups, lr=0.02, momentum=0.9, betas=(0.8, 0.95), scale=scale)
    named = dict(theirs.named_parameters())
    muon = torch.optim.Muon([named.pop(n) for n in HIDDEN], 0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn=theirs_scale)
    decaying = [named.pop(n) for n in ("embed.weight", "head.weight")]
    adamw = torch.optim.AdamW(
        [{"params": decaying, "weight_decay": 0.1}, {"params": list(named.values()), "weight_decay": 0.0}],
        lr=0.02,
        betas=(0.8, 0.95),
    )
    for k in range(4):
        for model, opts in ((ours, [opt]), (theirs, [muon, adamw])):
            model.zero_grad()
            backward(model, k)
            for o in opts:
                o.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # both work in bfloat16; a batch of matrices may be summed in another order than one
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4, msg=lambda m, name=name: f"{name}: {m}")


def test_first_adamw_step_is_torch_adamw_bit_for_bit():
    ours, theirs = net(), net()
    opt = Muon([{"params": list(ours.parameters()), "orthogonal": False}], lr=0.02, betas=(0.8, 0.95), weight_decay=0.1)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.02, betas=(0.8, 0.95), weight_decay=0.1)
    for k in range(3):
        for model, o in ((ours, opt), (theirs, reference)):
            model.zero_grad()
            backward(model, k)
            o.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 24), (2, 24, 8)])
def test_update_is_near_orthogonal_with_the_singular_vectors_of_the_input(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    y = orthogonal(x).float()
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    values = torch.linalg.svdvals(y)
    assert values.min() > 0.3
    assert values.max() < 1.3
    inside = u.mT @ y @ vt.mT  # diagonal in the input's own basis
    off = inside - torch.diag_embed(torch.diagonal(inside, dim1=-2, dim2=-1))
    assert off.abs().max() < 0.05


def test_convolution_kernels_are_matrices():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    before = model[1].weight.detach().clone()
    optim = build(model, OptimKnobs(name="muon", lr=0.1, weight_decay=0.0))
    model(torch.randn(5, 3, 5, 5)).square().sum().backward()
    optim.optimizer.step()
    step = ((before - model[1].weight.detach()) / (0.1 * 0.2 * 54**0.5)).reshape(4, 54)
    values = torch.linalg.svdvals(step)
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_which_parameters_are_orthogonal():
    model = net()
    names = {id(p): n for n, p in model.named_parameters()}
    groups = {(o, d): [names[id(p)] for p in members] for o, d, members in muon_groups(model)}
    assert groups[True, True] == HIDDEN
    assert groups[False, True] == ["embed.weight", "head.weight"]
    assert all("norm" in n or "bias" in n for n in groups[False, False])


def test_tied_output_layer_leaves_the_last_hidden_matrix_to_muon():
    model = nn.ModuleDict({"embed": nn.Embedding(9, 4), "hidden": nn.Linear(4, 4), "head": nn.Linear(4, 9, bias=False)})
    model["head"].weight = model["embed"].weight
    groups = {(o, d): members for o, d, members in muon_groups(model)}
    assert [id(p) for p in groups[True, True]] == [id(model["hidden"].weight)]
    assert [id(p) for p in groups[False, True]] == [id(model["embed"].weight)]


def test_single_layer_and_single_output_are_left_to_adamw():
    assert [o for o, _, _ in muon_groups(nn.Linear(4, 3))] == [False, False]
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
    assert next(members for o, _, members in muon_groups(model) if o) == [model[0].weight]


def test_positions_and_class_tokens_are_no_matrices():
    model = net()
    model.position = nn.Parameter(torch.zeros(1, 9, 8))
    hidden = next(members for o, _, members in muon_groups(model) if o)
    assert all(p is not model.position for p in hidden)


def test_build_passes_the_knobs_on():
    groups = build(net(), OptimKnobs(name="muon", momentum=0.3, beta1=0.4, beta2=0.6)).optimizer.param_groups
    assert {(g["momentum"], g["betas"], g["scale"]) for g in groups} == {(0.3, (0.4, 0.6), "adamw")}


def test_state_survives_a_snapshot():
    whole, first, second = net(), net(), net()
    knobs = OptimKnobs(name="muon", lr=0.01)
    optims = [build(m, knobs) for m in (whole, first, second)]

    def steps(model, optim, start, stop):
        for k in range(start, stop):
            model.zero_grad()
            backward(model, k)
            optim.optimizer.step()

    steps(whole, optims[0], 0, 4)
    steps(first, optims[1], 0, 2)
    tensors: dict[str, torch.Tensor] = {}
    skeleton = pack(copy.deepcopy(optims[1].optimizer.state_dict()), "muon", tensors)
    second.load_state_dict(first.state_dict())
    optims[2].optimizer.load_state_dict(unpack(skeleton, tensors))
    steps(second, optims[2], 2, 4)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_parameters_without_gradient_are_left_alone():
    model = net()
    optim = build(model, OptimKnobs(name="muon", lr=0.1, weight_decay=0.5))
    before = model.first.weight.detach().clone()
    model.tall(torch.randn(2, 8)).sum().backward()
    optim.optimizer.step()
    assert torch.equal(model.first.weight, before)
