"""Run folders made by hand, so that what reads them needs no training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engram.checkpoint.files import write_json, write_tensors
from engram.checkpoint.folder import RunFolder
from engram.core.snapshot import Snapshot
from engram.insight.metrics import classification, regression

MakeRun = Callable[..., RunFolder]


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """make_run(name, kind=..., classes=..., finished=..., ...) writes a new folder as training leaves it."""

    def make(name: str = "hand-001", **options: Any) -> RunFolder:
        folder = RunFolder(tmp_path_factory.mktemp("runs") / name)
        folder.path.mkdir()
        write_run(folder, **options)
        return folder

    return make


def write_run(
    folder: RunFolder,
    kind: str = "classification",
    classes: tuple[str, ...] = ("cat", "dog", "hen"),
    finished: bool = True,
    pictures: bool = True,
    noise: float = 1.0,
    seed: int = 0,
    rows: int = 60,
    steps: int = 40,
    sha256: str = "ab" * 32,
    knobs: dict[str, Any] | None = None,
    notes: tuple[dict[str, str], ...] = (),
) -> None:
    folder.write_info({
        "recipe": "custom:Hand", "knobs": {"epochs": 4.0, "clip": 1.0, "optim": {"lr": 0.01}} | (knobs or {}),
        "spec": {"kind": "Spec", "target": "price"} if kind == "regression" else {"kind": "Spec"},
        "data": {"title": "things: 600 rows", "rows": {"train": 480, "val": 60, "test": rows}, "sha256": sha256,
                 "facts": {"classes": dict.fromkeys(classes, 200)} if kind == "classification" else {"columns": 3},
                 "notes": list(notes)},
        "machine": {"device": "cpu", "precision": "fp32", "channels_last": False, "threads": 1, "compile": False,
                    "why": ["fp32 (as asked)"]},
        "plan": {"steps": 40, "steps_per_epoch": 10, "watch": "loss", "mode": "min", "batch": 48},
        "parameters": 1234, "seed": 0, "versions": {"engram": "0.1.0", "torch": "2"}, "command": "engram train hand.py seed=0",
        "created": "2026-01-01T00:00:00+00:00",
    })  # fmt: skip
    log = folder.log()
    for step in range(1, steps + 1):
        layers = {"model.first.weight": 1 / step, "model.last.weight": 0.0 if step < 5 else 0.1}
        values = {"train/loss": 3 / step, "train/grad_norm": 2 / step, "train/lr": 0.01 * step / 40}
        log.write("step", step, seconds=step / 10, **values, layers=layers)
        if step % 10 == 0:
            metrics = {"loss": abs(step - 30) / 10 + 0.5, "accuracy": 0.5}
            log.write("eval", step, seconds=step / 10, best=step <= 30, metrics=metrics)
    if finished:
        log.write("stop", steps, seconds=4.0, reason="done", best_step=30)
    log.close()
    if finished:
        write_result(folder, kind, classes, pictures, noise, seed, rows, sha256)


def write_result(
    folder: RunFolder, kind: str, classes: tuple[str, ...], pictures: bool, noise: float, seed: int, rows: int, sha256: str
) -> None:
    target_rng, rng = np.random.default_rng(0), np.random.default_rng(seed)
    facts = {"kind": kind, "rows": rows, "classes": list(classes), "split": "test", "sha256": sha256}
    numbers = torch.arange(rows)
    if kind == "classification":
        t = target_rng.integers(len(classes), size=rows)
        logits = noise * rng.normal(size=(rows, len(classes))) + 2 * np.eye(len(classes))[t]
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        metrics = classification(p, t, classes)
        tensors = {"probabilities": torch.tensor(p, dtype=torch.float32), "targets": torch.tensor(t), "rows": numbers}
        shown: list[Any] = [classes[i] for i in p.argmax(1)]
        true: list[Any] = [classes[i] for i in t]
        sure = [float(x) for x in p.max(1)]
    else:
        t = target_rng.gamma(2.0, 100.0, size=rows)
        v = t + noise * rng.normal(size=rows) * 30
        metrics = regression(v, t)
        tensors = {"values": torch.tensor(v).float(), "targets": torch.tensor(t).float(), "rows": numbers}
        shown, true, sure = v.tolist(), t.tolist(), [None] * rows
    write_tensors(folder.predictions, Snapshot(tensors, facts))
    samples = folder.path / "samples"
    samples.mkdir()
    entries = []
    for i in range(4):
        entry = {"row": i, "name": f"<b>{i}.png", "target": true[i], "prediction": shown[i], "loss": 1.0}
        entry["probability"] = sure[i]
        if pictures:
            Image.fromarray(np.full((8, 8), 60 * i, np.uint8)).save(samples / f"random-{i}.png")
            entry["picture"] = f"random-{i}.png"
        else:
            entry["input"] = {"<i>size": 1.25, "colour": None}
        entries.append(entry)
    write_json(samples / "examples.json", {"random": entries, "worst": entries})
    write_json(folder.result, {
        "kind": kind, "split": "test", "rows": rows, "metrics": metrics, "verdict": "Right on <most> rows.",
        "chosen": {"step": 30, "epoch": 3.0, "metric": "loss", "value": 0.5}, "seconds": 4.0, "finished": "2026-01-01",
    })  # fmt: skip
    layers = [
        {"name": "model.first", "type": "Linear", "shape": [7], "parameters": 1000, "multiply_adds": 990},
        {"name": "total", "type": "Task", "shape": [3], "parameters": 1234, "multiply_adds": 1220},
    ]
    write_json(folder.path / "layers.json", layers)
