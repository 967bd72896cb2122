"""A pass over labelled rows in bounded memory: figures over all, a random part kept, the worst mistakes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engram.core.batch import Batch
from engram.core.predictor import Predictor
from engram.core.snapshot import Snapshot
from engram.inference.classify import Classifier
from engram.insight.metrics import Tally, regression

KEEP = 50_000  # rows of predictions on file
NUMBERS = 10_000_000  # probabilities on file: 40 MB
EXAMPLES = 16


@dataclass
class Example:
    """One row of a split with what was said about it; `target` is a class name or a number."""

    row: int
    target: str | float
    prediction: str | float
    probability: float | None  # of the prediction; None for numbers
    loss: float  # nats, or the absolute error in the target's units


class Collector:
    """Takes the raw outputs of a predictor batch by batch. `kind` is 'classification', 'regression' or 'none'."""

    def __init__(self, classes: tuple[str, ...]):
        self.classes, self.kind, self.rows = classes, "none", 0
        self._random = np.random.default_rng(0)  # one number per row, whatever the batches: the same rows for every run
        self._kept: list[dict[str, np.ndarray]] = []
        self._worst: list[dict[str, np.ndarray]] = []
        self._all: list[np.ndarray] = []  # values and targets of every row, (2, rows): for the median
        self._tally = Tally(classes)

    def add(self, outputs: dict[str, torch.Tensor]) -> None:
        """Outputs of one batch, as Predictor.outputs gives them; outputs without figures (several labels, none) are skipped."""
        if "targets" not in outputs or outputs["targets"].dim() != 1:
            return
        targets = outputs["targets"].numpy()
        if "probabilities" in outputs and outputs["probabilities"].dim() == 2:
            self.kind, shown = "classification", outputs["probabilities"].float().numpy()
            if not self.classes:
                self.classes = tuple(map(str, range(shown.shape[1])))
                self._tally = Tally(self.classes)
            loss = self._tally.add(shown, targets)
            wrong = shown.argmax(1) != targets
        elif "values" in outputs and outputs["values"].dim() == 1:
            self.kind, shown = "regression", outputs["values"].double().numpy()
            self._all.append(np.stack([shown, targets]))
            loss = np.abs(shown - targets)
            wrong = loss > 0
        else:
            return
        rows = np.arange(self.rows, self.rows + len(targets))
        self.rows += len(targets)
        part = {"shown": shown, "targets": targets, "rows": rows, "loss": loss, "key": self._random.random(len(rows))}
        self._worst = [_first(_joined([*self._worst, _take(part, np.flatnonzero(wrong))]), "loss", EXAMPLES, falling=True)]
        self._kept.append(part)
        if sum(len(p["rows"]) for p in self._kept) > 2 * self.keep:
            self._kept = [_first(_joined(self._kept), "key", self.keep)]

    @property
    def keep(self) -> int:
        """How many rows stay."""
        return max(1000, min(KEEP, NUMBERS // max(len(self.classes), 1)))

    def kept(self) -> dict[str, np.ndarray]:
        """A random part of the rows (all when few), in the order of the split."""
        chosen = _first(_joined(self._kept), "key", self.keep)
        return _take(chosen, np.argsort(chosen["rows"]))

    def metrics(self) -> dict[str, Any]:
        """The figures over all rows (ROC-AUC over the kept ones); {} when nothing could be compared."""
        if self.kind == "classification":
            kept = self.kept()
            return self._tally.figures(kept["shown"], kept["targets"])
        if self.kind == "regression":
            return regression(*np.concatenate(self._all, 1))
        return {}

    def snapshot(self, facts: dict[str, Any]) -> Snapshot:
        """For predictions.safetensors: probabilities (K, C) or values (K,), targets (K,), rows (K,) numbers in the split."""
        kept = self.kept()
        if self.kind == "classification":
            shown = {"probabilities": kept["shown"].astype(np.float32), "targets": kept["targets"].astype(np.int64)}
        else:  # float64: the units of a target may be small beside its values
            shown = {"values": kept["shown"].astype(np.float64), "targets": kept["targets"].astype(np.float64)}
        tensors = shown | {"rows": kept["rows"]}
        facts = {"kind": self.kind, "rows": self.rows, "classes": list(self.classes)} | facts
        return Snapshot({n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in tensors.items()}, facts)

    def random(self) -> list[Example]:
        """Rows drawn at random."""
        return self._examples(_first(_joined(self._kept), "key", EXAMPLES))

    def worst(self) -> list[Example]:
        """The mistakes of the highest loss, worst first."""
        return self._examples(_first(_joined(self._worst), "loss", EXAMPLES, falling=True))

    def _examples(self, part: dict[str, np.ndarray]) -> list[Example]:
        found = []
        for shown, target, row, loss in zip(part["shown"], part["targets"], part["rows"], part["loss"], strict=True):
            if self.kind == "classification":
                guess = int(shown.argmax())
                found.append(Example(int(row), self.classes[target], self.classes[guess], float(shown[guess]), float(loss)))
            else:
                found.append(Example(int(row), float(target), float(shown), None, float(loss)))
        return found


def collect(predictor: Predictor, batches: Iterable[Batch]) -> Collector:
    """Run the predictor over encoded batches with targets."""
    found = Collector(predictor.classes if isinstance(predictor, Classifier) else ())
    for batch in batches:
        found.add(predictor.outputs(batch))
    return found


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _take(part: dict[str, np.ndarray], index: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[index] for name, values in part.items()}


def _first(part: dict[str, np.ndarray], by: str, count: int, *, falling: bool = False) -> dict[str, np.ndarray]:
    order = np.argsort(-part[by] if falling else part[by], kind="stable")
    return _take(part, order[:count])
