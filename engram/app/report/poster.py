"""report.png: the verdict, curves, confusion or residuals, and examples in one picture."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

import matplotlib.image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from engram.app.report import classes, curves, numbers
from engram.app.report.content import Content
from engram.app.report.drawing import GREEN, RED, SOFT, look, short
from engram.app.report.page import headlines
from engram.app.verdict import number

FACES = 8  # of each kind


def poster(run: Content) -> bytes:
    """PNG bytes, 1600 pixels wide."""
    with look():
        pictures = any("picture" in s for s in run.samples.get("random", []))
        measured = run.kind in ("classification", "regression")
        tall = 5.9 + (4.4 if measured else 0) + (2.6 if pictures else 0)
        figure = Figure(figsize=(10, tall), dpi=160, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # type: ignore[union-attr]
        heights = [2.0, 3.6] + ([4.2] if measured else []) + ([2.9] if pictures else [])
        bands: Any = figure.subfigures(len(heights), 1, height_ratios=heights, hspace=0.02)
        rest = list(bands)
        _words(rest.pop(0), run)
        _curves(rest.pop(0), run)
        if measured:
            _outcome(rest.pop(0), run)
        if pictures:
            _faces(rest.pop(0), run)
        file = io.BytesIO()
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": "Engram"})
        return file.getvalue()


def _words(band: Any, run: Content) -> None:
    headline = run.result.get("verdict") or run.unfinished
    band.text(0.02, 0.97, run.title, color=SOFT, fontsize=10.5, va="top")
    band.text(0.02, 0.83, textwrap.fill(headline, 86), fontsize=14, fontweight="bold", va="top", linespacing=1.3)
    tiles = headlines(run)[:6]
    for i, (name, value, beside) in enumerate(tiles):
        x = 0.02 + i * 0.165
        band.text(x, 0.40, name, color=SOFT, fontsize=8.5, va="top")
        band.text(x, 0.32, value, fontsize=15, fontweight="bold", va="top")
        band.text(x, 0.16, short(beside.removeprefix("95 % interval "), 26), color=SOFT, fontsize=8, va="top")


def _curves(band: Any, run: Content) -> None:
    groups = curves.metric_groups(run)[:1]
    axes = band.subplots(1, 1 + len(groups), squeeze=False)[0]
    if run.series("loss") or run.evals:
        curves.loss(axes[0], run, titled=True)
    else:
        axes[0].annotate("no step yet", (0.5, 0.5), xycoords="axes fraction", ha="center", color=SOFT)
    axes[0].set_title("Loss")
    for ax, names in zip(axes[1:], groups, strict=True):
        curves.metrics(ax, run, names, titled=True)
        ax.set_title("On validation rows")


def _outcome(band: Any, run: Content) -> None:
    m = run.metrics
    left, right = band.subplots(1, 2)
    if run.kind == "classification":
        if m["confusion"] is not None:
            classes.matrix(left, m)
        else:
            _pairs(left, m)
        left.set_title("Confusion" if m["confusion"] is not None else "Commonest mistakes")
        classes.reliability(right, m)
        right.set_title(f"Reliability (calibration error {100 * m['ece']:.1f} %)")
    elif run.predictions is not None:
        values, targets = (run.predictions.tensors[n].double().numpy() for n in ("values", "targets"))
        numbers.against(left, values, targets, run.target)
        left.set_title("Predicted against true")
        numbers.residuals(right, values, targets, run.target)
        right.set_title("Errors")
    else:
        left.annotate("no predictions in the run folder", (0.5, 0.5), xycoords="axes fraction", ha="center", color=SOFT)
        left.set_axis_off()
        right.set_axis_off()


def _pairs(ax: Any, m: dict[str, Any]) -> None:
    pairs = m["confused"][:15][::-1]
    ax.barh([f"{short(p['true'], 14)} → {short(p['predicted'], 14)}" for p in pairs], [p["rows"] for p in pairs], color=RED)
    ax.set_xlabel("rows")
    ax.grid(axis="y", visible=False)


def _faces(band: Any, run: Content) -> None:
    rows = [("Drawn at random", run.samples["random"]), ("Worst mistakes", run.samples["worst"])]
    axes = band.subplots(2, FACES, squeeze=False)
    for line, (title, samples) in zip(axes, rows, strict=True):
        for i, ax in enumerate(line):
            ax.set_axis_off()
            if i == 0:
                ax.annotate(title, (-0.4, 0.5), xycoords="axes fraction", rotation=90, va="center", ha="center", color=SOFT)
            if i < len(samples):
                _face(ax, run.path / "samples", samples[i])


def _face(ax: Any, folder: Path, sample: dict[str, Any]) -> None:
    path = folder / str(sample.get("picture", ""))
    if path.is_file():
        ax.imshow(matplotlib.image.imread(path, format="png"), cmap="gray", interpolation="nearest", vmin=0, vmax=1)
    right = sample["prediction"] == sample["target"]
    said, true = (v if isinstance(v, str) else number(v) for v in (sample["prediction"], sample["target"]))
    text = short(true, 14) if right else f"{short(said, 16)}\ntrue {short(true, 13)}"
    ax.set_title(text, fontsize=8.5, fontweight="normal", color=GREEN if right else RED, loc="center", pad=3)
