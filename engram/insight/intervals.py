"""95 % intervals: Wilson for shares, DeLong for ROC-AUC, bootstrap for what has no formula. Plain numbers in and out."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
GROUPS = 4000  # rows are resampled in at most this many groups
CELLS = 2_000_000  # counts drawn at once: bounds memory and time


def wilson(right: int, rows: int, z: float = Z95) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927): holds for small samples and for shares near 0 and 1."""
    if rows == 0:
        return 0.0, 1.0
    share = right / rows
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    # exact at the ends, where rounding would leave a trace
    return (0.0 if right == 0 else middle - half), (1.0 if right == rows else middle + half)


def resampled_cells(
    counts: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], draws: int = 1000, seed: int = 0
) -> list[tuple[float, float]]:
    """Percentile bootstrap of statistics of counts (K,): resampling rows is one multinomial draw over the cells.

    `statistic` maps counts (draws, K) to (S, draws); one interval for each of the S statistics. The cost does not depend on the
    number of rows; with many cells there are fewer draws, at least 200.
    """
    total, rng = int(counts.sum()), np.random.default_rng(seed)
    draws = max(200, min(draws, CELLS // len(counts)))
    at_once = max(1, CELLS // len(counts))
    sizes = [min(at_once, draws - start) for start in range(0, draws, at_once)]
    found = [statistic(rng.multinomial(total, counts / total, size=size)) for size in sizes]
    quantiles = np.nanquantile(np.concatenate(found, axis=1), [0.025, 0.975], axis=1)
    return [(float(low), float(high)) for low, high in quantiles.T]


def resampled_sums(
    columns: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], draws: int = 1000, seed: int = 0
) -> list[tuple[float, float]]:
    """Percentile bootstrap of statistics of sums over rows, `columns` (rows, K).

    `statistic` maps sums (draws, K) to (S, draws); one interval for each of the S statistics. Many rows are first summed in
    random groups, which keeps the variance of a sum and makes the cost independent of the number of rows. A group may hold one
    row more than another, so a statistic divides by a column that counts, not by the number of rows.
    """
    rng = np.random.default_rng(seed)
    rows = len(columns)
    groups = min(rows, GROUPS)
    if groups < rows:
        starts = np.arange(groups) * rows // groups
        columns = np.add.reduceat(columns[rng.permutation(rows)], starts, axis=0)
    sums = []
    for _ in range(0, draws, 100):
        index = rng.integers(groups, size=(100, groups)) + groups * np.arange(100)[:, None]
        times = np.bincount(index.ravel(), minlength=100 * groups).reshape(100, groups)
        sums.append(times @ columns)
    values = statistic(np.concatenate(sums))
    values[np.isnan(values).all(axis=1)] = 0.0  # undefined in every draw; the caller reports no value either
    quantiles = np.nanquantile(values, [0.025, 0.975], axis=1)
    return [(float(low), float(high)) for low, high in quantiles.T]


def median_interval(sorted_values: np.ndarray, z: float = Z95) -> tuple[float, float]:
    """Distribution-free interval of the median: two order statistics (normal approximation of the binomial ranks)."""
    n = len(sorted_values)
    half = z * math.sqrt(n) / 2
    low, high = math.floor(n / 2 - half), math.ceil(n / 2 + half)
    return float(sorted_values[max(low, 0)]), float(sorted_values[min(high, n - 1)])


def auc(scores: np.ndarray, positive: np.ndarray, z: float = Z95) -> tuple[float, float, float] | None:
    """Area under the ROC curve with its interval (DeLong et al. 1988, by ranks as in Sun and Xu 2014).

    scores (N,), positive (N,) bool. None when one of the two classes is absent. Ties count half.
    """
    ones, zeros = scores[positive], scores[~positive]
    m, n = len(ones), len(zeros)
    if m == 0 or n == 0:
        return None
    # share of the other class below each row: its structural component
    above = placements(ones, zeros)
    area = float(above.mean())
    if m < 2 or n < 2:
        return area, 0.0, 1.0
    below = 1 - placements(zeros, ones)
    half = z * math.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n)
    return area, max(area - half, 0.0), min(area + half, 1.0)


def placements(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each value the share of `others` that is smaller, ties counting half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2 * len(others))
