"""The threshold is the best of all, and what the task reports is what the predictor does with it."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.errors import DataError
from engram.core.task import Ctx
from engram.inference.intent import IntentClassifier
from engram.tasks.open_set import OpenSet, best_threshold


class Given(nn.Module):
    """Logits are the input, times one."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.one


class NoSpec:
    def encode(self, raw: Tensor) -> Batch:
        return {"x": raw}


def batches(rows: int = 90, outside: bool = True) -> list[Batch]:
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 4 if outside else 3, (rows,), generator=g)
    x = torch.randn(rows, 3, generator=g)
    inside = y < 3
    x[inside, y[inside]] += 1.5
    return [{"x": x[i : i + 25], "y": y[i : i + 25]} for i in range(0, rows, 25)]


def right(best: Tensor, correct: Tensor, outside: Tensor, threshold: float) -> int:
    kept = best >= threshold
    return int((kept & correct & ~outside).sum() + (~kept & outside).sum())


@pytest.mark.parametrize("seed", range(20))
def test_the_threshold_is_the_best_of_all(seed: int) -> None:
    """Against trying every one, ties included."""
    g = torch.Generator().manual_seed(seed)
    best = (torch.rand(30, generator=g) * 8).round() / 8 if seed % 2 else torch.rand(30, generator=g)
    correct, outside = torch.rand(30, generator=g) < 0.7, torch.rand(30, generator=g) < 0.3
    tried = max(right(best, correct, outside, t) for t in [0.0, 2.0, *(best + 1e-5).tolist()])
    assert right(best, correct, outside, best_threshold(best, correct, outside)) == tried


def test_without_rows_outside_few_are_refused() -> None:
    best = torch.linspace(0, 1, 101)
    none = torch.zeros(101, dtype=torch.bool)
    assert best_threshold(best, ~none, none) == pytest.approx(0.05)


def test_evaluation_equals_the_predictor() -> None:
    task = OpenSet(Given(), ("x",), 3)
    found = task.evaluate(batches(), Ctx())
    predictor = IntentClassifier(task.model, NoSpec(), ("a", "b", "c", "oos"), ("x",), task.threshold)  # type: ignore[arg-type]
    outputs = [predictor.outputs(b) for b in batches()]
    p, y = torch.cat([o["probabilities"] for o in outputs]), torch.cat([o["targets"] for o in outputs])
    torch.testing.assert_close(p.sum(1), torch.ones(len(p)))
    assert found["accuracy"] == pytest.approx(float((p.argmax(1) == y).double().mean()))
    scores = predictor.scores(batches(), ())
    assert scores is not None
    values = {n: float(f.statistic(scores.parts.sum(0, keepdim=True))) for n, f in scores.figures.items()}
    assert values["out_of_scope_recall"] == pytest.approx(found["out_of_scope_recall"])
    assert values["closed_accuracy"] == pytest.approx(found["in_scope_accuracy"])
    inside = y < 3
    assert values["in_scope_accuracy"] == pytest.approx(float((p.argmax(1) == y)[inside].double().mean()))
    assert 0 < values["in_scope_accuracy"] < values["closed_accuracy"]
    x = torch.cat([b["x"] for b in batches()])
    said = predictor(input=x)
    refused = x.softmax(1).max(1).values < task.threshold
    assert [label == "oos" for label in said["label"]] == refused.tolist()
    assert said["out_of_scope"] == pytest.approx(p[:, 3].tolist())


def test_the_loss_is_that_of_the_rows_in_scope() -> None:
    task = OpenSet(Given(), ("x",), 3)
    x, y = (torch.cat([b[n] for b in batches()]) for n in "xy")
    expected = nn.functional.cross_entropy(x[y < 3], y[y < 3])
    assert task.evaluate(batches(), Ctx())["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_the_threshold_is_saved_with_the_weights() -> None:
    task, other = OpenSet(Given(), ("x",), 3), OpenSet(Given(), ("x",), 3)
    task.evaluate(batches(), Ctx())
    assert 0 < float(task.threshold) < 1
    other.load_state_dict(task.state_dict())
    assert other.threshold == task.threshold
    assert [n for n, _ in task.named_parameters()] == ["model.one"]


def test_nothing_in_scope_is_refused() -> None:
    task = OpenSet(Given(), ("x",), 3)
    for none in ([], [{"x": torch.zeros(2, 3), "y": torch.tensor([3, 3])}]):
        with pytest.raises(DataError, match="no rows of a class"):
            task.evaluate(none, Ctx())


def test_trained_as_a_class_it_is_one() -> None:
    predictor = IntentClassifier(Given(), NoSpec(), ("a", "b", "oos"), ("x",))  # type: ignore[arg-type]
    x = torch.tensor([[0.0, 0, 3], [3, 0, 0]])
    assert predictor(input=x)["label"] == ["oos", "a"]
    assert len(list(itertools.chain(*predictor.outputs({"x": x})["probabilities"]))) == 6


def test_rows_of_equal_probability_go_together() -> None:
    """Refusing only the first two rows at 0.7 would be best of all, and no threshold can do that."""
    best = torch.tensor([0.2, 0.2, 0.5, 0.7, 0.7, 0.7, 0.7])
    outside = torch.tensor([True, True, False, True, True, False, False])
    assert best_threshold(best, ~outside, outside) == pytest.approx(0.35)
