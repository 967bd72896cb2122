"""Comparing runs: the tests against scipy, what counts as chance, and what cannot be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from engram.app.compare import _same_numbers, compare, differing, mcnemar, paired, rows_of, sign_test, write_comparison
from engram.checkpoint.files import write_json
from engram.checkpoint.folder import RunFolder
from engram.core.errors import ConfigError
from engram.core.snapshot import Snapshot

MakeRun = Callable[..., RunFolder]


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 5), (1, 9), (12, 3), (400, 460)])
def test_the_sign_test_equals_scipy(wins: int, losses: int) -> None:
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(wins, losses) == pytest.approx(expected, rel=1e-9)


def classes(right: np.ndarray) -> Snapshot:
    """Predictions of two classes that are right where `right` says so; class 0 is always true."""
    p = torch.tensor(np.where(right[:, None], [[0.8, 0.2]], [[0.3, 0.7]]))
    facts = {"kind": "classification", "sha256": "a", "split": "test", "classes": ["a", "b"]}
    return Snapshot({"probabilities": p, "targets": torch.zeros(len(right), dtype=torch.int64)}, facts)


def test_mcnemar_counts_the_rows_that_one_run_alone_has_right() -> None:
    a, b = np.ones(40, bool), np.ones(40, bool)
    a[:2], b[2:12] = False, False
    got = mcnemar(classes(a), classes(b))
    assert (got["only_a_right"], got["only_b_right"], got["rows"]) == (10, 2, 40)
    assert got["p"] == pytest.approx(stats.binomtest(2, 12).pvalue)
    assert got["difference"]["value"] == pytest.approx(8 / 40)
    assert 0 < got["difference"]["low"] < 0.2 < got["difference"]["high"] < 0.4


def numbers(error: np.ndarray) -> Snapshot:
    return Snapshot({"values": torch.tensor(error), "targets": torch.zeros(len(error))}, {"kind": "regression"})


def test_the_paired_bootstrap_finds_a_difference_and_no_difference() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=400)
    worse = paired(numbers(base * 1.2), numbers(base))
    assert worse["difference"]["value"] == pytest.approx(0.2 * np.sqrt((base**2).mean()))
    assert worse["p"] < 0.01
    assert 0 < worse["difference"]["low"] < worse["difference"]["value"] < worse["difference"]["high"]
    ps = [paired(numbers(rng.normal(size=200)), numbers(rng.normal(size=200)))["p"] for _ in range(60)]
    assert np.mean(np.asarray(ps) < 0.05) < 0.15
    assert np.mean(ps) == pytest.approx(0.5, abs=0.15)
    assert paired(numbers(base), numbers(base))["p"] == 1.0


def test_a_better_run_is_said_to_be_better(make_run: MakeRun) -> None:
    good = make_run("good", noise=0.1, rows=200, knobs={"optim": {"lr": 0.1}})
    bad = make_run("bad", noise=3.0, rows=200)
    got = compare([bad, good])
    said = r"good is better than bad by \d+\.\d points of accuracy, more than chance explains \(p < 0.001;"
    assert re.match(said, got["sentence"])
    assert got["knobs"] == {"optim.lr": [0.01, 0.1]}
    assert got["runs"][0]["metrics"]["accuracy"] == bad.read_result()["metrics"]["accuracy"]
    assert [r["parameters"] for r in got["runs"]] == [1234, 1234]
    json.dumps(got, allow_nan=False)
    head, rows = rows_of(got)
    assert head == ["", "bad", "good"]
    assert ["optim.lr", "0.01", "0.1"] in rows
    accuracy = next(r for r in rows if r[0] == "accuracy")
    assert accuracy[2].startswith("100 % (")


def test_equal_and_nearly_equal_runs_are_not_called_different(make_run: MakeRun) -> None:
    a, same, near = make_run("a"), make_run("same"), make_run("near", seed=5)
    assert "a and same are equally good" in compare([a, same])["sentence"]
    assert "may be chance" in compare([a, near])["sentence"]


def test_many_pairs_need_a_smaller_p(make_run: MakeRun) -> None:
    runs = [make_run(f"r{i}", seed=i) for i in range(3)]
    found = compare(runs)
    assert len(found["pairs"]) == 3
    assert all("for 3 pairs" in p["sentence"] for p in found["pairs"] if p["p"] < 1)


def test_targets_are_the_same_or_another_split() -> None:
    t = 1.7e9 + 100 * np.random.default_rng(0).normal(size=500)
    assert _same_numbers(t, t + 1e-4)
    assert _same_numbers(t, t.astype(np.float32))  # a run of an older version
    assert not _same_numbers(t, t[::-1])
    assert not _same_numbers(t.astype(np.float32), t.astype(np.float32)[::-1])


def test_regression_is_compared_by_its_error(make_run: MakeRun) -> None:
    good, bad = make_run("good", kind="regression", noise=0.5), make_run("bad", kind="regression", noise=2.0, seed=1)
    got = compare([good, bad])
    assert got["sentence"].startswith("good is better than bad by ")
    assert got["pairs"][0]["difference"]["value"] < 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": "regression"}, "one predicts classes and the other numbers"),
        ({"sha256": "cd" * 32}, "measured on different data"),
        ({"rows": 50}, "measured on different rows"),
        ({"classes": ("x", "y", "z")}, "different targets"),
        ({"finished": False}, "is missing"),
    ],
)
def test_what_cannot_be_compared_row_by_row_is_said(make_run: MakeRun, change: dict[str, object], why: str) -> None:
    got = compare([make_run("a"), make_run("b", **change)])
    assert why in got["sentence"]
    assert got["pairs"][0]["p"] is None
    rows_of(got)


def test_runs_with_figures_of_their_own_say_so(make_run: MakeRun) -> None:
    folders = [make_run("a"), make_run("b")]
    figure = {"value": 1.0, "low": 0.5, "high": 1.5}
    for folder in folders:
        folder.predictions.unlink()
        write_json(folder.result, folder.read_result() | {"kind": "scores", "metrics": {"bits": figure}})
    got = compare(folders)
    assert "keep no prediction of every row" in got["sentence"]
    assert "missing" not in got["sentence"]


def test_one_run_is_not_enough(make_run: MakeRun) -> None:
    with pytest.raises(ConfigError, match="two runs"):
        compare([make_run()])


def test_knobs_of_different_recipes(make_run: MakeRun) -> None:
    assert differing([make_run(knobs={"depth": 3}), make_run()]) == {"depth": [3, None]}


def test_the_page_is_self_contained(make_run: MakeRun, tmp_path: Path) -> None:
    path = write_comparison([make_run("a"), make_run("<b>", noise=3.0)], tmp_path / "side.html")
    text = path.read_text("utf-8")
    assert text.count("<svg") == 2
    assert "<b>" not in text.partition("<body>")[2]
    assert not re.search(r'(src|href)="(?!#|data:)', text)
