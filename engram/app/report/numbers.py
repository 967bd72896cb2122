"""Predicted against true numbers, and what is left over."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from engram.app.report.drawing import BLUE, RED, SOFT
from engram.app.verdict import number

DOTS = 1500  # most dots in a picture


def against(ax: Axes, values: np.ndarray, targets: np.ndarray, target: str) -> None:
    """Predicted (up) against true (right); on the line it would be right."""
    if len(values) > DOTS:
        chosen = np.random.default_rng(0).permutation(len(values))[:DOTS]
        values, targets = values[chosen], targets[chosen]
    low, high = min(values.min(), targets.min()), max(values.max(), targets.max())
    size = 14 if len(values) < 500 else 6
    see = 0.8 if len(values) < 100 else 0.35
    ax.scatter(targets, values, s=size, color=BLUE, alpha=see, linewidths=0)
    ax.plot([low, high], [low, high], color=RED, linewidth=1.2, linestyle="--")
    ax.set(xlabel=f"true {target}", ylabel=f"predicted {target}")
    for axis in (ax.xaxis, ax.yaxis):
        _plain(axis)


def residuals(ax: Axes, values: np.ndarray, targets: np.ndarray, target: str) -> None:
    """How often the prediction is off by how much; the outermost bars hold all that lie beyond."""
    error = values - targets
    low, high = np.quantile(error, [0.005, 0.995])
    if low == high:
        low, high = low - 1, high + 1
    bins = max(10, min(50, int(np.sqrt(len(error)))))
    ax.hist(np.clip(error, low, high), bins=bins, range=(low, high), color=BLUE, alpha=0.75, rwidth=0.92)
    ax.axvline(0, color=SOFT, linewidth=1)
    ax.axvline(float(error.mean()), color=RED, linewidth=1.2, linestyle="--", label=f"mean {number(float(error.mean()))}")
    ax.set(xlabel=f"predicted minus true {target}", ylabel="rows")
    _plain(ax.xaxis)
    ax.legend()


def _plain(axis: object) -> None:
    """Few ticks, in the words of the text: 200,000 and not 2e5."""
    axis.set_major_locator(MaxNLocator(5))  # type: ignore[attr-defined]
    axis.set_major_formatter(FuncFormatter(lambda x, _: number(x)))  # type: ignore[attr-defined]
