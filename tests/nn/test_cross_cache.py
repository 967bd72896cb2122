"""The cache of sources: whatever becomes of its rows, each looks at its own source, and beams share one."""

from __future__ import annotations

import pytest
import torch

from engram.nn.attention import Attend, lengths_mask
from engram.nn.cache import KVCache
from engram.nn.cross_cache import CrossCache, State


@pytest.mark.parametrize(
    "moves",
    [
        [[0, 0, 1, 1]],  # two beams each
        [[0, 0, 1, 1], [1, 0, 3, 3], [2, 3]],  # beams move within their source, then a source is finished
        [[1, 0], [0, 1, 1]],  # sources change places, unequal numbers of rows
        [[0, 1, 0, 1], [3, 2, 1, 0]],
        [[1], [0, 0, 0]],
        [[]],
    ],
)
def test_cross_cache_follows_its_rows(moves: list[list[int]]) -> None:
    """However rows are moved, each looks at its own source: the same as attention with copied keys."""
    torch.manual_seed(0)
    data, mask = torch.randn(2, 2, 2, 3, 5, 4), lengths_mask(torch.tensor([3, 5]), 5)
    cross, owner = CrossCache(data, mask), torch.arange(2)
    for move in moves:
        index = torch.tensor(move, dtype=torch.int64)
        cross.reorder(index)
        owner = owner[index]
    q = torch.randn(len(owner), 3, 1, 4)
    for layer in range(2):
        want = Attend()(q, data[layer, 0, owner], data[layer, 1, owner], mask[owner])
        torch.testing.assert_close(cross.look(layer, Attend(), q), want, atol=1e-6, rtol=1e-6)


def test_beams_share_the_keys_of_their_source() -> None:
    data = torch.randn(1, 2, 2, 3, 5, 4)
    cross = CrossCache(data, lengths_mask(torch.tensor([3, 5]), 5))
    state = State(KVCache(1, 2, 3, 4, 4), cross, 0)
    state.cache.place(torch.zeros(2, 1, dtype=torch.int64))
    state = state.select(torch.tensor([0, 0, 0, 1, 1, 1])).select(torch.tensor([2, 0, 0, 5, 5, 4]))
    assert state.cache.rows == 6
    assert state.cross.data is data
    assert state.cross.beams == 3
