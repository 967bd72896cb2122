"""Sliced Wasserstein distance between two sets of pictures: how far apart they are along many fixed directions.

Along one direction two sets of equal size are matched in order of size, which is the cheapest way to carry one to the other;
the distance is the mean way (Rabin et al. 2012; Bonneel et al. 2015, section 3). It sees modes that are missing, needs no
trained network and little time. Karras et al. 2018 (section 5) cut patches out of pictures first, because directions through
whole pictures hardly see local structure; here every direction looks at a window of its own, from 3 x 3 to the whole.
"""

from __future__ import annotations

import torch
from torch import Tensor


def directions(shape: tuple[int, int, int], count: int = 128, seed: int = 0) -> Tensor:
    """(C * H * W, count) columns of length 1, each zero outside a window of its own; the same for the same arguments."""
    random = torch.Generator().manual_seed(seed)
    channels, height, width = shape
    columns = torch.zeros(count, channels, height, width)
    for column in columns:
        draw = torch.rand(4, generator=random).tolist()
        tall = min(height, 3 + int(draw[0] * (height - 2)))
        wide = min(width, 3 + int(draw[1] * (width - 2)))
        top, left = int(draw[2] * (height - tall + 1)), int(draw[3] * (width - wide + 1))
        values = torch.randn(channels, tall, wide, generator=random)
        column[:, top : top + tall, left : left + wide] = values / values.norm()
    return columns.flatten(1).T.contiguous()


def transport(real: Tensor, fake: Tensor) -> Tensor:
    """(N, P) and (N, P) projections to (N,): how far the match of each real row is, the mean over the P directions.

    The mean over rows is the sliced Wasserstein distance. ValueError when the numbers of rows differ.
    """
    if real.shape != fake.shape:
        raise ValueError(f"sets of equal size are matched; got {tuple(real.shape)} and {tuple(fake.shape)}")
    ordered, places = real.sort(0)
    ways = (ordered - fake.sort(0).values).abs()
    return torch.empty_like(ways).scatter_(0, places, ways).mean(1)
