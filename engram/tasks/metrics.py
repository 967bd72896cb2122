"""Metrics from counts that add up over batches."""

from __future__ import annotations

import torch
from torch import Tensor


def confusion(target: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Counts (classes, classes): row = true class, column = predicted class."""
    return torch.bincount(target * classes + predicted, minlength=classes * classes).view(classes, classes)


def accuracy(counts: Tensor) -> float:
    """Share of rows on the diagonal of a confusion matrix."""
    return float(counts.trace().double() / counts.sum())


def macro_f1(counts: Tensor) -> float:
    """Mean F1 = 2 TP / (2 TP + FP + FN) over the classes that occur among targets or predictions, as scikit-learn has it."""
    counts = counts.double()
    both = counts.sum(0) + counts.sum(1)
    return float((2 * counts.diagonal()[both > 0] / both[both > 0]).mean())


def roc_auc(scores: Tensor, positive: Tensor) -> float | None:
    """Area under the ROC curve: the chance that a positive row scores above a negative one, ties half (Mann & Whitney 1947).

    Exact, by ranks. None when all rows are of one class: the area is then not defined.
    """
    _, place, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - (counts - 1) / 2).double()[place]
    positives = int(positive.sum())
    negatives = len(scores) - positives
    if not positives or not negatives:
        return None
    above = float(ranks[positive.bool()].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)
