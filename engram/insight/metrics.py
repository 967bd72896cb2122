"""How good the predictions are, in plain JSON values with 95 % intervals; each beside what blind guessing would reach.

A figure with an interval is {"value", "low", "high"}; low and high are None where no interval is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engram.insight.intervals import auc, median_interval, resampled_cells, resampled_sums, wilson

BINS = 15  # of the reliability diagram, as in Guo et al. 2017
MATRIX = 200  # classes up to which the whole confusion matrix is kept
PAIRS = 30  # commonest mistakes to list
LEAST = float(np.finfo(np.float32).eps)  # probabilities below count as this in the log loss, as in scikit-learn
AUC_CELLS = 5_000_000  # rows * classes up to which the one-vs-rest ROC-AUC is computed


class Tally:
    """Everything that classification figures need, gathered batch by batch in memory that does not grow with the rows."""

    def __init__(self, classes: Sequence[str]):
        self.classes = [str(c) for c in classes]
        count = len(self.classes)
        self.confusion = np.zeros((count, count), np.int64)  # [true, predicted]
        self.bins = np.zeros((3, BINS))  # rows, sum of confidence, right ones
        self.log_loss = self.brier = 0.0

    def add(self, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Count rows: probabilities (N, C), targets (N,) class numbers. Returns the log loss of each row (N,)."""
        p, t = np.asarray(probabilities, np.float64), np.asarray(targets, np.int64)
        count = len(self.classes)
        predicted, confidence = p.argmax(1), p.max(1)
        self.confusion += np.bincount(t * count + predicted, minlength=count * count).reshape(count, count)
        # bins are open on the left: (0, 1/15], (1/15, 2/15] ...
        which = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        for row, weights in enumerate((None, confidence, (predicted == t).astype(float))):
            self.bins[row] += np.bincount(which, weights, BINS)
        of_target = p[np.arange(len(t)), t]
        losses = -np.log(np.clip(of_target, LEAST, 1.0))
        self.log_loss += float(losses.sum())
        squares = (p * p).sum(1) - 2 * of_target + 1
        self.brier += float(squares.sum()) / (2 if count == 2 else 1)
        return losses

    def figures(self, scores: np.ndarray | None = None, targets: np.ndarray | None = None) -> dict[str, Any]:
        """The figures so far; ROC-AUC from `scores` (N, C) and `targets` of all rows or of a random part of them."""
        confusion, rows = self.confusion, int(self.confusion.sum())
        support, guessed, right = confusion.sum(1), confusion.sum(0), confusion.diagonal()
        f1 = _share(2 * right, support + guessed)
        cells = np.flatnonzero(confusion)
        f1_spread, balanced_spread = resampled_cells(confusion.ravel()[cells], _ByClass(cells, len(confusion)))
        filled = self.bins[0] > 0
        gap = np.abs(self.bins[1] - self.bins[2])
        return {
            "rows": rows,
            "accuracy": _figure(right.sum() / rows, *wilson(int(right.sum()), rows)),
            "balanced_accuracy": _figure(np.nanmean(_share(right, support)), *balanced_spread),
            "macro_f1": _figure(np.nanmean(f1), *f1_spread),
            "roc_auc": _roc_auc(scores, targets) if scores is not None and targets is not None else None,
            "log_loss": self.log_loss / rows,
            "brier": self.brier / rows,
            "ece": float(gap.sum() / rows),
            "baseline_accuracy": float(support.max() / rows),
            "baseline_class": self.classes[int(support.argmax())],
            "classes": self.classes,
            "per_class": [
                {"class": name, "precision": _plain(p), "recall": _plain(r), "f1": _plain(f), "support": int(s)}
                for name, p, r, f, s in zip(
                    self.classes, _share(right, guessed), _share(right, support), f1, support, strict=True
                )
            ],
            "reliability": [
                {"low": i / BINS, "high": (i + 1) / BINS, "rows": int(n), "confidence": float(c / n), "accuracy": float(a / n)}
                for i, (n, c, a) in enumerate(self.bins.T)
                if filled[i]
            ],
            "confusion": confusion.tolist() if len(confusion) <= MATRIX else None,
            "confused": self._confused(),
        }

    def _confused(self) -> list[dict[str, Any]]:
        """The commonest mistakes, most frequent first."""
        wrong = self.confusion - np.diag(self.confusion.diagonal())
        order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
        pairs = [(*np.divmod(int(cell), len(wrong)), int(wrong.flat[cell])) for cell in order]
        return [{"true": self.classes[t], "predicted": self.classes[p], "rows": n} for t, p, n in pairs if n]


