"""Every optimizer against torch's own and against formulas, flat and not, and on small problems."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from engram.core.errors import ConfigError
from engram.core.knobs import build as make
from engram.core.knobs import to_json
from engram.optim.build import build
from engram.optim.knobs import USUAL, OptimKnobs
from engram.recipes import find

torch.set_num_threads(1)
ELEMENTWISE = [n for n in USUAL if n not in ("muon", "lbfgs")]
LR, DECAY, BETA1 = 0.02, 0.1, 0.8


class Net(nn.Module):
    """Convolution, norm, and two linear layers: every kind of group."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.GroupNorm(1, 3)
        self.hidden = nn.Linear(12, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.hidden(self.norm(self.conv(x)).flatten(1))))


def net(seed: int = 0, dtype: torch.dtype = torch.float64) -> Net:
    torch.manual_seed(seed)
    made = Net().to(dtype)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn_like(p))  # norms and biases away from 1 and 0
    return made


def batch(k: int):
    g = torch.Generator().manual_seed(k)
    return torch.randn(6, 2, 4, 4, generator=g).double(), torch.randint(2, (6,), generator=g)


def loss_of(model, k: int = 0):
    x, y = batch(k)
    x = x.to(model.head.weight.dtype)
    return nn.functional.cross_entropy(model(x), y)


def train(model, optim, steps: int = 6):
    for k in range(steps):
        for p in optim.tensors():
            if p.grad is not None:
                p.grad.zero_()
        loss_of(model, k).backward()
        optim.optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def torch_train(model, make, steps: int = 6):
    """The same steps with torch's optimizer, groups written by hand."""
    weights = [model.conv.weight, model.hidden.weight, model.head.weight]
    rest = [model.conv.bias, model.norm.weight, model.norm.bias, model.hidden.bias, model.head.bias]
    opt = make([{"params": weights, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}])
    for k in range(steps):
        opt.zero_grad()
        loss_of(model, k).backward()
        opt.step()
    return [p.detach().clone() for p in model.parameters()]


PLAIN = {"foreach": False, "lr": LR}  # torch's plainest path, another one than ours
TORCH = {
    "sgd": lambda g: torch.optim.SGD(g, **PLAIN),
    "momentum": lambda g: torch.optim.SGD(g, momentum=0.7, **PLAIN),
    "nesterov": lambda g: torch.optim.SGD(g, momentum=0.7, nesterov=True, **PLAIN),
    "rmsprop": lambda g: torch.optim.RMSprop(g, alpha=0.95, momentum=0.7, **PLAIN),
    "adagrad": lambda g: torch.optim.Adagrad(g, **PLAIN),
    "adadelta": lambda g: torch.optim.Adadelta(g, rho=0.95, **PLAIN),
    "adam": lambda g: torch.optim.Adam(g, betas=(BETA1, 0.95), **PLAIN),
    "nadam": lambda g: torch.optim.NAdam(g, betas=(BETA1, 0.95), decoupled_weight_decay=True, **PLAIN),
    "adamw": lambda g: torch.optim.AdamW(g, betas=(BETA1, 0.95), **PLAIN),
}


def knobs(name: str, **more) -> OptimKnobs:
    return OptimKnobs(name=name, **({"lr": LR, "momentum": 0.7, "beta1": BETA1, "beta2": 0.95, "weight_decay": DECAY} | more))


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_matches_torch(name, flat, dtype, near):
    ours, theirs = net(dtype=dtype), net(dtype=dtype)
    found = train(ours, build(ours, knobs(name, flat=flat)))
    for a, b in zip(found, torch_train(theirs, TORCH[name]), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=near)


def by_formula(name: str, w: float, grads: list[float]) -> float:
    """One weight, written from the papers with floats: no torch."""
    m = v = d = 0.0
    for t, g in enumerate(grads, 1):
        if name in ("sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adadelta", "adam"):
            g = g + DECAY * w  # L2
        if name in ("adamw", "nadam"):
            w -= LR * DECAY * w  # decoupled
        if name == "sgd":
            w -= LR * g
        elif name in ("momentum", "nesterov"):
            m = 0.7 * m + g
            w -= LR * (g + 0.7 * m if name == "nesterov" else m)
        elif name == "rmsprop":
            v = 0.95 * v + 0.05 * g * g
            m = 0.7 * m + g / (v**0.5 + 1e-8)
            w -= LR * m
        elif name == "adagrad":
            v += g * g
            w -= LR * g / (v**0.5 + 1e-10)
        elif name == "adadelta":
            v = 0.95 * v + 0.05 * g * g
            move = (d + 1e-6) ** 0.5 / (v + 1e-6) ** 0.5 * g
            d = 0.95 * d + 0.05 * move * move
            w -= LR * move
        elif name in ("adam", "adamw"):
            m, v = BETA1 * m + (1 - BETA1) * g, 0.95 * v + 0.05 * g * g
            w -= LR * (m / (1 - BETA1**t)) / ((v / (1 - 0.95**t)) ** 0.5 + 1e-8)
        elif name == "nadam":  # Dozat 2016 with the momentum schedule of its section 2
            mu = [BETA1 * (1 - 0.5 * 0.96 ** (k * 0.004)) for k in range(1, t + 2)]
            done, ahead = torch.tensor(mu[:t]).double().prod().item(), torch.tensor(mu).double().prod().item()
            m, v = BETA1 * m + (1 - BETA1) * g, 0.95 * v + 0.05 * g * g
            mean = mu[t] * m / (1 - ahead) + (1 - mu[t - 1]) * g / (1 - done)
            w -= LR * mean / ((v / (1 - 0.95**t)) ** 0.5 + 1e-8)
    return w


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_matches_the_formula(name):
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(layer.weight, 0.7)
    optim = build(layer, knobs(name))
    grads = [0.5, -0.2, 0.9, 0.4, -0.1]
    for g in grads:
        layer.weight.grad.fill_(g)
        optim.optimizer.step()
    assert layer.weight.item() == pytest.approx(by_formula(name, 0.7, grads), abs=1e-7 if name == "nadam" else 1e-12)


