"""The range test: what it finds on problems with a known answer, and that it leaves no trace."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Iterator

import pytest
import torch
from torch import Tensor, nn

from engram.core.batch import Batch, Logs
from engram.core.data import Data
from engram.core.errors import ConfigError
from engram.core.optim import FlatGroup, Optim
from engram.core.plan import Plan
from engram.core.task import Ctx, Phase, Task
from engram.training.find_lr import find_lr
from engram.training.update import update

torch.set_num_threads(1)
FREE = Plan(steps=100, clip=0)


class Lines(Data):
    """y = sum of x plus noise; the curvature of the squared error grows with `scale`."""

    def __init__(self, scale: float = 1.0, noise: float = 0.0, batch: int = 64):
        self.scale, self.noise, self.batch = scale, noise, batch

    def size(self, split: str) -> int:
        return self.batch

    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        while True:
            g = torch.Generator().manual_seed(start)
            x = torch.randn(self.batch, 3, generator=g) * self.scale
            yield {"x": x, "y": x.sum(1, keepdim=True) + self.noise * torch.randn(self.batch, 1, generator=g)}
            start += 1


class Fit(Task):
    """Squared error of a small network with dropout, a running mean and a moving copy: everything that a step can change."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.model = nn.Sequential(*layers)
        self.register_buffer("after", torch.zeros(()))
        self.after: Tensor

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("model", self.loss, self.model),)

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        return (self.model(batch["x"]) - batch["y"]).square().mean(), {}

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        return {}

    def after_step(self, ctx: Ctx) -> None:
        self.after += 1


def linear() -> Fit:
    task = Fit(nn.Linear(3, 1, bias=False))
    nn.init.zeros_(task.model[0].weight)
    return task


def sgd(task: Task, lr: float = 0.1, **more) -> Optim:
    return Optim(torch.optim.SGD(task.parameters(), lr=lr, **more))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_range_ends_below_the_rate_at_which_gradient_descent_diverges(scale):
    task = linear()
    limit = 1 / scale**2  # 2 / largest eigenvalue of the Hessian, which is 2 * scale^2 * identity
    found = find_lr(task, Lines(scale), sgd(task), plan=FREE, high=1000)
    assert found.low <= found.suggested <= found.high < limit
    assert found.high > limit / 20
    assert found.low < found.high / 5
    assert found.confidence > 0.7
    rates = [rate for rate, _ in found.curve]
    assert rates[0] == pytest.approx(1e-7)
    assert limit < rates[-1] < 1000  # stopped soon after it blew up
    assert found.curve[-1][1] > found.curve[0][1]


def test_suggested_rate_trains_and_rates_around_the_range_do_not():
    found = find_lr(task := linear(), Lines(), sgd(task), plan=FREE)
    after = {}
    for lr in (found.low / 30, found.suggested, found.high * 30):
        task = linear()
        optim, batches, loss = sgd(task, lr), Lines().batches("train"), 0.0
        for k in range(30):
            try:
                loss = float(update(task, task.phases()[0], optim, next(batches), Ctx(k, 30), FREE)["model/loss"])
            except ArithmeticError:
                loss = math.inf
                break
        after[lr] = loss
    little, right, much = after.values()
    assert right < 0.1 * little
    assert much > 3


@pytest.mark.parametrize("rate", [1e-9, 1.0, 1e9])
def test_the_rate_that_the_optimizer_had_does_not_matter(rate):
    task = linear()
    found = find_lr(task, Lines(), sgd(task, rate), plan=FREE)
    assert found.suggested == pytest.approx(find_lr(task, Lines(), sgd(task, 0.1), plan=FREE).suggested, rel=1e-6)


def test_groups_keep_the_ratio_of_their_rates():
    first, second = (nn.Parameter(torch.ones(())) for _ in range(2))
    seen = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            seen.append([g["lr"] for g in self.param_groups])
            return super().step(closure)

    task = linear()
    task.model.register_parameter("first", first)
    task.model.register_parameter("second", second)
    groups = [{"params": [task.model[0].weight, first], "lr": 0.2}, {"params": [second], "lr": 0.05}]
    find_lr(task, Lines(), Optim(Spy(groups)), low=1e-4, high=1e-2, steps=11, repeats=1)
    assert [a for a, _ in seen] == pytest.approx([1e-4 * 100 ** (k / 10) for k in range(11)])
    assert all(a == pytest.approx(4 * b) for a, b in seen)


def state_of(task: Task, optim: Optim) -> list[Tensor]:
    inner = [t for s in optim.optimizer.state.values() for t in s.values() if isinstance(t, Tensor)]
    return [t.detach().clone() for t in (*task.parameters(), *task.buffers(), *optim.tensors(), *inner)]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("warm", [False, True])
