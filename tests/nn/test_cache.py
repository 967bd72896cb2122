"""The caches: what was stored comes back in its place, no query sees what it may not, and memory stays as it was asked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engram.nn.attention import Attend
from engram.nn.cache import KVCache


def numbered(rows: int, positions: Tensor, mark: int = 0) -> Tensor:
    """(rows, 1, T, 1): keys that say which row and position they belong to."""
    return (torch.arange(rows)[:, None] * 100 + positions + mark).float()[:, None, :, None]


def store(cache: KVCache, positions: Tensor, mark: int = 0) -> tuple[Tensor, Tensor | None, bool]:
    mask, causal = cache.place(positions)
    k = numbered(cache.rows, positions, mark)
    keys, values = cache.append(0, k, -k)
    assert torch.equal(keys, -values)
    return keys, mask, causal


def test_rows_alike_need_no_mask() -> None:
    cache = KVCache(1, 2, 1, 8, 1)
    keys, mask, causal = store(cache, torch.arange(3).repeat(2, 1))
    assert mask is None
    assert causal
    assert keys[:, 0, :, 0].tolist() == [[0, 1, 2], [100, 101, 102]]
    keys, mask, causal = store(cache, torch.full((2, 1), 3))
    assert mask is None
    assert not causal
    assert keys[1, 0, :, 0].tolist() == [100, 101, 102, 103]
    assert keys.data_ptr() == cache.data[0, 0].data_ptr()  # a view: nothing was copied
    keys, mask, _ = store(cache, torch.tensor([[4, 5]] * 2))
    assert mask is not None
    assert mask.int().tolist() == [[[[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]]]


def test_rows_of_different_lengths() -> None:
    """Padding lies beyond what a row sees and is overwritten by the tokens that follow."""
    cache = KVCache(1, 2, 1, 8, 1)
    store(cache, torch.arange(4).repeat(2, 1), mark=50)  # row 1 is a prompt of 2 tokens, padded
    keys, mask, causal = store(cache, torch.tensor([[4], [2]]))
    assert not causal
    assert mask is not None
    seen = [keys[row, 0, mask[row, 0, 0], 0].tolist() for row in range(2)]
    assert seen == [[50, 51, 52, 53, 4], [150, 151, 102]]
    assert cache.lengths.tolist() == [5, 3]


def test_window_bounds_what_is_read() -> None:
    cache = KVCache(1, 1, 1, 9, 1, window=3)
    keys, mask, _ = store(cache, torch.arange(6)[None])
    assert mask is not None
    assert mask[0, 0].sum(-1).tolist() == [1, 2, 3, 3, 3, 3]
    keys, mask, _ = store(cache, torch.tensor([[6]]))
    assert mask is None
    assert keys.flatten().tolist() == [4, 5, 6]
    keys, mask, _ = store(cache, torch.tensor([[7, 8]]))
    assert mask is not None
    assert keys.flatten().tolist() == [5, 6, 7, 8]
    assert mask[0, 0].int().tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]


def test_reorder_put_grow() -> None:
    cache = KVCache(1, 3, 1, 4, 1)
    store(cache, torch.arange(2).repeat(3, 1))
    before = cache.data
    cache.reorder(torch.tensor([2, 2, 0, 1]))
    assert cache.data[0, 0, :, 0, :2, 0].tolist() == [[200, 201], [200, 201], [0, 1], [100, 101]]
    assert before[0, 0, :, 0, 1, 0].tolist() == [1, 101, 201]  # a copy that shares it would not notice
    other = KVCache(1, 2, 1, 4, 1)
    store(other, torch.arange(3).repeat(2, 1), mark=50)
    cache.put(torch.tensor([3, 0]), other)
    assert cache.lengths.tolist() == [3, 2, 2, 3]
    assert cache.data[0, 0, :, 0, :2, 0].tolist() == [[150, 151], [200, 201], [0, 1], [50, 51]]
    cache.grow()
    assert cache.capacity == 8
    keys, _, _ = store(cache, torch.tensor([[3], [2], [2], [3]]))
    assert keys[0, 0, :, 0].tolist() == [150, 151, 152, 3]
    cache.reorder(torch.tensor([], dtype=torch.int64))
    assert cache.rows == 0


def test_memory_is_fixed_and_errors_are_plain() -> None:
    cache = KVCache(2, 3, 4, 5, 6, dtype=torch.bfloat16)
    assert cache.data.numel() * cache.data.element_size() == 2 * 2 * 3 * 4 * 5 * 6 * 2
    with pytest.raises(ValueError, match="position 5 does not fit into a cache of 5"):
        cache.place(torch.arange(6).repeat(3, 1))
    with pytest.raises(ValueError, match="after a gap"):
        cache.place(torch.ones(3, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="the cache has 3 rows and the tokens 2"):
        cache.place(torch.zeros(2, 1, dtype=torch.int64))
    cache.place(torch.arange(5).repeat(3, 1))
    cache.truncate(torch.tensor([2, 9, 1]))
    assert cache.lengths.tolist() == [2, 5, 1]
    with pytest.raises(ValueError, match="after a gap"):
        cache.place(torch.full((3, 1), 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [0, 40])
@pytest.mark.parametrize("at", [[3, 250, 90, 88, 251, 10, 9], [200] * 9, [30, 31, 30]])
def test_pieces_give_what_all_rows_at_once_give(at: list[int], window: int, dtype: torch.dtype) -> None:
    """However the rows are cut into pieces, each query sees its own past, and 16-bit numbers are multiplied in float32."""
    torch.manual_seed(0)
    cache = KVCache(2, len(at), 4, 256, 32, window=window, dtype=dtype)
    cache.data.copy_(torch.randn(cache.data.shape))
    cache.data[1] *= torch.nan  # another layer's
    cache.lengths = torch.tensor(at)
    mask, causal = cache.place(torch.tensor(at)[:, None])
    if not window and dtype == torch.float32:
        assert (1 < len(cache._pieces) < len(at)) == (len(set(at)) > 2)
    q, (k, v) = torch.randn(len(at), 8, 1, 32).to(dtype), torch.randn(2, len(at), 4, 1, 32).to(dtype)
    got = cache.look(0, Attend(), q, k, v, mask, causal)
    for row, place in enumerate(at):
        seen = slice(max(0, place - window + 1) if window else 0, place + 1)
        keys, values = cache.data[0, :, row, :, seen].float()
        assert torch.equal(keys[:, -1:], k[row].float())
        want = Attend()(q[row : row + 1].float(), keys[None], values[None])
        torch.testing.assert_close(got[row : row + 1], want.to(dtype), atol=1e-6 if dtype == torch.float32 else 8e-3, rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 9])
def test_pieces_keep_a_bias_that_is_given(rows: int) -> None:
    """T5 adds a bias for the distance, the same for all rows."""
    torch.manual_seed(0)
    cache = KVCache(1, 9, 16, 256, 64, dtype=torch.bfloat16)
    cache.data.copy_(torch.randn(cache.data.shape))
    cache.lengths = torch.full((9,), 200)
    cache.place(torch.full((9, 1), 200))
    assert len(cache._pieces) > 1
    q, (k, v), bias = torch.randn(9, 16, 1, 64), torch.randn(2, 9, 16, 1, 64), 3 * torch.randn(rows, 16, 1, 201)
    got = cache.look(0, Attend(), q.bfloat16(), k, v, bias)
    keys, values = cache.data[0, ..., :201, :].float()
    torch.testing.assert_close(got, Attend()(q.bfloat16().float(), keys, values, bias).bfloat16(), atol=8e-3, rtol=1e-6)


def test_few_numbers_are_read_for_nothing() -> None:
    at = [5, 200, 5, 5, 199, 198, 100, 6]
    cache = KVCache(1, len(at), 8, 256, 64)
    cache.lengths = torch.tensor(at)
    cache.place(torch.tensor(at)[:, None])
    assert [(p.rows.start, p.rows.stop, p.slots.stop) for p in cache._pieces] == [
        (0, 1, 6), (1, 2, 201), (2, 4, 6), (4, 6, 200), (6, 7, 101), (7, 8, 7)
    ]  # fmt: skip
    assert [p.mask is None for p in cache._pieces] == [True, True, True, False, True, True]
