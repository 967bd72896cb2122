"""Classify, MultiLabel and Regress: accumulation is exact, evaluation equals scikit-learn's on everything at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import nn

from engram.core.batch import rows, split_rows
from engram.core.errors import DataError
from engram.core.task import Ctx
from engram.tasks import metrics
from engram.tasks.classify import Classify, two_logits
from engram.tasks.multilabel import MultiLabel
from engram.tasks.regress import Regress

torch.set_num_threads(1)
CTX = Ctx()


def net(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, outputs)).double()


def data(n: int = 23, classes: int = 3, kind: str = "classes", seed: int = 1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=g).double()
    if kind == "classes":
        return {"x": x, "y": torch.randint(classes, (n,), generator=g)}
    if kind == "labels":
        return {"x": x, "y": torch.randint(2, (n, classes), generator=g)}
    return {"x": x, "y": torch.randn(n, classes, generator=g).double()}


TASKS = {
    "classify": (lambda: Classify(net(3)), "classes"),
    "weighted": (lambda: Classify(net(3), class_weights=(0.2, 1.0, 5.0), label_smoothing=0.1), "classes"),
    "zero weight": (lambda: Classify(net(3), class_weights=(0.0, 1.0, 5.0), label_smoothing=0.1), "classes"),
    "multilabel": (lambda: MultiLabel(net(3), positive_weights=(1.0, 2.0, 3.0)), "labels"),
    "mse": (lambda: Regress(net(3)), "numbers"),
    "mae": (lambda: Regress(net(3), loss="mae"), "numbers"),
    "huber": (lambda: Regress(net(3), loss="huber"), "numbers"),
}


@pytest.mark.parametrize("pieces", [1, 2, 5, 23, 40])
@pytest.mark.parametrize("name", TASKS)
def test_weighted_pieces_give_the_gradient_of_the_whole(name, pieces):
    make, kind = TASKS[name]
    task, batch = make().double(), data(kind=kind)
    batch["y"] = batch["y"].sort(0).values if kind == "classes" else batch["y"]  # unlike class weights in every piece
    (phase,) = task.phases()
    phase.loss(batch, CTX)[0].backward()
    whole = [p.grad.clone() for p in task.parameters()]
    task.zero_grad()
    total = phase.weight(batch)
    parts = split_rows(batch, pieces)
    assert pieces == 1 or len({rows(p) for p in parts}) > 1 or pieces >= 23  # ragged
    for part in parts:
        (phase.loss(part, CTX)[0] * (phase.weight(part) / total)).backward()
    for a, p in zip(whole, task.parameters(), strict=True):
        torch.testing.assert_close(p.grad, a, rtol=1e-9, atol=1e-12)


def evaluated(task, batch, pieces: int = 4) -> dict[str, float]:
    task.eval()
    with torch.no_grad():
        return task.evaluate(split_rows(batch, pieces), CTX)


@pytest.mark.parametrize("pieces", [1, 4, 23])
def test_classify_evaluates_like_sklearn(pieces):
    task, batch = Classify(net(6)), data(classes=4)  # class 4 never occurs: it counts only where it is predicted
    task.model[-1].bias.data[4:] = torch.tensor([0.1, -9.0])  # class 5 is never predicted either
    assert set(task(batch).argmax(1).tolist()) > {4}
    y, p = batch["y"].numpy(), task(batch).detach().softmax(1).numpy()
    found = evaluated(task, batch, pieces)
    assert found["loss"] == pytest.approx(sk.log_loss(y, p, labels=range(6)), rel=1e-9)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, p.argmax(1)), rel=1e-9)
    assert found["macro_f1"] == pytest.approx(sk.f1_score(y, p.argmax(1), average="macro", zero_division=0), rel=1e-9)
    assert "roc_auc" not in found


def test_confusion_has_the_truth_in_rows():
    y, p = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 0, 0, 2])
    assert metrics.confusion(y, p, 4)[:3, :3].tolist() == sk.confusion_matrix(y, p).tolist()
    assert metrics.confusion(y, p, 4).shape == (4, 4)


def test_classify_weighs_the_evaluated_loss_as_in_training():
    task, batch = Classify(net(3), class_weights=(0.2, 1.0, 5.0)), data()
    p, w = task(batch).detach().softmax(1).numpy(), np.array([0.2, 1.0, 5.0])[batch["y"]]
    expected = sk.log_loss(batch["y"], p, sample_weight=w)
    assert evaluated(task, batch)["loss"] == pytest.approx(expected, rel=1e-6)  # the weights are float32


@pytest.mark.parametrize("one_logit", [False, True])
def test_two_classes_have_an_area_under_the_curve(one_logit):
    task, batch = Classify(net(1 if one_logit else 2), one_logit=one_logit), data(n=60, classes=2)
    batch["x"] = batch["x"].round()
    batch["x"][30:] = batch["x"][:30]  # ties
    p = task(batch).detach().softmax(1)[:, 1].numpy()
    found = evaluated(task, batch)
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(batch["y"], p), abs=1e-12)
    assert found["loss"] == pytest.approx(sk.log_loss(batch["y"], p), rel=1e-9)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(batch["y"], p > 0.5), rel=1e-9)


def test_one_class_alone_has_no_area():
    batch = data(classes=2)
    batch["y"][:] = 1
    assert "roc_auc" not in evaluated(Classify(net(2)), batch)


def test_one_logit_is_binary_cross_entropy():
    batch = data(classes=2)
    task = Classify(net(1), one_logit=True)
    expected = nn.functional.binary_cross_entropy_with_logits(task.model(batch["x"])[:, 0], batch["y"].double())
    torch.testing.assert_close(task.loss(batch, CTX)[0], expected)
    assert torch.equal(two_logits(torch.tensor([3.0])), torch.tensor([[0.0, 3.0]]))
    with pytest.raises(DataError, match="set one_logit=False"):
        Classify(net(2), one_logit=True).loss(batch, CTX)


@pytest.mark.parametrize("pieces", [1, 4])
def test_multilabel_evaluates_like_sklearn(pieces):
    task, batch = MultiLabel(net(4)), data(classes=4, kind="labels")
    batch["y"][:, 3] = 0
    task.model[-1].bias.data[3] = -9.0  # never occurs, never predicted
    y, logits = batch["y"].numpy(), task(batch).detach()
    chosen = (logits > 0).numpy()
    found = evaluated(task, batch, pieces)
    assert found["loss"] == pytest.approx(nn.functional.binary_cross_entropy(logits.sigmoid(), batch["y"].double()).item())
    assert found["exact_match"] == pytest.approx(sk.accuracy_score(y, chosen), rel=1e-6)
    assert found["label_accuracy"] == pytest.approx(1 - sk.hamming_loss(y, chosen), rel=1e-6)
    for average in ("micro", "macro"):
        assert found[f"{average}_f1"] == pytest.approx(sk.f1_score(y, chosen, average=average, zero_division=0), rel=1e-6)


@pytest.mark.parametrize("pieces", [1, 4, 23])
@pytest.mark.parametrize("outputs", [1, 3])
def test_regress_reports_the_targets_units(outputs, pieces):
    mean, std = [100.0, -5.0, 0.0][:outputs], [30.0, 0.1, 2.0][:outputs]
    task, batch = Regress(net(outputs), mean=mean, std=std), data(classes=outputs, kind="numbers")
    y, p = (task.in_units(v).detach().numpy() for v in (batch["y"], task(batch)))
    found = evaluated(task, batch, pieces)
    assert found["loss"] == pytest.approx(sk.mean_squared_error(batch["y"], task(batch).detach()), rel=1e-9)
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(y, p), rel=1e-6)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(y, p), rel=1e-6)
    assert found["r2"] == pytest.approx(sk.r2_score(y, p), rel=1e-9)


def test_regress_of_a_target_that_does_not_vary():
    task = Regress(nn.Linear(1, 1))
    with torch.no_grad():
        task.model.weight.zero_()
        task.model.bias.fill_(3.0)
    x, y = torch.randn(6, 1), torch.full((6, 1), 3.0)
    assert evaluated(task, {"x": x, "y": y})["r2"] == sk.r2_score(y, y) == 1.0
    assert evaluated(task, {"x": x, "y": y + 1})["r2"] == sk.r2_score(y + 1, y) == 0.0


@pytest.mark.parametrize("task", [Classify(net(2)), MultiLabel(net(2)), Regress(net(2))], ids=lambda t: type(t).__name__)
def test_nothing_to_evaluate_is_an_error(task):
    with pytest.raises(DataError, match="no rows"):
        task.evaluate([], CTX)


class TwoInputs(nn.Module):
    """(numeric, categorical), in this order."""

    def forward(self, numeric, categorical):
        return numeric.repeat(1, 3) + categorical


@pytest.mark.parametrize("cls", [Classify, MultiLabel, Regress])
def test_inputs_come_by_name_in_order(cls):
    batch = {"b": torch.ones(2, 1), "a": torch.full((2, 3), 5.0)}
    assert torch.equal(cls(TwoInputs(), ("b", "a")).forward(batch), torch.full((2, 3), 6.0))


@pytest.mark.parametrize("cls", [Classify, MultiLabel, Regress])
def test_batch_norm_forbids_micro_batches_with_a_reason(cls):
    (phase,) = cls(nn.Sequential(nn.Linear(5, 2), nn.BatchNorm1d(2))).phases()
    assert not phase.splits
    assert "batch normalisation" in phase.why_whole
    (phase,) = cls(nn.Linear(5, 2)).phases()
    assert phase.splits
    assert (phase.name, phase.key) == ("model", "model")


def test_weights_of_the_objective_are_not_saved_with_the_network():
    weighted = Classify(net(3), class_weights=(1, 2, 3)), MultiLabel(net(2), positive_weights=(1, 2))
    for task in (*weighted, Regress(net(1), mean=3, std=2)):
        assert all(name.startswith("model.") for name in task.state_dict())


def test_what_guessing_costs():
    torch.manual_seed(0)
    x, normal = torch.zeros(100_000, 1), torch.randn(100_000, 1)
    guess = nn.Linear(1, 1)
    nn.init.zeros_(guess.bias)
    for loss in ("mse", "mae", "huber"):
        task = Regress(guess, loss=loss)
        assert task.loss({"x": x, "y": normal}, CTX)[0].item() == pytest.approx(task.chance_loss(), rel=0.02)
    blank = nn.Linear(5, 3, bias=False)
    nn.init.zeros_(blank.weight)
    batch = {"x": torch.randn(7, 5), "y": torch.tensor([0, 1, 2, 0, 1, 2, 2])}
    for task in (Classify(blank), Classify(blank, class_weights=(1, 0, 7), label_smoothing=0.3)):
        assert task.loss(batch, CTX)[0].item() == pytest.approx(task.chance_loss()) == pytest.approx(math.log(3))
    assert Classify(net(1), one_logit=True).chance_loss() == pytest.approx(math.log(2))
    assert MultiLabel(net(2)).chance_loss() == pytest.approx(math.log(2))
    assert MultiLabel(net(2), positive_weights=(1, 2)).chance_loss() is None
