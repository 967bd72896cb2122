"""Losses of rows against targets. Each is a mean, computed in float32 at least, and refuses shapes that would broadcast.

Wrong shapes raise DataError (they come from the targets), wrong numbers of class weights ConfigError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.core.errors import ConfigError, DataError


def cross_entropy(logits: Tensor, target: Tensor, class_weights: Tensor | None = None, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of logits (rows, classes) and class numbers (rows,), the mean over rows.

    With class weights w the mean is weighted: sum of w[y] * loss over sum of w[y]; that sum is the weight of the batch, and
    where it is 0 the loss is 0. Label smoothing s (Szegedy et al. 2016, section 7) puts s / classes on every class; a row
    then still counts as much as its own class, where torch weighs each class of the smoothed target by itself.
    Raises DataError or ConfigError.
    """
    if logits.dim() != 2 or target.shape != logits.shape[:1]:
        raise DataError(_class_shapes(logits, target))
    if target.dtype != torch.int64:
        target = _class_numbers(target)
    if class_weights is None:
        return F.cross_entropy(_precise(logits), target, label_smoothing=label_smoothing)
    if len(class_weights) != logits.shape[1]:
        raise ConfigError(f"{len(class_weights)} class weights for {logits.shape[1]} classes; give one weight per class")
    each = F.cross_entropy(_precise(logits), target, label_smoothing=label_smoothing, reduction="none")
    weights = class_weights[target]
    return (each * weights).sum() / weights.sum().clamp(min=1e-12)


def token_cross_entropy(logits: Tensor, target: Tensor, ignore: int, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits (rows, classes) and class numbers (rows,) over the rows whose class is not `ignore`; 0 where
    no row counts."""
    total = F.cross_entropy(_precise(logits), target, ignore_index=ignore, reduction="sum", label_smoothing=label_smoothing)
    return total / (target != ignore).sum().clamp(min=1)


def binary_cross_entropy(logits: Tensor, target: Tensor, positive_weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of logits and targets 0 or 1 of the same shape, the mean over all elements.

    `positive_weights` (labels,) multiplies the loss where the target is 1. Raises DataError.
    """
    same_shape(logits, target)
    precise = _precise(logits)
    return F.binary_cross_entropy_with_logits(precise, target.to(precise.dtype), pos_weight=positive_weights)


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all elements. Raises DataError when the shapes differ."""
    same_shape(prediction, target)
    return F.mse_loss(_precise(prediction), target)


def mae(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error over all elements. Raises DataError when the shapes differ."""
    same_shape(prediction, target)
    return F.l1_loss(_precise(prediction), target)


def huber(prediction: Tensor, target: Tensor) -> Tensor:
    """Huber 1964 with its bend at 1: squared below, absolute above. Raises DataError when the shapes differ."""
    same_shape(prediction, target)
    return F.huber_loss(_precise(prediction), target)


REGRESSION: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": mse, "mae": mae, "huber": huber}


def same_shape(prediction: Tensor, target: Tensor) -> None:
    """Raises DataError that says how to mend it when the shapes differ: a broadcast loss trains something else in silence."""
    if prediction.shape != target.shape:
        raise DataError(_shapes(tuple(prediction.shape), tuple(target.shape)))


def weight_tensor(values: Sequence[float], what: str) -> Tensor:
    """Weights as a tensor (n,). Raises ConfigError unless they are finite, not negative, and not all 0."""
    for value in values:
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{what} holds {value}: give finite weights of at least 0")
    if not any(values):
        raise ConfigError(f"{what} are all 0: nothing would count; give at least one positive weight")
    return torch.tensor([float(v) for v in values])


def _precise(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _shapes(prediction: tuple[int, ...], target: tuple[int, ...]) -> str:
    said = f"prediction has shape {prediction} and target {target}: "
    try:
        said += f"they would broadcast to {tuple(torch.broadcast_shapes(prediction, target))}; "
    except RuntimeError:
        said += "they do not fit; "
    if (*target, 1) == prediction:
        return f"{said}give the target shape {prediction}, e.g. y[{':, ' * len(target)}None]"
    if (*prediction, 1) == target:
        return f"{said}give the target shape {prediction}, e.g. y[{':, ' * len(prediction)}0]"
    return f"{said}give the target shape {prediction}, or the network {_outputs(target)}"


def _outputs(target: tuple[int, ...]) -> str:
    return f"{target[1]} outputs" if len(target) == 2 else f"an output of shape {target}"


def _class_shapes(logits: Tensor, target: Tensor) -> str:
    got = f"the network gives shape {tuple(logits.shape)} and the target has {tuple(target.shape)}: "
    if logits.dim() != 2:
        return f"{got}cross-entropy needs an output of shape (rows, classes); let the last layer give one number per class"
    wanted = f"give the target shape ({len(logits)},)"
    if target.dim() == 2 and target.shape[0] == len(logits):
        how = "y[:, 0]" if target.shape[1] == 1 else "y.argmax(1)"
        return f"{got}cross-entropy needs one class number per row; {wanted}, e.g. {how}"
    return f"{got}cross-entropy needs one class number per row; {wanted}"


def _class_numbers(target: Tensor) -> Tensor:
    if target.is_floating_point():
        raise DataError(f"the target holds {target.dtype}: classes are whole numbers from 0; give y.long(), or take regression")
    return target.long()
