"""A run that was stopped and resumed is the run never stopped, bit for bit; micro-batches are the whole batch."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import Gan, NextToken, Regress, losses, mlp, optim, plainly, points, run, seeded, waves

from engram.checkpoint.files import read_tensors
from engram.core.batch import Batch, fold
from engram.core.data import Summary
from engram.core.errors import RunError
from engram.core.optim import Optim
from engram.core.plan import Plan, Saved, Stopped
from engram.core.task import Ctx, Phase, Task
from engram.data.memory import MemoryData
from engram.data.order import Draws
from engram.training.fit import evaluate, fit

Made = tuple[Task, Any, dict[str, Optim]]
STEPS = 14
PLAN = Plan(steps=STEPS, eval_every=4, save_every=5, log_every=3, seed=7)


class Wobbling(Regress):
    """Noise in the loss, a teacher that moves with noise after each step, and a step counter: all of it is state."""

    def __init__(self, net: nn.Module):
        super().__init__(net)
        self.register_buffer("teacher", torch.zeros(3))

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, dict[str, Tensor]]:
        return super().loss(batch | {"x": batch["x"] + 0.1 * torch.randn_like(batch["x"]) + self.teacher}, ctx)

    def after_step(self, ctx: Ctx) -> None:
        self.teacher.lerp_(torch.randn(3), 0.1)


class Sparse(Wobbling):
    """Trains at every third step only: the steps between draw noise in `after_step` alone."""

    def phases(self) -> tuple[Phase, ...]:
        return (replace(super().phases()[0], every=3),)


def in_memory(batch: int = 8, rows: int = 30) -> MemoryData:
    """30 rows in epochs of 4 steps, with an augmentation that draws."""
    made = waves(rows).make("train", torch.Generator().manual_seed(3))

    def noisy(batch: Batch, draws: Draws | None) -> Batch:
        noise = draws.uniform(*batch["x"].shape[1:]) if draws else 0.0
        return batch | {"x": batch["x"] + 0.01 * noise}

    held = {"train": made, "val": waves(20).make("val", torch.Generator().manual_seed(4))}
    return MemoryData(None, Summary("waves", {}), held, batch=batch, seed=5, transform=noisy)  # type: ignore[arg-type]


def supervised(seed: int, kind: str, lr: float, flat: bool, **more: Any) -> Made:
    task = seeded(lambda: Wobbling(mlp(3, 8, 2, drop=0.3)), seed)
    return task, in_memory(), {"model": optim(kind, task.net, lr, flat=flat, **more)}


def fused(seed: int) -> Made:
    task, data, optims = supervised(seed, "AdamW", 1e-2, True, fused=True)
    return task, data, {"model": replace(optims["model"], fused=True)}


def lbfgs(seed: int) -> Made:
    task = seeded(lambda: Regress(mlp(3, 8, 2, drop=0.1)), seed)
    return task, in_memory(), {"model": optim("LBFGS", task, 0.5, max_iter=4, line_search_fn="strong_wolfe")}


def gan(seed: int) -> Made:
    task = seeded(lambda: Gan(mlp(4, 8, 2), mlp(2, 8, 1, drop=0.2), 4), seed)
    adam = {"betas": (0.5, 0.99)}
    optims = {"critic": optim("Adam", task.critic, 2e-3, **adam), "generator": optim("Adam", task.generator, 1e-3, **adam)}
    return task, points(16), optims


def sparse(seed: int) -> Made:
    task = seeded(lambda: Sparse(mlp(3, 8, 2, drop=0.3)), seed)
    return task, in_memory(), {"model": optim("SGD", task.net, 0.1)}


def normed(seed: int) -> Made:
    task = seeded(lambda: Regress(nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))), seed)
    return task, in_memory(), {"model": optim("AdamW", task.net, 1e-2, flat=True)}


def conv(seed: int, kind: str, channels_last: bool = True, **more: Any) -> Made:
    """Convolutions channels-last, whose moments are contiguous in a file."""
    layers = lambda: nn.Sequential(nn.Unflatten(1, (3, 1, 1)), nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1),  # noqa: E731
                                   nn.Flatten(), nn.Linear(4, 2))  # fmt: skip
    task = seeded(lambda: Regress(layers()), seed)
    if channels_last:
        task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return task, in_memory(), {"model": optim(kind, task.net, 1e-2, **more)}


CASES: dict[str, tuple[Callable[[int], Made], Plan]] = {
    "adam": (lambda s: supervised(s, "Adam", 1e-2, False), replace(PLAN, ema=0.9)),
    "adam flat": (lambda s: supervised(s, "Adam", 1e-2, True), replace(PLAN, ema=0.9)),
    "adamw amsgrad": (lambda s: supervised(s, "AdamW", 1e-2, True, amsgrad=True), PLAN),
    "momentum": (lambda s: supervised(s, "SGD", 0.1, False, momentum=0.9, nesterov=True), replace(PLAN, accumulate=2)),
    "momentum flat": (lambda s: supervised(s, "SGD", 0.1, True, momentum=0.9), replace(PLAN, clip=0.1)),
    "fused": (fused, replace(PLAN, clip=0.1, accumulate=2)),
    "bf16": (lambda s: supervised(s, "Adam", 1e-2, True), replace(PLAN, precision="bf16")),
    "channels-last": (lambda s: conv(s, "AdamW", fused=True), PLAN),
    "channels-last momentum": (lambda s: conv(s, "SGD", momentum=0.9, fused=True), PLAN),
    "lbfgs": (lbfgs, PLAN),
    "lbfgs channels-last": (lambda s: conv(s, "LBFGS", max_iter=3, line_search_fn="strong_wolfe"), PLAN),
    "gan": (gan, replace(PLAN, ema=0.9)),
    "sparse": (sparse, PLAN),
    "batch norm": (normed, replace(PLAN, ema=0.8)),
}


def perturb() -> None:
    """What a new process would find otherwise: generators in another state."""
    torch.manual_seed(987)
    torch.rand(5)
    random.seed(1)
    np.random.seed(2)


def resumed(build: Callable[[int], Made], plan: Plan, stop: int, folder: Path) -> list[Any]:
    """Events of a run stopped after `stop` steps and resumed from its files, in objects with other weights."""
    first, _ = run(build(0), plan, folder, until=stop)
    assert isinstance(first[-1], Stopped)
    assert (first[-1].reason, first[-1].step) == ("interrupted", stop)
    assert [e.step for e in first if isinstance(e, Saved)][-1] == stop
    made = build(99)
    perturb()
    second, _ = run(made, plan, folder, resume=True)
    return plainly(first) + plainly(second)


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 10, 13])
@pytest.mark.parametrize("case", CASES)
def test_resume_is_bitwise(case: str, stop: int, tmp_path: Path):
    build, plan = CASES[case]
    once, again = tmp_path / "once", tmp_path / "again"
    once.mkdir()
    again.mkdir()
    whole, _ = run(build(0), plan, once)
    assert resumed(build, plan, stop, again) == plainly(whole)
    for name in ("state.safetensors", "weights.safetensors"):
        assert (once / name).read_bytes() == (again / name).read_bytes()


def test_the_cases_would_notice(tmp_path: Path):
    """The run depends on everything that resume must bring back: seeds and a second start give other weights."""
    build, plan = CASES["adam"]
    a, b = (run(build(0), p)[0] for p in (plan, replace(plan, seed=8)))
    assert plainly(a) != plainly(b)
    assert plainly(run(build(0), plan)[0]) == plainly(a)


@pytest.mark.parametrize("stop", [3, 6, 8])
def test_resume_keeps_patience(stop: int, tmp_path: Path):
    """The loss falls, so watching it rise finds no better than the first evaluation, at step 2."""

    def build(seed: int) -> Made:
        task = seeded(lambda: Regress(mlp(3, 8, 2)), seed)
        return task, in_memory(), {"model": optim("SGD", task.net, 0.1)}

    plan = Plan(steps=40, eval_every=2, save_every=3, watch="loss", mode="max", patience=3)
    whole, _ = run(build(0), plan, tmp_path)
    assert whole[-1] == Stopped(8, "patience", 2)
    ended = read_tensors(tmp_path / "state.safetensors")
    if stop < 8:
        assert resumed(build, plan, stop, tmp_path) == plainly(whole)
    assert run(build(5), plan, tmp_path, resume=True)[0] == [Stopped(8, "patience", 2)]  # and stays stopped
    again = read_tensors(tmp_path / "state.safetensors")
    assert again.facts == ended.facts
    assert all(torch.equal(t, again.tensors[n]) for n, t in ended.tensors.items())


def test_an_evaluation_repeats():
    """Noise in an evaluation depends on the seed and the split, not on what was drawn before."""
    task, data, _ = CASES["adam"][0](0)
    told = []
    for split, plan in (("val", PLAN), ("val", PLAN), ("val", replace(PLAN, seed=8))):
        perturb()
        torch.rand(len(told))
        told.append(evaluate(task, data, split, plan, Ctx()))
    assert told[0] == told[1] != told[2]


def test_a_finished_run_stays_finished(tmp_path: Path):
    build, plan = CASES["adam"]
    whole, _ = run(build(0), plan, tmp_path)
    assert run(build(1), plan, tmp_path, resume=True)[0] == [whole[-1]]


def test_a_longer_plan_goes_on(tmp_path: Path):
    build, plan = CASES["momentum"]
    run(build(0), plan, tmp_path)
    more, _ = run(build(1), replace(plan, steps=STEPS + 3), tmp_path, resume=True)
    assert [e[1] for e in plainly(more) if e[0] == "step"] == [15, 16, 17]


@pytest.mark.parametrize(
    ("other", "plan"),
    [
        (lambda: supervised(0, "Adam", 1e-2, True), replace(PLAN, ema=0.0)),  # the state holds an average
        (lambda: supervised(0, "Adam", 1e-2, False), replace(PLAN, ema=0.9)),  # flat weights in the state
        (lambda: normed(0), replace(PLAN, ema=0.9)),  # other networks
        (lambda: gan(0), replace(PLAN, ema=0.9)),
    ],
)
def test_a_state_that_does_not_fit_is_refused(other: Callable[[], Made], plan: Plan, tmp_path: Path):
    build, kept = CASES["adam flat"]
    run(build(0), kept, tmp_path, until=3)
    task, data, optims = other()
    with pytest.raises(RunError, match="does not fit") as caught:
        next(fit(task, data, optims, plan, state=read_tensors(tmp_path / "state.safetensors")))
    assert "\n" not in str(caught.value)


def ragged(accumulate: int, flat: bool = False, kind: str = "SGD", **more: Any) -> tuple[list[Any], dict[str, Tensor]]:
    task = seeded(lambda: Regress(mlp(3, 8, 2, dtype=torch.float64)))
    made = task, waves(16, torch.float64, ragged=True), {"model": optim(kind, task.net, 0.1, flat=flat, **more)}
    plan = Plan(steps=6, accumulate=accumulate, clip=0.5, ema=0.5, log_every=2)
    events, _ = run(made, plan)
    return plainly(events), task.state_dict()


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("pieces", [2, 3, 16, 40])
def test_micro_batches_equal_the_batch(pieces: int, flat: bool):
    """16 rows in 3 pieces of 6, 5 and 5 rows with ragged targets; the piece of rows 6 to 10 has none at all."""
    told, weights = ragged(1, flat, momentum=0.9)
    told_in_pieces, weights_in_pieces = ragged(pieces, flat, momentum=0.9)
    for name, value in weights.items():
        torch.testing.assert_close(weights_in_pieces[name], value, rtol=1e-12, atol=1e-13)
    for one, many in zip(told, told_in_pieces, strict=True):
        assert one[:2] == many[:2]
        torch.testing.assert_close(many[2], one[2], rtol=1e-10, atol=1e-12)  # logs, or metrics


def test_a_plain_mean_over_pieces_would_differ():
    """The batches are ragged enough that dividing by the number of pieces is not the mean over the items."""
    task, gaps = seeded(lambda: Regress(mlp(3, 8, 2, dtype=torch.float64))), []
    for batch in itertools.islice(waves(16, torch.float64, ragged=True).batches("train"), 6):
        halves = [task.loss({n: t.tensor_split(2)[i] for n, t in batch.items()}, Ctx())[0] for i in (0, 1)]
        gaps.append(float((torch.stack(halves).mean() - task.loss(batch, Ctx())[0]).abs().detach()))
    assert max(gaps) > 1e-3


def test_dropped_tokens_in_pieces():
    """Cross entropy with ignored targets: pieces with no target at all count nothing."""
    found = []
    for pieces in (1, 3):
        model = seeded(lambda: nn.Sequential(nn.Embedding(5, 6), nn.Linear(6, 5)).double())
        task = NextToken(model)
        g = torch.Generator().manual_seed(1)
        tokens, targets = torch.randint(5, (6, 4), generator=g), torch.randint(5, (6, 4), generator=g)
        targets[2:4] = -100
        data = waves()
        data.make = lambda split, g, t=tokens, y=targets: {"tokens": t, "targets": y}
        run((task, data, {"model": optim("SGD", model, 0.5)}), Plan(steps=3, accumulate=pieces))
        found.append(model.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-12, atol=1e-13)


def test_schedules_count_optimizer_steps():
    """The rate of step k is schedule(k), however a step is cut and however often a phase repeats."""
    rates = {}
    for pieces in (1, 4):
        told, _ = ragged(pieces)
        rates[pieces] = [logs["model/lr"] for kind, _, logs, *_ in told if kind == "step"]
    assert rates[1] == rates[4]
    assert rates[1][:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    task, data, optims = gan(0)
    events, _ = run((task, data, optims), replace(PLAN, steps=4, eval_every=0, save_every=0))
    assert losses(events, "critic/lr") == pytest.approx([5e-4, 1e-3, 1.5e-3, 2e-3])


def test_draws_count_batches_of_every_phase(tmp_path: Path):
    """Two critic updates and one generator update draw three batches, and one more at every fourth step."""
    _, state = run(gan(0), replace(PLAN, steps=5, ema=0.0), tmp_path)
    assert state is not None
    assert state.facts["at"]["draws"] == 5 * 3 + 2


def test_seeds_are_a_function_of_their_parts():
    assert fold(0, "order", 1) == fold(0, "order", 1)
    assert (
        len({fold(s, d, p, n, r) for s in range(3) for d in range(20) for p in ("a", "b") for n in range(3) for r in range(2)})
        == 720
    )
