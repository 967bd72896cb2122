"""Everything the report says, read from the run folder alone: finished, stopped, crashed or still running."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engram.app.finish import read_samples
from engram.app.layers import RECIPE_ERRORS, layer_table, read_layers
from engram.app.run import Run
from engram.checkpoint.files import read_tensors
from engram.checkpoint.folder import RunFolder
from engram.core.errors import EngramError
from engram.core.snapshot import Snapshot


@dataclass(frozen=True)
class Content:
    """What a run folder says. `info` is run.json, `result` result.json ({} while unfinished)."""

    path: Path
    info: dict[str, Any]
    records: list[dict[str, Any]]
    result: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]
    predictions: Snapshot | None
    layers: list[dict[str, Any]]
    no_layers: str = ""  # why there are none
    no_predictions: str = ""

    @property
    def title(self) -> str:
        """'cnn on digits: 1,797 images ...'."""
        return f"{self.info['recipe'].removeprefix('custom:')} on {self.info['data']['title']}"

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Records of optimizer steps."""
        return [r for r in self.records if r["kind"] == "step"]

    @property
    def evals(self) -> list[dict[str, Any]]:
        """Records of evaluations that measured something."""
        return [r for r in self.records if r["kind"] == "eval" and r.get("metrics")]

    @property
    def per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return max(self.info["plan"]["steps_per_epoch"], 1)

    @property
    def kind(self) -> str:
        """classification, regression or none."""
        return self.result.get("kind", "none")

    @property
    def metrics(self) -> dict[str, Any]:
        """Figures on unseen rows."""
        return self.result.get("metrics", {})

    @property
    def chosen(self) -> int | None:
        """The step whose weights are kept."""
        if "chosen" in self.result:
            return self.result["chosen"]["step"]
        best = [r["step"] for r in self.records if r["kind"] == "eval" and r.get("best")]
        return best[-1] if best else None

    @property
    def target(self) -> str:
        """The name of what is predicted."""
        return str(self.info["spec"].get("target", "") or ("class" if self.kind == "classification" else "target"))

    def series(self, name: str) -> dict[str, tuple[list[int], list[float]]]:
        """Logged values that end in `/name`, by phase: (steps, values); values that were not finite are left out."""
        found: dict[str, tuple[list[int], list[float]]] = {}
        for record in self.steps:
            for key, value in record.items():
                if key.endswith("/" + name) and value is not None:
                    xs, ys = found.setdefault(key.rpartition("/")[0], ([], []))
                    xs.append(record["step"])
                    ys.append(value)
        return found

    @property
    def unfinished(self) -> str:
        """'' for a finished run; else what happened and what to do, in a sentence or two."""
        if self.result:
            return ""
        planned = self.info["plan"]["steps"]
        at = max((r["step"] for r in self.records), default=0)
        stop = next((r for r in reversed(self.records) if r["kind"] == "stop"), None)
        go_on = f"engram resume {self.path}"
        if not self.records:
            return f"This run has not made a step yet: it has just begun, or it failed at once. To start again: {go_on}"
        if stop and stop.get("reason") == "interrupted":
            return f"This run was stopped at step {at:,} of {planned:,} and is not measured on unseen rows. To go on: {go_on}"
        if stop:
            return f"Training ended at step {at:,}, but the figures on unseen rows are missing. To make them: {go_on}"
        return (
            f"This run is not finished: step {at:,} of {planned:,} was the last on record. It is still running, or it crashed. "
            f"To go on after a crash: {go_on}"
        )


def read_content(folder: RunFolder) -> Content:
    """Read a run folder; missing and damaged parts are left out and said. Raises RunError when run.json is unreadable."""
    predictions, why = None, ""
    if folder.predictions.exists():
        try:
            predictions = read_tensors(folder.predictions)
        except EngramError as error:
            why = str(error)
    layers, no_layers = _layers(folder)
    return Content(
        folder.path, folder.info(), folder.read_metrics(), folder.read_result(), read_samples(folder.path / "samples"),
        predictions, layers, no_layers, why,
    )  # fmt: skip


def _layers(folder: RunFolder) -> tuple[list[dict[str, Any]], str]:
    if kept := read_layers(folder):
        return kept, ""
    try:
        run = Run(folder)
        return layer_table(run.recipe, run.spec), ""
    except (EngramError, *RECIPE_ERRORS) as error:
        return [], f"The layers are not shown: {error}."
