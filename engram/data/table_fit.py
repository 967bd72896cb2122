"""What a TableSpec learns from the training rows: medians, spread, quantile bins and known categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from engram.data.columns import Column
from engram.data.table_spec import TableSpec, category_words, raw_features, squash

BINS = 24  # most bins per numeric feature
MOST_CATEGORIES = 256  # rarer values of a category share index 0
HEAVY = 8.0  # standard deviations: a feature with a training value further out is passed through asinh first


def fit_spec(train: pd.DataFrame, columns: Sequence[Column], **target: Any) -> TableSpec:
    """A TableSpec whose every figure comes from the training rows; `target` gives the fields about the target."""
    kinds = {c.name: c.kind for c in columns}
    day_first, loose = tuple(c.name for c in columns if c.day_first), tuple(c.name for c in columns if c.loose)
    features: dict[str, tuple[float, float, float, float, tuple[float, ...]]] = {}
    for name, values in raw_features(train, kinds, day_first, loose).items():
        known = values[~np.isnan(values)]
        if len(known) and (np.ptp(known) > 0 or name in kinds):  # a part of a date that never changes says nothing
            features[name] = _fit_feature(values, float(np.median(known)))
    categories = {}
    for name in (n for n, kind in kinds.items() if kind in ("category", "boolean")):
        counts = category_words(train[name], kinds[name]).value_counts()
        categories[name] = tuple(sorted(str(w) for w in counts.index[:MOST_CATEGORIES]))
    median, tail, mean, std, bins = zip(*features.values(), strict=True) if features else ((),) * 5
    return TableSpec(
        columns=dict(kinds), day_first=day_first, numeric=tuple(features), median=median, tail=tail, mean=mean, std=std,
        bins=bins, categories=categories, loose=loose, **target,
    )  # fmt: skip


def _fit_feature(values: np.ndarray, median: float) -> tuple[float, float, float, float, tuple[float, ...]]:
    """(median, tail, mean, std, bins) of one feature."""
    filled = np.where(np.isnan(values), median, values)
    away = np.abs(filled - median)
    tail = float(np.quantile(away, 0.75) or away.mean()) if away.max() > HEAVY * filled.std() else 0.0
    filled = squash(filled, median, tail)
    mean, std = float(filled.mean()), float(filled.std()) or 1.0
    filled = (filled - mean) / std
    edges = np.unique(filled)
    if len(edges) > BINS + 1:
        edges = np.unique(np.quantile(filled, np.linspace(0, 1, BINS + 1)))
    if len(edges) == 1:
        edges = np.array([edges[0], edges[0] + 1.0])
    return median, tail, mean, std, tuple(edges.tolist())
