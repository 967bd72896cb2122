"""The run folder: the unit of everything after training. It opens while training, after a crash and when finished."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from engram.checkpoint.files import read_json, read_tensors, reason, write_json, write_tensors
from engram.checkpoint.metrics import MetricsLog, read_metrics
from engram.core.errors import ConfigError, RunError
from engram.core.snapshot import Snapshot

FORMAT = 1  # raised when an older version could no longer read the folder


class RunFolder:
    """Paths and their readers.

    run.json (recipe, knobs, spec, versions, data hash, command), metrics.jsonl, state.safetensors (to go on),
    weights.safetensors (to predict), result.json (test figures), predictions.safetensors, report.html, report.png.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.run_json = self.path / "run.json"
        self.state = self.path / "state.safetensors"
        self.weights = self.path / "weights.safetensors"
        self.metrics = self.path / "metrics.jsonl"
        self.result = self.path / "result.json"
        self.predictions = self.path / "predictions.safetensors"
        self.html = self.path / "report.html"
        self.png = self.path / "report.png"

    @classmethod
    def create(cls, path: str | os.PathLike[str] | None, name: str) -> RunFolder:
        """A new folder at `path`, or runs/<name>-<number>. Raises ConfigError if a run is there, RunError if not writable."""
        try:
            if path is None:
                folder = cls(_next_free(Path("runs"), name))
            else:
                folder = cls(path)
                if folder.run_json.exists():
                    raise ConfigError(
                        f"{folder.path} already holds a run; `engram resume {folder.path}` goes on with it, "
                        "or choose another folder with --out"
                    )
                folder.path.mkdir(parents=True, exist_ok=True)
            if not os.access(folder.path, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise RunError(f"cannot make the run folder {path or 'runs/' + name}: {reason(error)}") from None
        return folder

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """An existing run. Raises RunError when there is none, it is damaged, or a newer version made it."""
        folder = cls(path)
        if not folder.path.exists():
            raise RunError(f"no run at {folder.path}{_others(folder.path)}")
        if not folder.run_json.exists():
            raise RunError(f"{folder.path} is not a run folder: it has no run.json{_others(folder.path)}")
        made = folder.info()
        if not isinstance(made, dict) or not isinstance(made.get("format"), int):
            raise RunError(f"{folder.run_json} is damaged: it names no format; restore it from a copy or train again")
        if made["format"] > FORMAT:
            newer = made.get("versions", {}).get("engram", "?") if isinstance(made.get("versions"), dict) else "?"
            raise RunError(f"{folder.path} was made by a newer Engram ({newer}): upgrade to open it")
        if "recipe" not in made:
            raise RunError(f"{folder.run_json} is damaged: it names no recipe; restore it from a copy or train again")
        return folder

    def info(self) -> dict[str, Any]:
        """run.json."""
        return read_json(self.run_json)

    def write_info(self, info: dict[str, Any]) -> None:
        """Write run.json in one step."""
        write_json(self.run_json, {"format": FORMAT} | info)

    def read_state(self) -> Snapshot:
        """The last complete state."""
        if not self.state.exists():
            raise RunError(f"{self.path} has no saved state yet (it stopped before the first save); train again")
        return read_tensors(self.state)

    def read_weights(self) -> Snapshot:
        """The chosen weights; the last state's when none were chosen yet."""
        return read_tensors(self.weights if self.weights.exists() or not self.state.exists() else self.state)

    def write_weights(self, snapshot: Snapshot) -> None:
        """Write the chosen weights in one step."""
        write_tensors(self.weights, snapshot)

    def log(self) -> MetricsLog:
        """Open the metrics for appending."""
        return MetricsLog(self.metrics)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The records so far."""
        return read_metrics(self.metrics)

    def read_result(self) -> dict[str, Any]:
        """result.json; {} while the run is not finished."""
        return read_json(self.result) if self.result.exists() else {}


def _next_free(parent: Path, name: str) -> Path:
    """runs/name-001, -002 ...: made at once, so two runs started together do not share a folder."""
    name = re.sub(r"[^\w.-]+", "-", name).strip("-") or "run"
    parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 100_000):
        path = parent / f"{name}-{number:03d}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise RunError(f"{parent} holds too many runs named {name}; clean up or choose a folder with --out")


def _others(path: Path) -> str:
    """' (did you mean ...)' or the newest runs beside it."""
    parents = [path.parent, Path("runs")]
    runs = [p.parent for parent in parents if parent.is_dir() for p in parent.glob("*/run.json")]
    if not runs:
        return "; `engram train` makes one"
    newest = max(runs, key=lambda p: p.stat().st_mtime)
    return f"; the newest run is {newest}"
