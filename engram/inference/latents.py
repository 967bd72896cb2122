"""Looks into a latent space: where pictures lie, what lies between them, and how much each number says."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.core.predictor import View
from engram.nn.gaussian import LatentUse

Decode = Callable[[Tensor], Tensor]  # codes (B, L) to uint8 pictures (B, C, H, W)
SIDE = 12  # pictures along each side of a grid


def principal(codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (L,), the two directions of most variance (2, L), and the deviations along them (2,).

    Of one or two numbers: the axes themselves, with the prior's mean 0 and deviation 1.
    """
    size = codes.shape[1]
    if size <= 2:
        return torch.zeros(size), torch.eye(2)[:, :size], torch.ones(2)
    centre = codes.mean(0)
    rest = F.pad(codes - centre, (0, 0, 0, max(0, 2 - len(codes))))  # one picture alone: two directions of no variance
    _, singular, directions = torch.linalg.svd(rest, full_matrices=False)
    directions = directions[:2] * directions[:2].sum(1, keepdim=True).sign()  # the sign is free: make it repeatable
    return centre, directions, singular[:2] / max(len(codes) - 1, 1) ** 0.5


def latent_map(codes: Tensor, labels: list[str]) -> View:
    """Codes (N, L) as points, along the two directions of most variance."""
    centre, directions, _ = principal(codes)
    at = (codes - centre) @ directions.T
    points = {"x": _numbers(at[:, 0]), "y": _numbers(at[:, 1]), "label": labels}
    return View("latent-map", "Test pictures in the latent space", "points", points)


def latent_grid(codes: Tensor, decode: Decode) -> View:
    """Pictures at the quantiles of a normal distribution along two directions: a walk through what the network can draw."""
    centre, directions, deviations = principal(codes)
    steps = torch.special.ndtri((torch.arange(SIDE) + 0.5) / SIDE)
    across = torch.stack(torch.meshgrid(steps.flip(0), steps, indexing="ij"), -1).reshape(-1, 2).flip(1)  # (SIDE^2, 2)
    z = centre + (across * deviations) @ directions
    how = "of the two latent numbers" if codes.shape[1] == 2 else "of two directions"
    return View("latent-grid", f"Pictures at the quantiles {how}", "pictures", {"columns": SIDE, "captions": []}, decode(z))


def interpolation(starts: Tensor, ends: Tensor, decode: Callable[[Tensor, Tensor], Tensor], steps: int = 10) -> View:
    """Straight lines between codes (N, L) and (N, L), a row each. `decode` takes codes and the row each is of."""
    share = torch.linspace(0, 1, steps)[None, :, None]
    z = starts[:, None] + share * (ends - starts)[:, None]  # (N, steps, L)
    rows = torch.arange(len(starts)).repeat_interleave(steps)
    captions = {"columns": steps, "captions": []}
    return View("interpolation", "From one test picture to another", "pictures", captions, decode(z.flatten(0, 1), rows))


def kl_per_number(use: LatentUse) -> View:
    """Mean KL of each latent number, the largest first."""
    order = use.kl.argsort(descending=True, stable=True)
    title = f"KL per latent number, {int(use.active.sum())} of {len(order)} in use"
    if use.collapsed:
        title = f"Posterior collapse: the code says {use.kl.sum().item() / math.log(2):.2g} bits"
    bars = {"names": [str(i) for i in order.tolist()], "values": _numbers(use.kl[order]), "ylabel": "KL in nats per picture"}
    return View("kl-per-number", title, "bars", bars)


def reconstructions(given: Tensor, back: Tensor) -> View:
    """Pictures, uint8 (N, C, H, W), above what their codes give back."""
    captions = {"columns": len(given), "captions": []}
    return View("reconstructions", "Test pictures, and what their codes give back", "pictures", captions,
                torch.cat([given, back]))  # fmt: skip


def _numbers(values: Tensor) -> list[float]:
    return [round(v, 5) for v in values.double().tolist()]