@pytest.mark.parametrize("name", list(USUAL))
def test_reduces_a_logistic_problem_with_its_usual_values(name):
    torch.manual_seed(0)
    x = torch.randn(128, 8)
    y = (x @ torch.randn(8) > 0).long()
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
    optim = build(model, OptimKnobs(name=name))

    def loss():
        optim.optimizer.zero_grad(set_to_none=not optim.flat)
        value = nn.functional.cross_entropy(model(x), y)
        value.backward()
        return value

    first = loss().item()
    for _ in range(60):
        optim.optimizer.step(loss)
    assert loss().item() < first * (0.01 if name == "lbfgs" else 0.97)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_flat_state_survives_a_round_trip(name):
    whole, first = net(dtype=torch.float32), net(dtype=torch.float32)
    expected = train(whole, build(whole, knobs(name)), steps=6)
    optim = build(first, knobs(name))
    train(first, optim, steps=3)
    second = net(seed=1, dtype=torch.float32)
    second.load_state_dict(first.state_dict())
    again = build(second, knobs(name))
    again.optimizer.load_state_dict(copy.deepcopy(optim.optimizer.state_dict()))
    for k in range(3, 6):
        for p in again.tensors():
            p.grad.zero_()
        loss_of(second, k).backward()
        again.optimizer.step()
    for a, b in zip(second.parameters(), expected, strict=True):
        assert torch.equal(a, b)


def test_lbfgs_is_torch_lbfgs_with_a_line_search():
    ours, theirs = net(), net()
    optim = build(ours, OptimKnobs(name="lbfgs"))
    assert optim.needs_closure
    assert not optim.flat
    reference = torch.optim.LBFGS(theirs.parameters(), lr=1.0, history_size=10, line_search_fn="strong_wolfe")
    for model, opt in ((ours, optim.optimizer), (theirs, reference)):
        for _ in range(3):

            def closure(model=model, opt=opt):
                opt.zero_grad()
                value = loss_of(model)
                value.backward()
                return value

            opt.step(closure)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("more", [{"l1": 0.1}, {"weight_decay": 0.1}])
def test_lbfgs_refuses_penalties(more):
    with pytest.raises(ConfigError, match=r"lbfgs.*set it to 0"):
        build(net(), OptimKnobs(name="lbfgs", **more))


def test_the_table_of_usual_values_is_what_settled_gives():
    for line in (OptimKnobs.__doc__ or "").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 5 and cells[0] in USUAL:
            settled = OptimKnobs(name=cells[0]).settled()
            shown = [settled.lr, settled.momentum, settled.beta2, settled.weight_decay]
            for cell, value in zip(cells[1:], shown, strict=True):
                assert not cell or float(cell) == value, line


def test_given_knobs_win_over_usual_ones():
    settled = OptimKnobs(name="adamw", lr=0.5, weight_decay=0.0, beta2=0.9, warmup=0.0).settled()
    assert (settled.lr, settled.weight_decay, settled.beta2, settled.warmup) == (0.5, 0.0, 0.9, 0.0)
    assert settled.settled() == settled


@pytest.mark.parametrize(
    ("recipe", "given", "lr", "beta2", "decay"),
    [
        ("mlp", {"optim.name": "sgd"}, 0.1, 0.999, 0.0),  # and not AdamW's 1e-3, at which next to nothing moves
        ("mlp", {"optim.name": "lbfgs"}, 1.0, 0.999, 0.0),
        ("resnet", {"optim.name": "adamw"}, 1e-3, 0.999, 0.01),  # and not Nesterov's 0.1
        ("resnet", {"optim.name": "lbfgs"}, 1.0, 0.999, 0.0),  # which would refuse Nesterov's decay
        ("resnet", {"optim.name": "momentum"}, 0.1, 0.999, 5e-4),  # steps of the same size: what was tuned holds
        ("bert", {"optim.name": "adam"}, 5e-4, 0.98, 0.0),
        ("bert", {"optim.name": "muon"}, 5e-4, 0.98, 0.01),
        ("bert", {"optim.name": "AdamW"}, 5e-4, 0.98, 0.01),
        ("bert", {"optim.name": "sgd", "optim.lr": 0.3, "optim.weight_decay": 0.02}, 0.3, 0.999, 0.02),
        ("bert", {"optim.warmup": 0.2}, 5e-4, 0.98, 0.01),
    ],
)
def test_another_optimizer_takes_its_own_usual_values(recipe, given, lr, beta2, decay):
    settled = make(find(recipe), given).optim.settled()
    assert (settled.lr, settled.beta2, settled.weight_decay) == (lr, beta2, decay)
    again = make(find(recipe), to_json(make(find(recipe), given)))  # as a run folder keeps it
    assert again.optim.settled() == settled
