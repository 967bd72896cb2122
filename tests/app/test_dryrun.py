"""What would be trained, without training or writing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engram.app.cli.dry_run import in_words
from engram.app.dryrun import dry_run
from engram.core.errors import ConfigError, Diverged
from engram.recipes import find

TINY = {"widths": "4,8", "epochs": "2", "threads": "1", "precision": "fp32"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_facts_of_a_run(folder: Path):
    found = dry_run("cnn", TINY)
    json.dumps(found, allow_nan=False)
    assert list(folder.iterdir()) == []
    recipe = find("cnn")(widths=(4, 8))
    task = recipe.make_task(recipe.make_data().spec)
    count = sum(p.numel() for p in task.parameters())
    assert found["parameters"] == count == found["layers"][-1]["parameters"]
    assert found["data"]["rows"]["train"] == 1437
    assert (found["steps"], found["steps_per_epoch"], found["evaluations"]) == (46, 23, 2)
    assert set(found["changed"]) == {"widths", "epochs", "threads", "precision"}
    assert found["knobs"]["optim.lr"] == 0.002
    assert found["memory"]["gradients"] == 4 * count
    assert found["memory"]["optimizer"] == 8 * count  # two moments of float32
    assert found["machine"]["threads"] == 1


def test_the_time_adds_up():
    found = dry_run("cnn", TINY)
    seconds = found["seconds"]
    assert seconds["step"] > 0 and seconds["evaluation"] > 0  # noqa: PT018 (one fact: both were measured)
    assert seconds["total"] == pytest.approx(46 * seconds["step"] + 2 * seconds["evaluation"])


def test_micro_batches_need_less_memory():
    whole = dry_run("cnn", TINY | {"norm": "group"})["memory"]["activations"]
    half = dry_run("cnn", TINY | {"norm": "group", "accumulate": "2"})["memory"]["activations"]
    assert half == pytest.approx(whole / 2, rel=0.1)


def test_data_picks_the_network_and_the_reason_is_said():
    found = dry_run("iris", {"hidden": "8", "epochs": "1", "threads": "1"})
    assert found["recipe"] == "mlp"
    assert "training mlp" in found["why"][0]
    assert found["data"]["notes"]
    text = in_words(found)
    assert found["why"][0] in text
    assert "* data=iris" in text
    assert "* hidden=8" in text
    assert "  loss=mse" in text
    assert f"network   mlp, {found['parameters']:,} parameters" in text
    for note in found["data"]["notes"]:
        assert note["text"] in text


def test_the_columns_of_a_table_are_listed(folder: Path):
    lines = ["age;flat;" + ";".join(f"c{i}" for i in range(45)) + ";y"]
    for row in range(40):
        cells = [f"{(row * 7 + i) % 11}" for i in range(45)]
        lines.append(";".join([str(row) if row % 4 else "", "ab"[row % 3 > 0], *cells, ["no", "yes"][row % 2]]))
    (folder / "x.csv").write_text("\n".join(lines) + "\n")
    found = dry_run("mlp", {"data": "x.csv", "target": "y", "hidden": "8", "epochs": "1", "threads": "1"})
    json.dumps(found, allow_nan=False)
    assert found["data"]["facts"]["columns"][0] == {"name": "age", "kind": "number", "missing": 10, "distinct": 30}
    text = in_words(found)
    assert "format    CSV in utf-8, separated by semicolon\n" in text
    assert "column    age   number    10 missing, 30 different\n" in text
    assert "column    flat  category  none missing, 2 different\n" in text
    assert text.count("\ncolumn ") == 40
    assert "and 7 more columns\n" in text


def test_a_rate_that_diverges_at_once_is_said():
    with pytest.raises(Diverged, match=r"lower optim\.lr"):
        dry_run("iris", {"optim.name": "sgd", "optim.lr": "1e38", "clip": "0", "threads": "1"})


def test_errors_come_as_from_train():
    with pytest.raises(ConfigError, match=r"did you mean optim\.lr"):
        dry_run("cnn", {"lr": "1"})


def test_the_random_state_does_not_change_the_answer():
    torch.manual_seed(1)
    first = dry_run("cnn", TINY)
    torch.manual_seed(2)
    second = dry_run("cnn", TINY)
    for key in ("knobs", "data", "layers", "memory", "steps"):
        assert first[key] == second[key]
