"""Several runs side by side, and whether their difference is more than chance."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from engram.app.finish import training_seconds
from engram.app.verdict import number, percent, spread
from engram.checkpoint.files import read_tensors, write_bytes
from engram.checkpoint.folder import RunFolder
from engram.core.errors import ConfigError, RunError
from engram.core.snapshot import Snapshot
from engram.insight.intervals import resampled_sums

CHANCE = 0.05  # differences that chance makes more often than this are called chance
_TESTS = {"classification": ("accuracy", "macro_f1", "roc_auc", "log_loss"), "regression": ("rmse", "mae", "r2")}


def compare(folders: list[RunFolder]) -> dict[str, Any]:
    """{"runs": [...], "knobs": {key: [value per run]}, "pairs": [...], "sentence"}, all JSON values.

    A run: path, recipe, data, parameters, seconds, steps, chosen, kind, split, metrics. Knobs: only those that differ. A pair
    of runs measured on the same rows: McNemar's exact test of who is right (classification), or a paired bootstrap of the
    squared errors (regression). Raises ConfigError for fewer than two runs, RunError when one cannot be read.
    """
    if len(folders) < 2:
        raise ConfigError("compare needs at least two runs: engram compare RUN RUN")
    runs = [_row(folder) for folder in folders]
    pairs = [_pair(runs, folders, a, b) for a, b in itertools.combinations(range(len(folders)), 2)]
    # Bonferroni: among many pairs one would differ by chance alone
    for pair in pairs:
        pair["sentence"] = _sentence(pair, runs, len(pairs))
    return {"runs": runs, "knobs": differing(folders), "pairs": pairs, "sentence": " ".join(p["sentence"] for p in pairs)}


def _row(folder: RunFolder) -> dict[str, Any]:
    info, result, records = folder.info(), folder.read_result(), folder.read_metrics()
    kind = result.get("kind", "none")
    names = tuple(result["metrics"]) if kind == "scores" else _TESTS.get(kind, ())
    figures = {name: result["metrics"][name] for name in names if result["metrics"].get(name) is not None}
    return {
        "path": str(folder.path), "recipe": info["recipe"], "data": info["data"]["title"], "parameters": info["parameters"],
        "seconds": training_seconds(records), "steps": max((r["step"] for r in records), default=0),
        "chosen": result.get("chosen"), "kind": kind, "split": result.get("split", ""), "metrics": figures,
    }  # fmt: skip


def differing(folders: list[RunFolder]) -> dict[str, list[Any]]:
    """Knobs by dotted key that are not the same in all runs; None where a recipe has no such knob."""
    flat = [_flat(folder.info()["knobs"]) for folder in folders]
    keys = dict.fromkeys(key for knobs in flat for key in knobs)
    found = {key: [knobs.get(key) for knobs in flat] for key in keys}
    return {key: values for key, values in found.items() if any(v != values[0] for v in values)}


def _flat(knobs: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in knobs.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _pair(runs: list[dict[str, Any]], folders: list[RunFolder], a: int, b: int) -> dict[str, Any]:
    found: dict[str, Any] = {"a": runs[a]["path"], "b": runs[b]["path"], "test": None, "p": None}
    if "scores" in (runs[a]["kind"], runs[b]["kind"]):
        return found | {"why": "runs with figures of their own keep no prediction of every row; look at the intervals"}
    try:
        first, second = (read_tensors(folders[i].predictions) for i in (a, b))
    except RunError as error:
        return found | {"why": str(error)}
    if why := _unlike(first, second):
        return found | {"why": why}
    right = mcnemar if first.facts["kind"] == "classification" else paired
    return found | right(first, second)


def _unlike(a: Snapshot, b: Snapshot) -> str:
    """Why two runs cannot be paired row by row; '' when they can."""
    if a.facts["kind"] != b.facts["kind"]:
        return "one predicts classes and the other numbers"
    if a.facts["sha256"] != b.facts["sha256"] or a.facts["split"] != b.facts["split"]:
        return "they were measured on different data"
    if not np.array_equal(a.tensors["rows"], b.tensors["rows"]):
        return "they were measured on different rows"
    if a.facts["kind"] == "classification":
        same = a.facts["classes"] == b.facts["classes"] and np.array_equal(a.tensors["targets"], b.tensors["targets"])
    else:
        same = _same_numbers(*(s.tensors["targets"].numpy() for s in (a, b)))
    return "" if same else "the same rows have different targets (another split of the data: set the same seed)"


def _same_numbers(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether targets are equal but for rounding, a small share of their spread; older runs keep them as float32."""
    rounding = float(max(np.finfo(x.dtype).eps for x in (a, b)))
    return np.allclose(a, b, rtol=max(rounding, 1e-12), atol=1e-4 * float(a.std()))


