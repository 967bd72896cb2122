"""A learned bias of attention for the distance between two tokens, in place of positions.

Paper: Raffel et al. 2020, section 2.1, as in the published code: distances fall into buckets, half of them of one distance, the
others growing by a factor up to the furthest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class DistanceBias(nn.Embedding):
    """A number per head for each of `buckets` of distances, which do not change from `furthest` on.

    both: later keys have buckets of their own, the upper half; else there are none
    """

    def __init__(self, buckets: int, heads: int, furthest: int, both: bool) -> None:
        super().__init__(buckets, heads)
        self.furthest, self.both = furthest, both

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:  # type: ignore[override]
        """Places (T,) and (S,) to what is added to the products of queries and keys, (1, H, T, S)."""
        distance = keys - queries[:, None]
        return super().forward(bucket(distance, self.num_embeddings, self.furthest, self.both)).permute(2, 0, 1)[None]


def bucket(distance: Tensor, buckets: int, furthest: int, both: bool) -> Tensor:
    """Key's place minus query's to the number of its bias; `both`: later keys have the upper half of the buckets."""
    base = torch.zeros_like(distance)
    if both:
        buckets //= 2
        base, distance = torch.where(distance > 0, buckets, 0), distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = buckets // 2
    far = (distance.clamp(min=1).float() / exact).log() / math.log(furthest / exact) * (buckets - exact)
    return base + torch.where(distance < exact, distance, (exact + far.long()).clamp(max=buckets - 1))


__all__ = ["DistanceBias", "bucket"]