def test_leaves_no_trace(flat, warm):
    torch.manual_seed(0)
    task = Fit(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    task.eval()
    task.model[2].train()
    held = (FlatGroup(list(task.parameters())),) if flat else ()
    tensors = [held[0].buffer] if flat else list(task.parameters())
    optim = Optim(torch.optim.AdamW(tensors, lr=0.03), lambda step, steps: 0.5, held)
    if warm:
        for k, batch in zip(range(3), Lines().batches("train"), strict=False):
            update(task, task.phases()[0], optim, batch, Ctx(k, 3), FREE)
    before, modes, dice = state_of(task, optim), [m.training for m in task.modules()], torch.get_rng_state()
    groups = copy.deepcopy([{k: v for k, v in g.items() if k != "params"} for g in optim.optimizer.param_groups])
    owners = [id(p) for p in optim.optimizer.state]
    pointers = [p.data_ptr() for p in task.parameters()]
    find_lr(task, Lines(), optim, steps=30, high=100)
    after = state_of(task, optim)
    assert len(before) == len(after)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert [m.training for m in task.modules()] == modes
    assert torch.equal(torch.get_rng_state(), dice)
    assert [{k: v for k, v in g.items() if k != "params"} for g in optim.optimizer.param_groups] == groups
    assert [id(p) for p in optim.optimizer.state] == owners
    assert [p.data_ptr() for p in task.parameters()] == pointers
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in task.parameters())


def test_a_run_after_it_is_the_run_without_it():
    ends = []
    for look in (False, True):
        torch.manual_seed(0)
        task = Fit(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 1))
        optim = sgd(task, momentum=0.9)
        for k, batch in zip(range(6), Lines().batches("train"), strict=False):
            if look and k == 3:
                find_lr(task, Lines(), optim, steps=20)
            update(task, task.phases()[0], optim, batch, Ctx(k, 6), FREE)
        ends.append([p.detach().clone() for p in task.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


class Nan(Fit):
    """Its loss is NaN from the first step on."""

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        return super().loss(batch, ctx)[0] * math.nan, {}


def test_divergence_from_the_first_step_on_is_no_error():
    found = find_lr(task := Nan(nn.Linear(3, 1)), Lines(), sgd(task, 0.3))
    assert (found.low, found.high, found.suggested, found.confidence, found.curve) == (1e-7, 10.0, 0.3, 0.0, ())


class Scripted(Fit):
    """Its loss is 2 until step 50, falls to 1 at step 80, and is then beyond all bounds."""

    called = 0

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        assert self.training
        value = 2.0 if ctx.step < 50 else 2.0 - (ctx.step - 50) / 30 if ctx.step <= 80 else 1e12
        return value + 0 * self.model(batch["x"]).sum(), {}

    def after_step(self, ctx: Ctx) -> None:
        self.called += 1


def test_low_and_high_are_a_tenth_and_nine_tenths_of_the_descent():
    task = Scripted(nn.Linear(3, 1)).eval()
    found = find_lr(task, Lines(), sgd(task), repeats=1)

    def step(rate: float) -> float:
        return math.log(rate / 1e-7) / math.log(1e8) * 99

    assert abs(step(found.low) - 53) < 1.5
    assert 72 < step(found.high) < 78  # smoothing with what comes after the fall keeps to the safe side
    assert found.low < found.suggested < found.high
    assert found.confidence > 0.95
    assert task.called == len(found.curve) <= 83
    assert max(loss for _, loss in found.curve) < 3.1


class Deaf(Fit):
    """Its loss does not depend on the weights: noise that nothing lowers."""

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        return batch["y"].mean() + 0 * self.model(batch["x"]).sum(), {}


def test_a_loss_that_nothing_lowers_gives_no_confidence():
    task = Deaf(nn.Linear(3, 1))
    assert find_lr(task, Lines(), sgd(task)).confidence < 0.3


def test_noise_lowers_confidence():
    clear, noisy = (find_lr(task := linear(), Lines(noise=n, batch=8), sgd(task), plan=FREE) for n in (0.0, 30.0))
    assert noisy.confidence < 0.5 * clear.confidence


def test_same_seed_same_answer_and_each_repeat_sees_other_batches():
    task, starts = linear(), []

    class Watched(Lines):
        def batches(self, split, start=0, part=(0, 1)):
            starts.append(start)
            return super().batches(split, start, part)

    first = find_lr(task, Watched(noise=1.0), sgd(task), seed=3)
    assert first == find_lr(task, Lines(noise=1.0), sgd(task), seed=3)
    assert first != find_lr(task, Lines(noise=1.0), sgd(task), seed=4)
    assert starts == [900, 1000, 1100]


class Same(Lines):
    """Always the same batch."""

    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        return itertools.repeat(next(super().batches(split)))


def test_seed_reaches_dropout():
    task = Fit(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    answers = {find_lr(task, Same(), sgd(task), seed=seed, steps=30).curve for seed in (0, 0, 1)}
    assert len(answers) == 2


class Two(Fit):
    """Two phases."""

    def phases(self) -> tuple[Phase, ...]:
        return (*super().phases(), Phase("other", self.loss, self.model))


def test_says_where_there_is_no_rate_to_find():
    with pytest.raises(ConfigError, match="2 phases"):
        find_lr(task := Two(nn.Linear(3, 1)), Lines(), sgd(task))
    task = linear()
    with pytest.raises(ConfigError, match="lbfgs"):
        find_lr(task, Lines(), Optim(torch.optim.LBFGS(task.parameters())))
    for bad in ({"low": 1.0, "high": 0.1}, {"low": 0.0}, {"steps": 2}, {"repeats": 0}):
        with pytest.raises(ConfigError, match="no rates between"):
            find_lr(task, Lines(), sgd(task), **bad)
    with pytest.raises(ConfigError, match="learning rate 0"):
        find_lr(task, Lines(), sgd(task, 0.0))