def mcnemar(a: Snapshot, b: Snapshot) -> dict[str, Any]:
    """McNemar's test, exact: among rows that only one run has right, each of the two should win half.

    `difference` is the accuracy of `a` minus that of `b`, with a 95 % interval from a bootstrap over rows.
    """
    right = [(s.tensors["probabilities"].argmax(1) == s.tensors["targets"]).numpy() for s in (a, b)]
    only_a, only_b = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    gain = right[0].astype(float) - right[1]
    ((low, high),) = resampled_sums(np.stack([gain, np.ones_like(gain)], 1), lambda s: (s[:, 0] / s[:, 1])[None])
    return {
        "test": "McNemar, exact", "metric": "accuracy", "p": sign_test(only_a, only_b), "rows": len(gain),
        "only_a_right": only_a, "only_b_right": only_b, "difference": {"value": float(gain.mean()), "low": low, "high": high},
    }  # fmt: skip


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p of a fair coin giving at least as uneven a result (exact binomial)."""
    n, least = wins + losses, min(wins, losses)
    if n == 0:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2) for k in range(least + 1)]
    return min(1.0, 2 * math.fsum(math.exp(v) for v in logs))


def paired(a: Snapshot, b: Snapshot) -> dict[str, Any]:
    """RMSE of `a` minus that of `b`, with a 95 % interval and a two-sided p from a bootstrap over the same rows for both."""
    # each beside its own targets: those of an older run are rounded to float32, as its values are
    squares = [(s.tensors["values"].double() - s.tensors["targets"].double()).square().numpy() for s in (a, b)]
    drawn: list[np.ndarray] = []

    def difference(sums: np.ndarray) -> np.ndarray:
        found = np.sqrt(sums[:, 0] / sums[:, 2]) - np.sqrt(sums[:, 1] / sums[:, 2])
        drawn.append(found)
        return found[None]

    columns = np.stack([*squares, np.ones_like(squares[0])], 1)
    ((low, high),) = resampled_sums(columns, difference, draws=4000)
    value = float(np.sqrt(squares[0].mean()) - np.sqrt(squares[1].mean()))
    below = (1 + int((drawn[0] <= 0).sum())) / (1 + len(drawn[0]))  # never 0: a bootstrap cannot know that
    above = (1 + int((drawn[0] >= 0).sum())) / (1 + len(drawn[0]))
    return {
        "test": "paired bootstrap", "metric": "rmse", "p": min(1.0, 2 * min(below, above)), "rows": len(columns),
        "difference": {"value": value, "low": low, "high": high},
    }  # fmt: skip


def _sentence(pair: dict[str, Any], runs: list[dict[str, Any]], pairs: int) -> str:
    a, b = (Path(pair[k]).name for k in ("a", "b"))
    if pair["p"] is None:
        return f"{a} and {b} cannot be compared row by row: {pair['why']}."
    d, sure = pair["difference"], pair["p"] * pairs < CHANCE
    adjusted = f", for {pairs} pairs {_p(min(1.0, pair['p'] * pairs))}" if pairs > 1 else ""
    p = f"p = {_p(pair['p'])}{adjusted}" if not _p(pair["p"]).startswith("<") else f"p {_p(pair['p'])}{adjusted}"
    if pair["metric"] == "accuracy":
        better, worse = (a, b) if d["value"] >= 0 else (b, a)
        size = f"{abs(100 * d['value']):.1f} points of accuracy"
        alone = f"{pair['only_a_right']:,} are right only in {a}, {pair['only_b_right']:,} only in {b}"
        counts = f"of {pair['rows']:,} rows {alone}"
    else:
        better, worse = (a, b) if d["value"] <= 0 else (b, a)
        size = f"{number(abs(d['value']))} of RMSE"
        counts = f"95 % interval of the difference {spread(d, number)}"
    if sure:
        return f"{better} is better than {worse} by {size}, more than chance explains ({p}; {counts})."
    if d["value"] == 0:
        return f"{a} and {b} are equally good ({counts})."
    return f"{better} looks better than {worse} by {size}, but that may be chance ({p}; {counts})."


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def rows_of(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The comparison as a table: a heading per run, then (what, value per run)."""
    runs = found["runs"]
    rows = [
        ["recipe", *[r["recipe"] for r in runs]],
        *[[key, *map(_knob, values)] for key, values in found["knobs"].items()],
        ["parameters", *[f"{r['parameters']:,}" for r in runs]],
        ["training seconds", *[f"{r['seconds']:,.1f}" for r in runs]],
        ["chosen at step", *[f"{r['chosen']['step']:,}" if r["chosen"] else "-" for r in runs]],
    ]
    for name in dict.fromkeys(name for r in runs for name in r["metrics"]):
        form = percent if name in ("accuracy", "r2") else number if name in ("rmse", "mae", "log_loss") else "{:.3f}".format
        rows.append([name, *[_figure(r["metrics"].get(name), form) for r in runs]])
    return ["", *[Path(r["path"]).name for r in runs]], rows


def _knob(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _figure(value: Any, form: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, dict):
        return form(value)
    return form(value["value"]) + (f" ({spread(value, form)})" if value["low"] is not None else "")


def write_comparison(folders: list[RunFolder], path: Path) -> Path:
    """A self-contained page: the sentence, the table, and the curves over one another. Returns its path."""
    from engram.app.report.side import comparison_page

    write_bytes(path, comparison_page(folders, compare(folders)).encode())
    return path
