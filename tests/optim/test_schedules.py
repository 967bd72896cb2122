"""Every schedule against torch's own, step by step, and its edges."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedules

from engram.optim import schedules
from engram.optim.knobs import OptimKnobs

STEPS, WARMUP, LR = 50, 7, 0.3


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)


def rates(scheduler, opt: torch.optim.Optimizer, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(opt.param_groups[0]["lr"] / LR)
        opt.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler.step()
    return found


def after_warmup(make) -> list[float]:
    opt = optimizer()
    rise = torch_schedules.LinearLR(opt, start_factor=1 / (WARMUP + 1), end_factor=1.0, total_iters=WARMUP)
    return rates(torch_schedules.SequentialLR(opt, [rise, make(opt)], milestones=[WARMUP]), opt, STEPS)


def ours(schedule) -> list[float]:
    return [schedule(k, STEPS) for k in range(STEPS)]


CASES = {
    "constant": (OptimKnobs(schedule="constant", warmup=WARMUP), lambda o: torch_schedules.LambdaLR(o, lambda k: 1.0)),
    "step": (
        OptimKnobs(schedule="step", warmup=WARMUP, step_every=10, step_factor=0.3),
        lambda o: torch_schedules.StepLR(o, step_size=10, gamma=0.3),
    ),
    "cosine": (
        OptimKnobs(schedule="cosine", warmup=WARMUP, final=0.1),
        lambda o: torch_schedules.CosineAnnealingLR(o, T_max=STEPS - WARMUP, eta_min=0.1 * LR),
    ),
    "linear": (
        OptimKnobs(schedule="linear", warmup=WARMUP, final=0.2),
        lambda o: torch_schedules.LinearLR(o, start_factor=1.0, end_factor=0.2, total_iters=STEPS - WARMUP),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_matches_torch_after_linear_warmup(name):
    knobs, make = CASES[name]
    assert ours(schedules.make(knobs)) == pytest.approx(after_warmup(make), abs=1e-9)


def test_warmup_alone_matches_linear_lr():
    opt = optimizer()
    theirs = rates(torch_schedules.LinearLR(opt, start_factor=1 / (WARMUP + 1), total_iters=WARMUP), opt, STEPS)
    assert ours(schedules.make(OptimKnobs(schedule="constant", warmup=WARMUP))) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_onecycle_matches_torch(share):
    opt = optimizer()
    scheduler = torch_schedules.OneCycleLR(opt, max_lr=LR, total_steps=STEPS, pct_start=share, cycle_momentum=False)
    schedule = schedules.make(OptimKnobs(schedule="onecycle", warmup=share, final=1 / 25e4))
    assert ours(schedule) == pytest.approx(rates(scheduler, opt, STEPS), abs=1e-9)


@pytest.mark.parametrize("name", ["constant", "step", "cosine", "linear", "onecycle"])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 1.0, 3.0, 1000.0])
@pytest.mark.parametrize("steps", [1, 2, 10, 101])
def test_stays_between_zero_and_one_and_past_the_end(name, warmup, steps):
    schedule = schedules.make(OptimKnobs(schedule=name, warmup=warmup, final=0.1))
    factors = [schedule(k, steps) for k in range(steps + 3)]
    assert all(0.0 <= f <= 1.0 + 1e-12 for f in factors)
    assert factors[0] > 0


def test_warmup_below_one_is_a_fraction_and_from_one_on_steps():
    fraction, steps = (schedules.make(OptimKnobs(schedule="constant", warmup=w)) for w in (0.2, 20.0))
    assert [fraction(k, 100) for k in range(100)] == [steps(k, 100) for k in range(100)]
    assert steps(19, 100) < 1 == steps(20, 100)
    one = schedules.make(OptimKnobs(schedule="constant", warmup=1.0))
    assert [one(k, 100) for k in (0, 1, 2)] == [0.5, 1.0, 1.0]


@pytest.mark.parametrize(("name", "last"), [("cosine", 0.1), ("linear", 0.1), ("onecycle", 0.1)])
def test_final_is_reached(name, last):
    schedule = schedules.make(OptimKnobs(schedule=name, final=last))
    assert schedule(100, 100) == pytest.approx(last)
    assert schedule(99, 100) == pytest.approx(last, abs=0.01)


def test_lbfgs_is_always_constant():
    schedule = schedules.make(OptimKnobs(name="lbfgs"))
    assert {schedule(k, 10) for k in range(10)} == {1.0}
