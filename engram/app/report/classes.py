"""Which classes are confused, and whether the probabilities can be believed."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from engram.app.report.drawing import BLUE, INK, PAPER, RED, SOFT, short
from engram.insight.intervals import wilson

WHOLE = 25  # classes up to which the whole matrix is drawn
SHOWN = 20  # of more classes the most confused
LABELLED = 14  # classes up to which cells carry their count


def order(confusion: np.ndarray) -> np.ndarray:
    """Class numbers, confused ones side by side: first the one with most errors, then always the one most confused with it."""
    both = confusion + confusion.T
    both = both - np.diag(both.diagonal())
    wrong = both.sum(1)
    left = set(range(len(both)))
    here = int(wrong.argmax())
    found = [here]
    left.remove(here)
    while left:
        here = max(left, key=lambda c: (both[here, c], wrong[c], -c))
        found.append(here)
        left.remove(here)
    return np.asarray(found)


def shown_classes(confusion: np.ndarray) -> np.ndarray:
    """Class numbers to draw: all of a few, else those with the most mistakes; confused ones side by side."""
    if len(confusion) <= WHOLE:
        return order(confusion)
    mistakes = confusion.sum(0) + confusion.sum(1) - 2 * confusion.diagonal()
    most = np.argsort(-mistakes, kind="stable")[:SHOWN]
    return most[order(confusion[np.ix_(most, most)])]


def matrix(ax: Axes, metrics: dict[str, Any]) -> None:
    """Confusion matrix: colour is the share of the true class (row), numbers are rows."""
    whole = np.asarray(metrics["confusion"])
    chosen = shown_classes(whole)
    counts = whole[np.ix_(chosen, chosen)]
    share = counts / np.maximum(whole.sum(1)[chosen][:, None], 1)
    size = len(chosen)
    for i in range(size):
        for j in range(size):
            if counts[i, j]:
                # transparent colour on the page's paper: right in light and dark
                depth = 0.08 + 0.92 * share[i, j]
                colour = BLUE if i == j else RED
                ax.add_patch(Rectangle((j + 0.02, i + 0.02), 0.96, 0.96, facecolor=colour, alpha=depth, linewidth=0))
                if size <= LABELLED:
                    ink = PAPER if depth > 0.55 else INK
                    ax.text(j + 0.5, i + 0.5, f"{counts[i, j]:,}", ha="center", va="center", color=ink, fontsize=9 - size / 5)
    names = [short(metrics["classes"][c], 14) for c in chosen]
    small = 9 if size <= 12 else 7
    numbers = np.arange(size) + 0.5
    ax.set_xticks(numbers, names, rotation=0 if max(map(len, names)) <= 2 else 90, fontsize=small)
    ax.set_yticks(numbers, names, fontsize=small)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.set(xlim=(0, size), ylim=(size, 0), xlabel="predicted", ylabel="true", aspect="equal")


def reliability(ax: Axes, metrics: dict[str, Any]) -> None:
    """Share that is right against the probability that was said, with 95 % intervals; a dot's area is its share of rows."""
    bins = metrics["reliability"]
    said, right = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
    total = sum(b["rows"] for b in bins)
    ax.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=":", zorder=0)
    for b in bins:
        interval = wilson(round(b["accuracy"] * b["rows"]), b["rows"])
        ax.plot([b["confidence"]] * 2, interval, color=BLUE, alpha=0.4, linewidth=1.4)
    ax.scatter(said, right, s=[16 + 260 * b["rows"] / total for b in bins], color=BLUE, linewidths=0)
    lowest = min(min(said), 1 / max(len(metrics["classes"]), 1))
    ax.set(xlim=(max(lowest - 0.05, 0), 1.02), ylim=(-0.03, 1.03), xlabel="probability said", ylabel="share right")
    ax.annotate("too sure", (0.97, 0.06), xycoords="axes fraction", ha="right", color=SOFT)
    ax.annotate("too modest", (0.03, 0.9), xycoords="axes fraction", color=SOFT)
