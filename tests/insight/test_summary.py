"""Layer tables and memory against hand counts and what PyTorch really holds."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch, Logs
from engram.core.optim import Optim
from engram.core.task import Ctx, Phase, Task
from engram.insight.summary import memory_estimate, summarise


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8 * 4 * 4, 5)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.max_pool2d(self.drop(self.norm(self.conv(x)).relu()), 2).flatten(1))


class Classify(Task):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("classify", self.loss, self.model),)

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        return F.cross_entropy(self.model(batch["x"]), batch["y"]), {}

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        return {}


class WithForward(Classify):
    def forward(self, batch: Batch) -> Tensor:
        return self.model(batch["x"])


def batch(rows: int = 4) -> Batch:
    return {"x": torch.randn(rows, 3, 8, 8), "y": torch.zeros(rows, dtype=torch.int64)}


def test_layers_with_shapes_parameters_and_multiply_adds() -> None:
    table = summarise(Small(), {"x": batch()["x"]})
    got = [(r.name, r.type, r.shape, r.parameters, r.multiply_adds) for r in table]
    conv, head = 3 * 8 * 9 * 64, 128 * 5
    assert got == [
        ("conv", "Conv2d", (8, 8, 8), 3 * 8 * 9 + 8, conv),
        ("norm", "BatchNorm2d", (8, 8, 8), 16, 0),
        ("drop", "Dropout", (8, 8, 8), 0, 0),
        ("head", "Linear", (5,), 128 * 5 + 5, head),
        ("total", "Small", (5,), sum(p.numel() for p in Small().parameters()), conv + head),
    ]


@pytest.mark.parametrize("kind", [Classify, WithForward])
def test_a_task_runs_by_its_forward_or_by_its_loss(kind: type[Classify]) -> None:
    given = batch(2)
    if kind is WithForward:
        del given["y"]  # the example batch of a Spec holds no targets
    table = summarise(kind(Small()), given)
    assert [r.name for r in table] == ["model.conv", "model.norm", "model.drop", "model.head", "total"]
    assert table[0].multiply_adds == 3 * 8 * 9 * 64


def test_attention_inside_a_layer_is_counted() -> None:
    layer = nn.MultiheadAttention(8, 2, batch_first=True).train()
    x = torch.randn(3, 5, 8)
    total = summarise(layer, {"q": x, "k": x, "v": x})[-1].multiply_adds
    assert total == 5 * (4 * 8 * 8) + 2 * 5 * 5 * 8  # four projections, then scores and mixture


def test_shared_weights_count_once() -> None:
    tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    tied[1].weight = tied[0].weight
    table = summarise(tied, {"x": torch.zeros(2, 4)})
    assert [r.parameters for r in table] == [16, 0, 16]


def test_nothing_is_changed() -> None:
    task, given = Classify(Small()), batch()
    task.model.norm.eval()
    before = {n: t.clone() for n, t in task.state_dict().items()}
    modes = [m.training for m in task.modules()]
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    summarise(task, given)
    memory_estimate(task, given, {"model": Optim(torch.optim.Adam(task.parameters()))})
    assert torch.equal(torch.rand(3), expected)
    assert [m.training for m in task.modules()] == modes
    assert all(torch.equal(t, before[n]) for n, t in task.state_dict().items())
    assert not any(m._forward_hooks for m in task.modules())
    assert all(p.grad is None for p in task.parameters())


OPTIMIZERS = {
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.1),
    "momentum": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9),
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=0.1),
    "rmsprop": lambda ps: torch.optim.RMSprop(ps, lr=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_memory_equals_what_training_really_holds(name: str) -> None:
    task = Classify(Small())
    task.model.unused.requires_grad_(False)
    trained = [p for p in task.parameters() if p.requires_grad]
    optim = Optim(OPTIMIZERS[name](trained))
    got = memory_estimate(task, batch(8), {"model": optim}, ema=True)
    task.loss(batch(8), Ctx())[0].backward()
    optim.optimizer.step()
    states = (t for s in optim.optimizer.state.values() for t in s.values() if isinstance(t, Tensor) and t.dim())
    assert got["optimizer"] == sum(t.nbytes for t in states)
    assert got["weights"] == sum(t.nbytes for t in task.state_dict().values())
    assert got["gradients"] == sum(p.grad.nbytes for p in trained if p.grad is not None)
    assert got["average"] == sum(p.nbytes for p in task.parameters())
    assert got["batch"] == 8 * (3 * 64 * 4 + 8)
    assert got["total"] == sum(v for k, v in got.items() if k != "total")


def test_activations_by_hand_and_in_proportion_to_the_rows() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
    task, given = Classify(model), {"x": torch.randn(8, 16), "y": torch.zeros(8, dtype=torch.int64)}
    optims = {"model": Optim(torch.optim.SGD(model.parameters(), lr=0.1))}
    # kept: tanh's output (32 floats) and the log-probabilities (4 floats); a scalar for the mean
    got = memory_estimate(task, given, optims)["activations"]
    assert got == pytest.approx(8 * (32 + 4) * 4, abs=8)
    assert memory_estimate(task, given, optims, batch_rows=800)["activations"] == pytest.approx(800 * 36 * 4, abs=8)
