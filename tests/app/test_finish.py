"""The end of a run: the test split is read once, every file is written, and the verdict says no more than the figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import engram
from engram.app import collect as collecting
from engram.app.collect import Collector, collect
from engram.app.finish import chosen_step, finish, losses_at, measure, training_seconds, write_samples
from engram.app.train import Job, make_recipe, prepare, run_job, weights_of, write_start
from engram.app.verdict import number, percent, verdict
from engram.app.views import read_views
from engram.checkpoint.files import read_tensors, write_tensors
from engram.checkpoint.folder import RunFolder
from engram.core.errors import ConfigError, DataError
from engram.core.predictor import View
from engram.inference.classify import Classifier
from engram.inference.regress import Regressor
from engram.insight.metrics import classification, regression

NAMES = ("a", "b", "c")


def probabilities(rows: int, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    t = rng.integers(classes, size=rows)
    p = rng.dirichlet(np.ones(classes), rows) + 0.4 * np.eye(classes)[t]
    return torch.tensor(p / p.sum(1, keepdims=True)).float(), torch.tensor(t)


def collected(p: Tensor, t: Tensor, size: int) -> Collector:
    found = Collector(NAMES)
    for i in range(0, len(t), size):
        found.add({"probabilities": p[i : i + size], "targets": t[i : i + size]})
    return found


@pytest.mark.parametrize("size", [7, 100, 1000])
def test_batches_of_any_size_give_the_same_figures_rows_and_examples(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(collecting, "KEEP", 1000)  # the least that is kept
    p, t = probabilities(3000)
    whole, found = collected(p, t, 3000), collected(p, t, size)
    exact = classification(p, t, NAMES)
    got = found.metrics()
    assert got["rows"] == 3000
    assert got["confusion"] == exact["confusion"]
    assert got["log_loss"] == pytest.approx(exact["log_loss"])
    kept = found.snapshot({}).tensors
    assert len(kept["rows"]) == 1000
    assert torch.equal(kept["rows"], whole.snapshot({}).tensors["rows"])
    assert torch.equal(kept["targets"], t[kept["rows"]])
    assert torch.equal(kept["probabilities"], p[kept["rows"]])
    assert found.random() == whole.random()
    assert found.worst() == whole.worst()


def test_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "KEEP", 1000)
    found = Collector(NAMES)
    for seed in range(50):
        p, t = probabilities(200, seed=seed)
        found.add({"probabilities": p, "targets": t})
        assert sum(len(part["rows"]) for part in found._kept) <= 2200
    assert found.metrics()["rows"] == 10_000


def test_the_worst_are_the_mistakes_of_highest_loss() -> None:
    p, t = probabilities(500)
    worst = collected(p, t, 64).worst()
    loss = -p[torch.arange(500), t].double().log()
    wrong = p.argmax(1) != t
    order = loss.masked_fill(~wrong, -1).argsort(descending=True)[:16].tolist()
    assert [e.row for e in worst] == order
    assert worst[0].target == NAMES[t[order[0]]]
    assert worst[0].prediction == NAMES[p[order[0]].argmax()]
    assert worst[0].probability == pytest.approx(float(p[order[0]].max()))
    assert all(e.prediction != e.target for e in worst)


def test_numbers_are_collected_in_their_units() -> None:
    rng = np.random.default_rng(0)
    t = torch.tensor(rng.normal(size=90) * 50 + 300)
    v = t + torch.tensor(rng.normal(size=90))
    found = Collector(())
    for i in range(0, 90, 40):
        found.add({"values": v[i : i + 40].float(), "targets": t[i : i + 40].float()})
    assert found.metrics()["rmse"]["value"] == pytest.approx(regression(v, t)["rmse"]["value"], rel=1e-3)
    assert found.worst()[0].row == int((v - t).abs().argmax())
    assert found.snapshot({}).tensors["values"].tolist() == pytest.approx(v.tolist())


def test_numbers_far_from_zero_keep_their_spread(tmp_path: Path) -> None:
    """Seconds since 1970, of which float32 has one in 128."""
    rng = np.random.default_rng(0)
    z = torch.tensor(rng.normal(size=(300, 1)))
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(0.9), model.bias.zero_()
    predictor = Regressor(model, None, 1.7e9, 100.0)  # type: ignore[arg-type]
    found = collect(predictor, [{"x": part.float(), "y": part.float()} for part in z.split(64)])
    metrics = found.metrics()
    assert metrics["rmse"]["value"] == pytest.approx(10 * float(z.square().mean().sqrt()), rel=1e-5)
    assert metrics["r2"]["value"] == pytest.approx(1 - float(z.square().mean()) / 100 / float(z.var(correction=0)), rel=1e-5)
    write_tensors(tmp_path / "p.safetensors", found.snapshot({}))
    kept = read_tensors(tmp_path / "p.safetensors").tensors
    assert (kept["values"] - kept["targets"]).tolist() == pytest.approx((-10 * z[:, 0]).tolist(), abs=1e-4)


def test_outputs_without_figures() -> None:
    found = Collector(())
    found.add({"images": torch.zeros(2, 3)})
    found.add({"probabilities": torch.zeros(2, 3), "targets": torch.zeros(2, 3)})  # several labels per row
    assert (found.kind, found.rows, found.metrics()) == ("none", 0, {})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, RunFolder, dict[str, Any], list[str]]:
    """A tiny real run, measured once; and the splits that the measuring read."""
    name, recipe = make_recipe("mlp", {"data": "iris", "epochs": 3, "threads": 1, "device": "cpu", "compile": "off"})
    job = prepare(name, recipe)
    folder = RunFolder.create(tmp_path_factory.mktemp("finish") / "run", name)
    write_start(job, folder, ["engram", "train", "mlp"])
    run_job(job, folder, lambda event, job: None)
    job.task.load_state_dict(weights_of(folder.read_weights()))
    job.task.eval()
    asked: list[str] = []
    batches = job.data.batches

    def noted(split: str, *args: Any) -> Iterator[Any]:
        asked.append(split)
        return batches(split, *args)

    job.data.batches = noted  # type: ignore[method-assign]
    result = finish(job, folder, recipe.make_predictor(job.task, job.data.spec))
    return job, folder, result, asked


def test_finish_reads_the_test_split_once_and_writes_everything(finished: Any) -> None:
    job, folder, result, asked = finished
    assert asked == ["test"]
    assert result == folder.read_result()
    assert (result["kind"], result["split"], result["rows"]) == ("classification", "test", job.data.size("test"))
    saved = read_tensors(folder.predictions)
    right = (saved.tensors["probabilities"].argmax(1) == saved.tensors["targets"]).double().mean()
    assert result["metrics"]["accuracy"]["value"] == pytest.approx(float(right))
    assert saved.facts["classes"] == list(job.data.spec.classes)
    assert saved.facts["sha256"] == job.data.summary.sha256
    samples = json.loads((folder.path / "samples" / "examples.json").read_text())
    assert len(samples["random"]) == min(16, result["rows"])
    entry = samples["random"][0]
    (raw,) = job.data.raw("test", [entry["row"]])
    assert entry["input"] == pytest.approx(dict(raw))
    assert entry["target"] == job.data.spec.classes[saved.tensors["targets"][entry["row"]]]
    layers = json.loads((folder.path / "layers.json").read_text())
    assert layers[-1]["parameters"] == sum(p.numel() for p in job.task.parameters())
    best = [r for r in folder.read_metrics() if r["kind"] == "eval" and r["best"]][-1]
    assert result["chosen"]["step"] == best["step"]
    assert result["chosen"]["value"] == best["metrics"][job.plan.watch]


def test_finish_falls_back_to_the_validation_split_and_says_so(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    job, folder, _, asked = finished
    asked.clear()
    kept = job.data.splits
    monkeypatch.setattr(job.data, "splits", {name: batch for name, batch in kept.items() if name != "test"})
    result = finish(job, folder, job.recipe.make_predictor(job.task, job.data.spec))
    assert asked == ["val"]
    assert result["split"] == "val"
    assert "there are no test rows" in result["verdict"]


def test_labelled_data_of_the_users_own(finished: Any) -> None:
    job, _, result, _ = finished
    predictor = job.recipe.make_predictor(job.task, job.data.spec)
    got = measure(predictor, lambda: job.data.batches("test"), list, job.data.spec)
    assert got["metrics"]["accuracy"] == result["metrics"]["accuracy"]
    assert "unseen" not in got["verdict"]
    with pytest.raises(DataError, match="no labelled rows"):
        measure(predictor, list, list, job.data.spec)


class Pictures:
    def raw(self, split: str, rows: list[int]) -> list[Any]:
        return [Image.new("RGB", (1024, 256), (row, 0, 0)) if row else Image.new("P", (5, 5)) for row in rows]

    def names(self, split: str, rows: list[int]) -> list[str]:
        return [f"{row}.jpg" for row in rows]


def test_pictures_are_written_as_png(tmp_path: Path) -> None:
    p, t = probabilities(20)
    found = collected(p, t, 20)
    data: Any = Pictures()
    write_samples(tmp_path / "s", data, "test", found.random(), found.worst())
    said = json.loads((tmp_path / "s" / "examples.json").read_text())
    for entry in (*said["random"], *said["worst"]):
        assert entry["name"] == f"{entry['row']}.jpg"
        with Image.open(tmp_path / "s" / entry["picture"]) as picture:
            assert picture.format == "PNG"
            assert picture.size == ((512, 128) if entry["row"] else (5, 5))


def say(p: Any, t: Any, names: tuple[str, ...] = NAMES, split: str = "test", losses: Any = None) -> str:
    result = {"kind": "classification", "split": split, "rows": len(t), "metrics": classification(p, t, names)}
    return verdict(result, losses)


def test_the_verdict_on_classes() -> None:
    p, t = probabilities(300)
    expected = "Right on 65.7 % of 300 unseen rows (95 % interval 60.1 to 70.8 %); always guessing 'c' is right on 38.3 %."
    assert say(p, t) == expected
    rng = np.random.default_rng(0)
    blind, target = rng.dirichlet(np.ones(3), 300), rng.choice(3, 300, p=[0.4, 0.3, 0.3])
    assert "worse than always guessing 'a'" in say(blind, target)
    assert "learned nothing measurable" in say(blind, target)
    always = np.tile([0.5, 0.25, 0.25], (300, 1))
    assert "may match: it learned nothing measurable." in say(always, target)


def test_the_verdict_on_a_rare_class_looks_beyond_accuracy() -> None:
    rng = np.random.default_rng(1)
    t = (rng.random(400) < 0.1).astype(int)
    score = np.clip(0.1 + 0.2 * t + 0.1 * rng.normal(size=400), 0.01, 0.45)
    text = say(np.stack([1 - score, score], 1), t, ("no", "yes"))
    assert "tell the classes apart, though (ROC-AUC 0." in text


def test_the_verdict_on_numbers() -> None:
    rng = np.random.default_rng(2)
    t = rng.normal(size=200) * 1000

    def told(v: Any) -> str:
        return verdict({"kind": "regression", "split": "test", "rows": 200, "metrics": regression(v, t)})

    assert "of the variance" in told(t + rng.normal(size=200) * 100)
    assert "learned nothing measurable" in told(np.full(200, t.mean()))
    assert "which is better: it learned nothing useful" in told(t + rng.normal(size=200) * 3000)
    assert "not measured" in verdict({"kind": "none", "split": "test", "rows": 0, "metrics": {}})


def test_overfitting_is_said_when_the_gap_is_wide() -> None:
    p, t = probabilities(100)
    assert "It overfits: loss 0.02 on the training rows, 0.9 on others." in say(p, t, losses=(0.02, 0.9))
    assert "overfits" not in say(p, t, losses=(0.01, 0.05))
    assert "overfits" not in say(p, t, losses=(0.6, 0.9))
    assert "overfits" not in say(p, t)


def test_records_give_the_chosen_step_losses_and_seconds() -> None:
    records: list[dict[str, Any]] = [
        {"kind": "step", "step": 5, "seconds": 1.0, "model/loss": 2.0, "model/lr": 0.1},
        {"kind": "eval", "step": 10, "seconds": 2.0, "best": True, "metrics": {"loss": 1.5, "accuracy": 0.6}},
        {"kind": "resume", "step": 10},
        {"kind": "step", "step": 15, "seconds": 0.5, "model/loss": 1.0},
        {"kind": "eval", "step": 20, "seconds": 1.5, "best": False, "metrics": {"loss": 1.7, "accuracy": 0.5}},
    ]
    assert chosen_step(records, "accuracy", 4) == {"step": 10, "epoch": 2.5, "metric": "accuracy", "value": 0.6}
    assert losses_at(records, 10) == (2.0, 1.5)
    assert losses_at(records, 20) == (1.5, 1.7)
    assert losses_at(records, 11) is None
    assert training_seconds(records) == 3.5
    assert chosen_step([], "loss", 4) == {"step": 0, "epoch": 0.0, "metric": "loss", "value": None}


def test_figures_in_words() -> None:
    assert [percent(x) for x in (0, 1, 0.9617, 0.9999, 0.0001)] == ["0 %", "100 %", "96.2 %", "99.990 %", "0.010 %"]
    assert [number(x) for x in (0, 47321, 1.2345, -0.00312)] == ["0", "47,300", "1.23", "-0.00312"]
    assert [number(x) for x in (2.5e9, 123456.0)] == ["2.50e+09", "123,000"]


def test_a_look_that_fails_costs_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def broken(self: Any, batches: Any) -> Iterator[View]:
        yield View("first", "A look that works", "bars", {"names": ["a"], "values": [1.0]})
        raise ConfigError("the second\nis out of range")

    monkeypatch.setattr(Classifier, "views", broken)
    run = engram.train("cnn", epochs=1, widths=(4,), out=tmp_path / "run", threads=1)
    assert run.result["rows"] > 0
    assert run.folder.read_result() == run.result
    assert [title for title, _ in read_views(run.path)] == ["A look that works"]
    assert (run.path / "report.html").is_file()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "looks inside" in line]
    assert line.startswith("warning: the looks inside are not complete (the second is out of range); engram inspect ")


@pytest.mark.parametrize(
    ("recipe", "knob"),
    [("ddpm", "sample_steps=2001"), ("dit", "guidance=51"), ("latent_diffusion", "sample_steps=1001"),
     ("latent_diffusion", "guidance=21")],
)  # fmt: skip
def test_what_no_sample_may_ask_for_is_refused_before_the_training(recipe: str, knob: str) -> None:
    name, value = knob.split("=")
    with pytest.raises(ConfigError, match=f"{knob} is out of range"):
        make_recipe(recipe, {name: value})
