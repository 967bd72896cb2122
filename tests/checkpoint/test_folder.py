"""The run folder: made once, opened at any time, and refused in words when it cannot be."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
import torch

from engram.checkpoint import folder as module
from engram.checkpoint.files import write_tensors
from engram.checkpoint.folder import FORMAT, RunFolder
from engram.core.errors import ConfigError, RunError
from engram.core.snapshot import Snapshot


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(path: str = "runs/a-001") -> RunFolder:
    run = RunFolder.create(path, "a")
    run.write_info({"recipe": "mlp", "knobs": {"optim.lr": 0.1}})
    return run


def refused(path: str | Path, match: str) -> None:
    with pytest.raises(RunError, match=match) as caught:
        RunFolder.open(path)
    assert "\n" not in str(caught.value)


def test_made_and_opened():
    made("deep/er/run")
    run = RunFolder.open(Path("deep/er/run"))
    assert run.info() == {"format": FORMAT, "recipe": "mlp", "knobs": {"optim.lr": 0.1}}
    assert run.read_metrics() == []
    assert run.read_result() == {}


def test_numbers_are_free_and_names_are_plain():
    assert str(RunFolder.create(None, "mlp-iris").path) == "runs/mlp-iris-001"
    os.mkdir("runs/mlp-iris-003")
    assert [RunFolder.create(None, "mlp-iris").path.name for _ in range(2)] == ["mlp-iris-002", "mlp-iris-004"]
    assert RunFolder.create(None, "../my data/x.csv").path.parent == Path("runs")
    assert RunFolder.create(None, "///").path.name == "run-001"


def test_runs_started_together_do_not_share_a_folder():
    together, got = threading.Barrier(8), []

    def start() -> None:
        together.wait()
        got.append(RunFolder.create(None, "a").path.name)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(got) == [f"a-{n:03d}" for n in range(1, 9)]


def test_a_folder_with_a_run_is_not_overwritten():
    made("here")
    with pytest.raises(ConfigError, match=r"here already holds a run; `engram resume here` goes on with it"):
        RunFolder.create("here", "a")
    os.mkdir("empty")
    RunFolder.create("empty", "a")


def test_no_write_permission(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.os, "access", lambda path, mode: False)
    with pytest.raises(
        RunError, match=r"cannot make the run folder here: no write permission; choose another folder with --out"
    ):
        RunFolder.create("here", "a")


def test_a_folder_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch):
    Path("file").write_text("x")
    for path in ("file", "file/below"):
        with pytest.raises(RunError, match="cannot make the run folder file") as caught:
            RunFolder.create(path, "a")
        assert "\n" not in str(caught.value)

    def denied(*args: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module.Path, "mkdir", denied)
    with pytest.raises(RunError, match="cannot make the run folder runs/a: no write permission"):
        RunFolder.create(None, "a")


def test_no_run_there():
    refused("runs/nothing", r"no run at runs/nothing; `engram train` makes one")
    made("runs/a-001")
    refused("runs/nothing", r"no run at runs/nothing; the newest run is runs/a-001")


def test_a_folder_without_run_json():
    os.mkdir("photos")
    refused("photos", "photos is not a run folder: it has no run.json")


DAMAGED = ["", "{", "[]", "3", "{}", '{"format": 1}', '{"format": "1", "recipe": "mlp"}', '{"recipe": "mlp"}']


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_run_json(text: str):
    run = made()
    run.run_json.write_text(text)
    refused(run.path, r"run\.json is damaged")


def test_a_newer_format_is_refused_before_its_keys_are_read():
    run = made()
    for info in ({"format": FORMAT + 1, "versions": {"engram": "9.0"}}, {"format": FORMAT + 1, "recipe": "mlp", "versions": 3}):
        run.run_json.write_text(json.dumps(info))
        refused(run.path, r"was made by a newer Engram \((9\.0|\?)\): upgrade to open it")


def test_weights_are_the_chosen_ones_or_the_last():
    run = made()
    with pytest.raises(RunError, match="no saved state yet"):
        run.read_state()
    with pytest.raises(RunError, match="nothing was saved there yet"):
        run.read_weights()
    write_tensors(run.state, Snapshot({"task/w": torch.ones(2)}, {"at": {"step": 5}}))
    assert run.read_weights().facts == run.read_state().facts == {"at": {"step": 5}}
    run.write_weights(Snapshot({"task/w": torch.zeros(2)}, {"at": {"step": 3}}))
    assert run.read_weights().facts["at"]["step"] == 3
    assert run.read_state().facts["at"]["step"] == 5


def test_records_go_to_the_folder():
    run = made()
    log = run.log()
    log.write("step", 1, loss=0.5)
    log.close()
    assert run.read_metrics() == [{"kind": "step", "step": 1, "loss": 0.5}]
    run.result.write_text('{"accuracy": 0.9}')
    assert run.read_result() == {"accuracy": 0.9}


def test_info_is_strict_json():
    run = made()
    run.write_info({"recipe": "mlp", "best": float("nan")})
    assert json.loads(run.run_json.read_text(), parse_constant=lambda word: pytest.fail(word))["best"] is None
