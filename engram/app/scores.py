"""A predictor's own figures with their intervals, and its examples, as the run folder keeps them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engram.checkpoint.files import reason, write_json
from engram.core.errors import RunError
from engram.core.predictor import Figure, Scores
from engram.insight.intervals import resampled_sums

SHOWN = 16


def figures_of(scores: Scores) -> dict[str, Any]:
    """{"kind": "scores", "rows", "metrics": {name: {"value", "low", "high"}}, "headline", "words", "forms", "of", "beside"}."""
    total = scores.parts.double().sum(0, keepdim=True)
    values = {name: float(figure.statistic(total)[0]) for name, figure in scores.figures.items()}
    few = len(scores.parts) < 2
    intervals = {name: (None, None) if few else _interval(scores.parts, figure) for name, figure in scores.figures.items()}
    metrics = {n: {"value": values[n], "low": intervals[n][0], "high": intervals[n][1]} for n in values}
    return {
        "kind": "scores", "rows": len(scores.parts), "metrics": metrics, "headline": next(iter(values)),
        "words": {n: f.words for n, f in scores.figures.items()}, "forms": {n: f.form for n, f in scores.figures.items()},
        "of": scores.of, "beside": scores.beside,
    }  # fmt: skip


def _interval(parts: torch.Tensor, figure: Figure) -> tuple[float | None, float | None]:
    def statistic(sums: np.ndarray) -> np.ndarray:
        return figure.statistic(torch.from_numpy(sums)).numpy()[None]

    ((low, high),) = resampled_sums(parts.double().numpy(), statistic)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)


def write_examples(folder: Path, scores: Scores) -> None:
    """samples/examples.json {"random": [{"name", "input": {"text"}, "target", "prediction"}], "worst": []}."""
    rows = [
        {"name": f"example {n}", "input": {"text": str(e.get("input", ""))}, "target": str(e.get("target", "")),
         "prediction": str(e.get("prediction", "")), "probability": None}
        for n, e in enumerate(scores.examples[:SHOWN], 1)
    ]  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {folder}: {reason(error)}") from None
    write_json(folder / "examples.json", {"random": rows, "worst": []})