def classification(probabilities: Any, targets: Any, classes: Sequence[str]) -> dict[str, Any]:
    """Figures of probabilities (N, C) against class numbers (N,), N >= 1.

    accuracy (Wilson interval), balanced_accuracy and macro_f1 (bootstrap), roc_auc (DeLong for two classes; mean of one-vs-rest
    for more), log_loss (nats), brier (0 to 1 for two classes, 0 to 2 for more), ece, baseline_accuracy (always the commonest
    class), per_class, reliability, confusion [true][predicted] (None above 200
    classes), confused (the commonest mistakes). Classes that neither occur nor are predicted count nowhere.
    """
    tally = Tally(classes)
    p, t = np.asarray(probabilities), np.asarray(targets)
    tally.add(p, t)
    return tally.figures(p, t)


def regression(values: Any, targets: Any) -> dict[str, Any]:
    """Figures of predictions (N,) against targets (N,), N >= 1, in the target's units.

    rmse, mae, r2 (bootstrap intervals), median_abs_error (order statistics), bias (mean of predicted minus true), baseline_rmse
    (always guessing the mean). r2 is None when the targets do not vary.
    """
    v, t = np.asarray(values, np.float64).ravel(), np.asarray(targets, np.float64).ravel()
    error, centred = v - t, t - t.mean()
    columns = np.stack([np.ones_like(t), error**2, np.abs(error), centred, centred**2], 1)
    rmse, mae, r2 = _fits(columns.sum(0, keepdims=True))[:, 0]
    spread = resampled_sums(columns, _fits) if len(t) > 1 else [(None, None)] * 3
    size = np.sort(np.abs(error))
    baseline = float(np.sqrt((centred**2).mean()))
    return {
        "rows": len(t),
        "rmse": _figure(rmse, *spread[0]),
        "mae": _figure(mae, *spread[1]),
        "r2": _figure(r2, *spread[2]) if baseline > 0 else None,
        "median_abs_error": _figure(np.median(size), *median_interval(size)),
        "bias": float(error.mean()),
        "baseline_rmse": baseline,
        "baseline_value": float(t.mean()),
    }


def _fits(sums: np.ndarray) -> np.ndarray:
    """RMSE, MAE and R2 (3, draws) from sums (draws, 5) of 1, error^2, |error|, centred target and its square."""
    n, squares, sizes, first, second = sums.T
    total = second - first**2 / n
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([np.sqrt(squares / n), sizes / n, np.where(total > 0, 1 - squares / total, np.nan)])


class _ByClass:
    """Sums of the nonzero cells of a confusion matrix by true class, by predicted class and on the diagonal."""

    def __init__(self, cells: np.ndarray, classes: int):
        self.true, self.guess = np.divmod(cells, classes)
        self.hit = np.flatnonzero(self.true == self.guess)
        self.classes = classes
        self.by_guess = np.argsort(self.guess, kind="stable")

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        """Counts (draws, cells) to macro F1 and balanced accuracy (2, draws)."""
        right, support, guessed = (np.zeros((len(counts), self.classes)) for _ in range(3))
        right[:, self.true[self.hit]] = counts[:, self.hit]
        names, starts = np.unique(self.true, return_index=True)  # cells are in the order of their true class
        support[:, names] = np.add.reduceat(counts, starts, axis=1)
        names, starts = np.unique(self.guess[self.by_guess], return_index=True)
        guessed[:, names] = np.add.reduceat(counts[:, self.by_guess], starts, axis=1)
        f1, recall = _share(2 * right, support + guessed), _share(right, support)
        return np.stack([np.nanmean(f1, axis=1), np.nanmean(recall, axis=1)])


def _roc_auc(scores: np.ndarray, targets: np.ndarray) -> dict[str, float | None] | None:
    if scores.shape[1] == 2:
        found = auc(scores[:, 1], targets == 1)
        return _figure(*found) if found else None
    if scores.size > AUC_CELLS:
        return None
    areas = [found[0] for c in range(scores.shape[1]) if (found := auc(scores[:, c], targets == c))]
    return _figure(float(np.mean(areas)), None, None) if areas else None


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, nan where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _figure(value: Any, low: float | None, high: float | None) -> dict[str, float | None]:
    return {"value": _plain(value), "low": _plain(low), "high": _plain(high)}


def _plain(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
