"""How well a score tells odd rows from normal ones: shares above a threshold, and the ROC curve with its area."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.core.predictor import View

GRID = 100  # steps of the curve


def told_apart(held: dict[str, Tensor], score: Tensor, threshold: float) -> tuple[dict[str, Tensor], float]:
    """More columns, and the area under the ROC curve.

    The area is the mean over odd rows of the share of normal rows below, and the mean over normal rows of the share of odd rows
    above. Resampled together (their sum less the area) they vary as the area does (DeLong et al. 1988, section 3).
    """
    odd = held["odd"].bool()
    below, above = torch.zeros_like(score), torch.zeros_like(score)
    below[odd] = placements(score[odd], score[~odd])
    above[~odd] = 1 - placements(score[~odd], score[odd])
    high = (score > threshold).double()
    more = {"normal": (~odd).double(), "below": below, "above": above, "found": high * odd, "alarms": high * ~odd}
    return held | more, float(below[odd].mean())


def placements(values: Tensor, others: Tensor) -> Tensor:
    """For each value the share of `others` that is smaller, ties counting half."""
    ordered = others.sort().values
    found = torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)
    return found.double() / (2 * len(others))


def roc_curve(scores: Tensor, odd: Tensor) -> View:
    """Share of the odd ones found for every share of false alarms."""
    alarms = torch.linspace(0, 1, GRID + 1, dtype=torch.float64)
    normal, strange = scores[~odd].sort(descending=True).values, scores[odd]
    cuts = normal[(alarms * len(normal)).long().clamp(max=len(normal) - 1)]
    found = (strange[None] > cuts[:, None]).double().mean(1)
    found[-1] = 1.0
    area = float(placements(strange, scores[~odd]).mean())
    x, y = ([round(v, 5) for v in values.tolist()] for values in (alarms, found))
    series = {"odd ones found": y, "guessing": x}
    data = {"x": x, "series": series, "xlabel": "share of false alarms", "ylabel": "share of the odd ones found"}
    return View("roc", f"ROC curve of the odd pictures: area {area:.3f}", "lines", data)
