"""How training went: losses, metrics, learning rate and gradient norms over steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from engram.app.report.content import Content
from engram.app.report.drawing import BLUE, LINE, RED, SERIES, SOFT
from engram.app.verdict import number

SMOOTH = 9  # records in a running mean


def loss(ax: Axes, run: Content, titled: bool = False) -> None:
    """Training loss (raw and as a running mean) and validation loss; the chosen step marked."""
    several = run.series("loss")
    lowest, highest = np.inf, 0.0
    for place, (phase, (x, y)) in enumerate(several.items()):
        colour = BLUE if place == 0 else SERIES[(place + 1) % len(SERIES)]
        label = "training" if len(several) == 1 else f"training, {phase}"
        values = np.asarray(y)
        if len(x) > 3 * SMOOTH:
            ax.plot(x, y, color=colour, alpha=0.25, linewidth=1)
            ax.plot(x, running_mean(values), color=colour, label=label)
        else:
            ax.plot(x, y, color=colour, label=label)
        lowest, highest = min(lowest, values.min()), max(highest, values.max())
    measured = [(r["step"], r["metrics"]["loss"]) for r in run.evals if r["metrics"].get("loss") is not None]
    if measured:
        x, y = zip(*measured, strict=True)
        ax.plot(x, y, color=RED, marker="o", markersize=3.5, linestyle="--", label="validation")
        lowest, highest = min(lowest, *y), max(highest, *y)
    if lowest > 0 and highest > 30 * lowest:
        log_scale(ax)
    ax.set_ylabel("loss")
    over_steps(ax, run, titled)
    ax.legend()


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over SMOOTH values around each; towards the ends the window shrinks on both sides, so that steep starts stay."""
    index = np.arange(len(values))
    half = np.minimum(np.minimum(index, index[::-1]), SMOOTH // 2)
    total = np.concatenate([[0.0], np.cumsum(values)])
    return (total[index + half + 1] - total[index - half]) / (2 * half + 1)


def metrics(ax: Axes, run: Content, names: list[str], titled: bool = False) -> None:
    """Metrics of the validation rows."""
    for place, name in enumerate(names):
        points = [(r["step"], r["metrics"][name]) for r in run.evals if r["metrics"].get(name) is not None]
        x, y = zip(*points, strict=True)
        style = ("-", "--", "-.", ":")[place % 4]
        ax.plot(x, y, style, color=SERIES[place % len(SERIES)], marker="o", markersize=3.5, label=words(name))
    ax.set_ylabel("validation" if len(names) > 1 else f"validation {words(names[0])}")
    over_steps(ax, run, titled)
    if len(names) > 1:
        ax.legend()


def metric_groups(run: Content) -> list[list[str]]:
    """Metric names that share an axis: all that lie in 0 to 1 together, each other one alone."""
    values: dict[str, list[float]] = {}
    for record in run.evals:
        for name, value in record["metrics"].items():
            if name != "loss" and value is not None:
                values.setdefault(name, []).append(value)
    shares = [n for n, v in values.items() if min(v) >= 0 and max(v) <= 1]
    return ([shares] if shares else []) + [[n] for n in values if n not in shares]


def words(name: str) -> str:
    """Names of metrics as people write them."""
    known = {"roc_auc": "ROC-AUC", "macro_f1": "macro F1", "r2": "R²", "rmse": "RMSE", "mae": "mean absolute error"}
    return known.get(name, name.replace("_", " "))


def rate(ax: Axes, run: Content) -> None:
    """Learning rate of each phase."""
    found = run.series("lr")
    for place, (phase, (x, y)) in enumerate(found.items()):
        ax.plot(x, y, color=SERIES[place % len(SERIES)], label=phase)
    ax.set_ylabel("learning rate")
    ax.set_ylim(bottom=0)
    over_steps(ax, run)
    if len(found) > 1:
        ax.legend()


def norm(ax: Axes, run: Content) -> None:
    """Norm of the whole gradient before clipping, and where it is clipped."""
    found = run.series("grad_norm")
    most = 0.0
    for place, (phase, (x, y)) in enumerate(found.items()):
        ax.plot(x, y, color=SERIES[place % len(SERIES)], label=phase, linewidth=1.3)
        most = max(most, *y)
    clip = run.info["knobs"].get("clip")
    if isinstance(clip, (int, float)) and 0 < clip <= most:
        ax.axhline(clip, color=RED, linewidth=1.2, linestyle="--", label=f"clipped above {number(clip)}")
    log_scale(ax)
    ax.set_ylabel("gradient norm")
    over_steps(ax, run)
    ax.legend()


def over_steps(ax: Axes, run: Content, titled: bool = False) -> None:
    """Steps below, epochs above, the chosen step as a vertical line."""
    _steps(ax)
    last = max((r["step"] for r in run.records), default=1)
    ax.set_xlim(-0.01 * last, 1.02 * last)
    if run.chosen:
        ax.axvline(run.chosen, color=SOFT, linewidth=1, linestyle=":", label="chosen weights")
    if not titled:
        per = run.per_epoch
        top = ax.secondary_xaxis("top", functions=(lambda x: np.asarray(x) / per, lambda x: np.asarray(x) * per))
        top.set_xlabel("epochs")
        top.xaxis.set_major_locator(MaxNLocator(6))
        top.spines["top"].set_color(LINE)


def log_scale(ax: Axes) -> None:
    """A log axis whose ticks are plain numbers at 1, 2 and 5 of every decade."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: number(y)))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _steps(ax: Axes) -> None:
    ax.set_xlabel("optimizer steps")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))


def layer_norms(run: Content) -> tuple[list[str], list[int], np.ndarray]:
    """Parameter names, steps, and the norm of each one's gradient (names, steps); nan where not recorded, zeros as they are."""
    records = [r for r in run.steps if r.get("layers")]
    names = list(dict.fromkeys(n for r in records for n in r["layers"]))
    grid = np.full((len(names), len(records)), np.nan)
    row = {name: i for i, name in enumerate(names)}
    for column, record in enumerate(records):
        for name, value in record["layers"].items():
            if value is not None:
                grid[row[name], column] = value
    return names, [r["step"] for r in records], grid


def heat(ax: Axes, names: list[str], steps: list[int], grid: np.ndarray) -> Any:
    """Gradient norms as colours on a log scale: a row per parameter, first layer on top, time to the right."""
    positive = grid[grid > 0]
    low, high = (np.quantile(positive, 0.01), positive.max()) if len(positive) else (1e-8, 1.0)
    edges = np.asarray([*steps, steps[-1] + (steps[-1] - steps[-2] if len(steps) > 1 else 1)], float)
    shown = np.where(grid > 0, grid, np.nan)
    ax.grid(False)
    scale = LogNorm(min(low, high / 10), high)
    image = ax.pcolormesh(edges, np.arange(len(names) + 1), shown, norm=scale, cmap="cividis", rasterized=True)
    ax.set_ylim(len(names), 0)
    every = -(-len(names) // 60)
    ax.set_yticks(np.arange(0, len(names), every) + 0.5, [tail(n) for n in names[::every]], fontsize=7.5)
    ax.tick_params(axis="y", length=0)
    _steps(ax)
    figure = ax.figure
    bar = figure.colorbar(image, ax=ax, pad=0.02, aspect=30)
    bar.set_label("gradient norm")
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: number(y)))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.ax.tick_params(which="both", length=0)
    bar.outline.set_visible(False)  # type: ignore[operator]
    return image


def tail(name: str, length: int = 30) -> str:
    """The end of a parameter's name, which tells more than its start."""
    name = name.removeprefix("model.")
    return name if len(name) <= length else "…" + name[-length + 1 :]
