"""The bias for distances: its buckets are the published ones, and a query alone gets the row that it gets among others."""

from __future__ import annotations

import pytest
import torch

from engram.nn.distance import DistanceBias, bucket


@pytest.mark.parametrize("both", [False, True])
def test_buckets_as_published(both: bool) -> None:
    """Every distance from -300 to 300 at the published 32 buckets up to 128."""
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-300, 301)
    want = T5Attention._relative_position_bucket(distance, both, 32, 128)
    assert torch.equal(bucket(distance, 32, 128, both), want)


@pytest.mark.parametrize("both", [False, True])
def test_one_query_has_its_row_of_the_whole(both: bool) -> None:
    torch.manual_seed(0)
    bias, place = DistanceBias(8, 3, 9, both), torch.arange(12)
    whole = bias(place, place)
    assert whole.shape == (1, 3, 12, 12)
    assert torch.equal(bias(place[-1:], place), whole[:, :, -1:])
    later = whole[0, :, 0, 1:]
    assert torch.equal(later, whole[0, :, :1, 0].expand_as(later)) != both, "later keys have no bias of their own, or have one"
