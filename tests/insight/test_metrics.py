"""Figures against scikit-learn and scipy, and intervals against their meaning: how often they hold the true value."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from engram.insight.intervals import auc, median_interval, resampled_sums, wilson
from engram.insight.metrics import Tally, classification, regression


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def made(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    t = rng.choice(classes, rows, p=rng.dirichlet(np.ones(classes) * 5))
    t[:classes] = np.arange(classes)
    logits = rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[t]
    return softmax(logits).astype(np.float32), t


@pytest.mark.parametrize("classes", [2, 5])
def test_classification_equals_scikit_learn(classes: int) -> None:
    p, t = made(400, classes)
    guess, names = p.argmax(1), [f"c{i}" for i in range(classes)]
    got = classification(p, t, names)
    p64 = p.astype(np.float64)
    p64 /= p64.sum(1, keepdims=True)
    score = p64[:, 1] if classes == 2 else p64
    expected = {
        "accuracy": sk.accuracy_score(t, guess),
        "balanced_accuracy": sk.balanced_accuracy_score(t, guess),
        "macro_f1": sk.f1_score(t, guess, average="macro"),
        "roc_auc": sk.roc_auc_score(t, score, multi_class="ovr"),
    }
    for name, value in expected.items():
        assert got[name]["value"] == pytest.approx(value, abs=1e-6), name
    assert got["log_loss"] == pytest.approx(sk.log_loss(t, p64), rel=1e-5)
    assert got["brier"] == pytest.approx(sk.brier_score_loss(t, p64[:, 1] if classes == 2 else p64), rel=1e-5)
    assert got["confusion"] == sk.confusion_matrix(t, guess).tolist()
    precision, recall, f1, support = sk.precision_recall_fscore_support(t, guess)
    for i, row in enumerate(got["per_class"]):
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((precision[i], recall[i], f1[i]))
        assert (row["class"], row["support"]) == (f"c{i}", support[i])
    assert got["baseline_accuracy"] == np.bincount(t).max() / len(t)
    assert got["baseline_class"] == f"c{np.bincount(t).argmax()}"
    assert json.loads(json.dumps(got, allow_nan=False)) == got


def test_a_class_that_neither_occurs_nor_is_guessed_counts_nowhere() -> None:
    p = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    t = np.array([0, 1, 1])
    got = classification(p, t, ["a", "b", "never"])
    assert got["macro_f1"]["value"] == pytest.approx(sk.f1_score(t, p.argmax(1), average="macro"))
    assert got["per_class"][2] == {"class": "never", "precision": None, "recall": None, "f1": None, "support": 0}
    json.dumps(got, allow_nan=False)


def test_a_certain_and_wrong_row_has_a_finite_loss() -> None:
    got = classification(np.array([[1.0, 0.0]]), np.array([1]), ["a", "b"])
    assert got["log_loss"] == pytest.approx(-np.log(np.finfo(np.float32).eps))
    assert got["roc_auc"] is None
    assert got["accuracy"]["low"] == 0.0


def test_calibration_error_by_hand() -> None:
    # ten rows at 0.9 of which 6 are right, ten at 0.6 of which 6 are right: (0.3 * 10 + 0 * 10) / 20
    p = np.repeat([[0.9, 0.1], [0.6, 0.4]], 10, axis=0)
    t = np.array([0] * 6 + [1] * 4 + [0] * 6 + [1] * 4)
    got = classification(p, t, ["a", "b"])
    assert got["ece"] == pytest.approx(0.15)
    bins = [(b["rows"], round(b["confidence"], 6), b["accuracy"]) for b in got["reliability"]]
    assert bins == [(10, 0.6, 0.6), (10, 0.9, 0.6)]
    assert all(b["low"] < b["confidence"] <= b["high"] for b in got["reliability"])


def test_batches_add_up() -> None:
    p, t = made(300, 4)
    tally = Tally(["a", "b", "c", "d"])
    losses = np.concatenate([tally.add(p[i : i + 70], t[i : i + 70]) for i in range(0, 300, 70)])
    whole, parts = classification(p, t, "abcd"), tally.figures(p, t)
    assert parts["log_loss"] == pytest.approx(whole["log_loss"])
    assert losses.mean() == pytest.approx(whole["log_loss"])
    assert parts["confusion"] == whole["confusion"]
    assert parts["macro_f1"] == whole["macro_f1"]


@pytest.mark.parametrize(("right", "rows"), [(0, 10), (3, 10), (97, 100), (100, 100)])
def test_wilson_equals_scipy(right: int, rows: int) -> None:
    want = stats.binomtest(right, rows).proportion_ci(method="wilson")
    assert wilson(right, rows) == pytest.approx((want.low, want.high), abs=1e-12)


def test_macro_f1_interval_equals_resampling_rows() -> None:
    p, t = made(300, 3)
    guess, rng = p.argmax(1), np.random.default_rng(7)
    draws = [sk.f1_score(t[i], guess[i], average="macro") for i in rng.integers(300, size=(400, 300))]
    got = classification(p, t, "abc")["macro_f1"]
    assert (got["low"], got["high"]) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.015)


def test_auc_interval_holds_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    truth = stats.norm.cdf(1 / np.sqrt(2))  # positives one standard deviation higher
    held = 0
    for _ in range(300):
        positive = np.arange(120) < 50
        found = auc(rng.normal(size=120) + positive, positive)
        assert found is not None
        held += found[1] <= truth <= found[2]
    assert 0.90 <= held / 300 <= 0.985


def test_ties_count_half() -> None:
    scores, positive = np.array([0.5, 0.5, 0.5, 0.1]), np.array([True, False, True, False])
    found = auc(scores, positive)
    assert found is not None
    assert found[0] == sk.roc_auc_score(positive, scores) == 0.75


def test_regression_equals_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    t = rng.gamma(2, 100, 500)
    v = t + rng.normal(size=500) * 40 + 5
    got = regression(v, t)
    assert got["rmse"]["value"] == pytest.approx(sk.root_mean_squared_error(t, v))
    assert got["mae"]["value"] == pytest.approx(sk.mean_absolute_error(t, v))
    assert got["r2"]["value"] == pytest.approx(sk.r2_score(t, v))
    assert got["median_abs_error"]["value"] == pytest.approx(sk.median_absolute_error(t, v))
    assert got["baseline_rmse"] == pytest.approx(sk.root_mean_squared_error(t, np.full(500, t.mean())))
    assert got["bias"] == pytest.approx(np.mean(v - t))
    draws = [sk.root_mean_squared_error(t[i], v[i]) for i in rng.integers(500, size=(400, 500))]
    assert (got["rmse"]["low"], got["rmse"]["high"]) == pytest.approx(np.quantile(draws, [0.025, 0.975]), rel=0.03)
    json.dumps(got, allow_nan=False)


def test_regression_on_a_constant_and_on_one_row() -> None:
    assert regression([1.0, 2.0], [3.0, 3.0])["r2"] is None
    one = regression([1.0], [3.0])
    assert one["rmse"] == {"value": 2.0, "low": None, "high": None}
    json.dumps(one, allow_nan=False)


def test_resampling_groups_keeps_the_spread() -> None:
    x = np.random.default_rng(2).exponential(size=(50_000, 1))
    ((low, high),) = resampled_sums(np.concatenate([x, np.ones_like(x)], 1), lambda s: (s[:, 0] / s[:, 1])[None])
    half = 1.96 * x.std() / np.sqrt(len(x))
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    assert (high + low) / 2 == pytest.approx(x.mean(), abs=half)


@pytest.mark.parametrize("rows", [4001, 6000, 7999])
def test_resampling_groups_leaves_no_row_out(rows: int) -> None:
    x = np.random.default_rng(2).exponential(size=(rows, 1))
    columns = np.concatenate([x, np.ones_like(x)], 1)
    ((low, high),) = resampled_sums(columns, lambda s: (s[:, 0] / s[:, 1])[None], draws=4000)
    half = 1.96 * x.std() / np.sqrt(rows)
    assert (high - low) / 2 == pytest.approx(half, rel=0.06)
    assert (high + low) / 2 == pytest.approx(x.mean(), abs=0.1 * half)
    ((low, high),) = resampled_sums(columns, lambda s: s[:, 1][None])  # how many rows a draw has
    assert (low + high) / 2 == pytest.approx(rows, rel=0.01)


def test_median_interval_holds_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        low, high = median_interval(np.sort(rng.exponential(size=60)))
        held += low <= np.log(2) <= high
    assert 0.92 <= held / 400 <= 0.99


def test_the_same_rows_give_the_same_intervals() -> None:
    p, t = made(200, 3)
    assert classification(p, t, "abc") == classification(p, t, "abc")


def test_the_commonest_mistakes_come_first() -> None:
    p = np.eye(3)[[0, 1, 1, 2, 2, 2]]
    got = classification(p, np.array([0, 0, 0, 1, 2, 0]), ["a", "b", "c"])
    assert got["confused"][0] == {"true": "a", "predicted": "b", "rows": 2}
    assert sum(pair["rows"] for pair in got["confused"]) == 4
