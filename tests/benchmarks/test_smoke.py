"""The benchmarks' own contenders run, reach the same accuracy, and the numbers are put together rightly."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch

from benchmarks.harness import Contender, Worker
from benchmarks.loops import Contestant, Hand
from benchmarks.ours import Engram, EngramDefault, Workbench, arrays
from benchmarks.show import cells, duration, summarise
from benchmarks.table import insert
from benchmarks.training import ABOUT, CLASSES, contenders, contestant
from benchmarks.workloads import workload


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("work", list(ABOUT))
@pytest.mark.parametrize("name", ["hand", "engram"])
def test_contenders_train(work: str, name: str) -> None:
    made = contestant(work, name, True, 1)
    hello, reply = made.hello(), made.run(0)
    assert hello["threads"] == 1
    assert hello["precision"] == "fp32"
    assert reply["units"] == 8
    assert reply["seconds"] > 0
    assert reply["cpu"] >= 0
    floor = {"mlp": 0.9, "cnn": 0.05, "table": 0.45}[work]  # eight steps: the MLP has learned by then
    assert reply["figures"]["accuracy"] > floor


def test_engram_makes_as_many_steps_as_hand_on_the_same_network() -> None:
    for work in map(lambda name: workload(name, True), ABOUT):
        data = arrays(work)
        assert data.steps_per_epoch == work.steps
        batch = next(data.batches("train"))
        assert len(batch["x"]) == work.batch
    mlp = workload("mlp", True)
    ours = Workbench(quick=True).make_task(arrays(mlp).spec)
    sizes = [tuple(p.shape) for p in ours.parameters()]
    assert sizes == [tuple(p.shape) for p in mlp.network().parameters()]


def test_default_says_what_it_chose() -> None:
    reply = EngramDefault(workload("table", True), 0).run(0)
    assert reply["chosen"]["precision"] == "fp32"  # layers this narrow
    assert reply["chosen"]["threads"] >= 1


def test_engram_refuses_to_be_timed_without_its_saved_state(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Engram(workload("table", True), 1)
    monkeypatch.setattr(type(made.work), "steps", 9)  # the shared workload is left alone
    with pytest.raises(RuntimeError, match="saved state is of step 8"):
        made.run(0)


def test_every_contender_has_a_class_and_the_cnn_leaves_sklearn_out() -> None:
    assert {c.name for c in contenders("mlp", True, 1)} == set(CLASSES)
    assert {c.name for c in contenders("cnn", True, 1)} == set(CLASSES) - {"sklearn"}
    assert issubclass(Hand, Contestant)


def _round(seconds: float, accuracy: float) -> dict:
    return {"seconds": seconds, "cpu": seconds, "foreign": 0.01, "units": 10, "figures": {"accuracy": accuracy}}


def test_ratios_are_taken_round_by_round() -> None:
    theirs = [_round(1.0, 0.5), _round(10.0, 0.5), _round(1.0, 0.5)]  # the machine was slow in the second round
    mine = [_round(0.5, 0.5), _round(5.0, 0.7), _round(0.6, 0.6)]
    found = summarise(mine, theirs)
    assert found["ratio"] == pytest.approx(0.5)
    assert found["ratio_best"] == pytest.approx(0.5)
    assert found["median"] == pytest.approx(0.06)
    assert (found["best"], found["worst"]) == pytest.approx((0.05, 0.5))
    assert found["figures"]["accuracy"]["mean"] == pytest.approx(0.6)
    assert found["figures"]["accuracy"]["spread"] == pytest.approx(0.1)
    row = {"name": "mine", "rounds": mine, "summary": found, "first": _round(3.0, 0.1)}
    assert cells(row)[:5] == ("mine", "60 ms", "50 ms..500 ms", "0.50", "0.50")
    assert cells({"name": "broken", "summary": {}})[:2] == ("broken", "failed")


def test_durations_have_units() -> None:
    assert [duration(s) for s in (2.0, 0.0123, 0.0000456)] == ["2 s", "12.3 ms", "45.6 us"]


def test_the_driver_reports_a_worker_that_fails_or_dies() -> None:
    code = "from benchmarks.worker import serve; serve(lambda q: {'got': 1 / q['n'] if q['n'] < 9 else exit(3)})"
    worker = Worker(Contender("x", ("-c", code)), {"PYTHONPATH": ":".join(p for p in sys.path if p) or "."})
    try:
        assert worker.ask({"n": 2}) == {"got": 0.5}
        assert "ZeroDivisionError" in worker.ask({"n": 0})["error"]
        assert "ended with 3" in worker.ask({"n": 9})["error"]
    finally:
        worker.close()


def test_results_go_between_the_markers() -> None:
    page = "a\n<!-- results -->\nold\n<!-- /results -->\nb\n"
    assert insert(page, "new") == "a\n<!-- results -->\n\nnew\n\n<!-- /results -->\nb\n"
    with pytest.raises(ValueError, match="no <!-- results"):
        insert("a", "new")
