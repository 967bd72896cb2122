"""The moving average: right numbers, and swapped in and out bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from toys import NextToken, Regress, mlp, optim, run, seeded, waves

from engram.core.optim import Optim, constant, flatten
from engram.core.plan import Plan
from engram.core.task import Task
from engram.training.average import Average
from engram.training.fit import fit


class Tied(nn.Module):
    """A language model whose output layer is its embedding: one weight under two names."""

    def __init__(self):
        super().__init__()
        self.token = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.token.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.token(tokens))


def normed() -> Task:
    return Regress(nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)))


def convolutional() -> Task:
    net = nn.Sequential(nn.Unflatten(1, (3, 1, 1)), nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4, 2))
    return Regress(net.to(memory_format=torch.channels_last))


KINDS = {
    "plain": lambda: Regress(mlp(3, 6, 2)),
    "batch norm": normed,
    "channels last": convolutional,
    "tied": lambda: NextToken(Tied()),
}


def shake(task: Task) -> None:
    """Other weights, statistics and counters, in place."""
    with torch.no_grad():
        for t in dict.fromkeys(task.state_dict().values()):
            t.add_(torch.randn_like(t)) if t.is_floating_point() else t.add_(1)


def averaged(kind: str, flat: bool) -> tuple[Task, Optim, Average]:
    task = seeded(KINDS[kind])
    made = optim("Adam", task, 0.1) if not flat else flat_adam(task)
    return task, made, Average(task, 0.9, made.flat)


def flat_adam(task: Task) -> Optim:
    flat = flatten([list(task.parameters())])
    return Optim(torch.optim.Adam([f.buffer for f in flat], lr=0.1), constant, flat)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_swapped_in_and_out_bit_for_bit(kind: str, flat: bool):
    task, _, average = averaged(kind, flat)
    shake(task)
    average.update(0)
    shake(task)
    weights, mean = copy.deepcopy(task.state_dict()), copy.deepcopy(average.mean)
    assert any(not torch.equal(t, mean[n]) for n, t in weights.items())
    with average.swapped_in():
        for name, t in task.state_dict().items():
            assert torch.equal(t, mean[name])
    with pytest.raises(KeyError), average.swapped_in():
        raise KeyError
    for name, t in task.state_dict().items():
        assert torch.equal(t, weights[name])
        assert torch.equal(average.mean[name], mean[name])


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_is_the_formula(kind: str, flat: bool):
    """mean <- d mean + (1 - d) weights, d = 0.9 but at most (1 + n) / (10 + n); whole numbers are copied."""
    task, _, average = averaged(kind, flat)
    expected = copy.deepcopy(task.state_dict())
    for step in (0, 1, 79, 80, 500):
        shake(task)
        average.update(step)
        decay = {0: 0.1, 1: 2 / 11, 79: 80 / 89}.get(step, 0.9)
        for name, t in task.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * t if t.is_floating_point() else t.clone()
    torch.testing.assert_close(average.mean, dict(expected), rtol=1e-5, atol=1e-6)


def test_the_average_is_no_part_of_the_training():
    """Training goes on with the weights: with and without an average they are the same."""
    found = []
    for ema in (0.0, 0.9):
        task = seeded(normed)
        run((task, waves(8), {"model": optim("Adam", task, 0.01, flat=True)}), Plan(steps=6, ema=ema, eval_every=2))
        found.append(task.state_dict())
    assert all(torch.equal(t, found[1][n]) for n, t in found[0].items())


def test_evaluation_and_the_best_file_use_the_average():
    task = seeded(lambda: Regress(mlp(3, 6, 2)))
    shots = {}
    plan = Plan(steps=5, ema=0.9, eval_every=5)

    def keep(snapshot, best):
        shots[best] = {name: t.clone() for name, t in snapshot.tensors.items()}

    events = list(fit(task, waves(8), {"model": optim("SGD", task, 0.5)}, plan, save=keep))
    told = next(e.metrics["loss"] for e in events if hasattr(e, "metrics"))
    assert set(shots[True]) == {f"mean/{n}" for n in task.state_dict()}
    other = Regress(mlp(3, 6, 2))
    other.load_state_dict({n.removeprefix("mean/"): t for n, t in shots[True].items()})
    with torch.no_grad():
        assert other.evaluate(waves(8).batches("val"), None) == {"loss": told}  # type: ignore[arg-type]
        assert task.evaluate(waves(8).batches("val"), None) != {"loss": told}  # type: ignore[arg-type]


def test_without_a_decay_there_is_no_copy():
    task = seeded(normed)
    average = Average(task, 0.0)
    before = copy.deepcopy(task.state_dict())
    average.update(0)
    with average.swapped_in():
        assert all(torch.equal(t, before[n]) for n, t in task.state_dict().items())
    assert not average.mean
