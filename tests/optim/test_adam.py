"""FusedAdam against torch's own fused Adam and AdamW, to the bit; its state; its hooks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from engram.optim.adam import FusedAdam
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs

torch.set_num_threads(1)


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    g = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=g).to(dtype)) for shape in ((7, 33), (5,), (), (4,))]


def groups(held: list[nn.Parameter], lr: float = 0.02) -> list[dict]:
    return [{"params": held[:2], "weight_decay": 0.1, "lr": lr}, {"params": held[2:], "weight_decay": 0.0, "lr": 3 * lr}]


def steps(optimizer: torch.optim.Optimizer, count: int, *, begin: int = 0, scale: float = 0.0) -> list[torch.Tensor]:
    held = [p for g in optimizer.param_groups for p in g["params"]]
    for k in range(begin, begin + count):
        g = torch.Generator().manual_seed(k)
        for number, p in enumerate(held):
            value = torch.randn(p.shape, generator=g).to(p.dtype)
            p.grad = None if number == 3 and k == 0 else value  # a parameter may join later
        optimizer.grad_scale = torch.tensor(scale) if scale else None  # type: ignore[attr-defined]
        optimizer.param_groups[0]["lr"] = 0.02 * (k + 1)
        optimizer.step()
    return [p.detach().clone() for p in held]


def ours(held: list[nn.Parameter], decoupled: bool) -> FusedAdam:
    return FusedAdam(groups(held), betas=(0.8, 0.95), eps=1e-6, decoupled=decoupled)


def theirs(held: list[nn.Parameter], decoupled: bool) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    return kind(groups(held), betas=(0.8, 0.95), eps=1e-6, fused=True)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 2.5])
def test_it_equals_torch_to_the_bit(decoupled: bool, dtype: torch.dtype, scale: float) -> None:
    got = steps(ours(parameters(dtype), decoupled), 5, scale=scale)
    want = steps(theirs(parameters(dtype), decoupled), 5, scale=scale)
    start = parameters(dtype)
    for a, b, c in zip(got, want, start, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c.detach())


@pytest.mark.parametrize("decoupled", [False, True])
def test_its_state_is_torchs(decoupled: bool) -> None:
    first, second = parameters(), parameters()
    steps(mine := ours(first, decoupled), 3)
    other = theirs(second, decoupled)
    with torch.no_grad():
        for p, q in zip(second, first, strict=True):
            p.copy_(q)
    other.load_state_dict(copy.deepcopy(mine.state_dict() | {"param_groups": other.state_dict()["param_groups"]}))
    fresh_held = [nn.Parameter(p.detach().clone()) for p in first]
    fresh = ours(fresh_held, decoupled)
    fresh.load_state_dict(copy.deepcopy(mine.state_dict()))
    went_on = steps(mine, 2, begin=3)
    for a, b, c in zip(went_on, steps(fresh, 2, begin=3), steps(other, 2, begin=3), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_closure_runs_with_gradients_and_its_value_comes_back() -> None:
    p = nn.Parameter(torch.tensor([1.0]))
    optimizer = FusedAdam([{"params": [p]}], lr=0.1)

    def closure() -> torch.Tensor:
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 1.0
    assert p.item() == pytest.approx(0.9)


def test_hooks_run_before_and_after() -> None:
    p = nn.Parameter(torch.tensor([1.0]))
    p.grad = torch.tensor([1.0])
    optimizer, seen = FusedAdam([{"params": [p]}], lr=0.1), []
    optimizer.register_step_pre_hook(lambda o, a, k: seen.append(p.item()))
    optimizer.register_step_post_hook(lambda o, a, k: seen.append(p.item()))
    optimizer.step()
    assert seen == pytest.approx([1.0, 0.9])


def test_a_group_without_gradients_is_left_alone() -> None:
    p = nn.Parameter(torch.tensor([1.0]))
    optimizer = FusedAdam([{"params": [p]}])
    optimizer.step()
    assert p.item() == 1.0
    assert not optimizer.state


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_build_takes_it(name: str) -> None:
    optim = build(nn.Linear(3, 2), OptimKnobs(name=name))  # type: ignore[arg-type]
    assert isinstance(optim.optimizer, FusedAdam)
    assert optim.fused
    decoupled = torch._fused_adamw_  # type: ignore[reportPrivateImportUsage]
    assert (optim.optimizer.kernel is decoupled) == (name == "adamw")


@pytest.mark.parametrize("decoupled", [False, True])
def test_nothing_moves_when_something_is_not_finite(decoupled: bool):
    mine, other = parameters(), parameters()
    one, two = ours(mine, decoupled), theirs(other, decoupled)
    for optimizer in (one, two):
        steps(optimizer, 3)
        optimizer.found_inf = torch.tensor(1.0)  # type: ignore[attr-defined]
    held = [p.detach().clone() for p in mine]
    for a, b in zip(steps(one, 2, begin=3), held, strict=True):
        assert torch.equal(a, b)
    steps(two, 2, begin=3)
    for optimizer in (one, two):
        optimizer.found_inf = torch.tensor(0.0)  # type: ignore[attr-defined]
    for a, b in zip(steps(one, 2, begin=5), steps(two, 2, begin=5), strict=True):
        assert torch.equal(a, b)
