"""Keys and values of the tokens read so far, in memory of a fixed size, for decoding token by token.

A token at position p of its row lies in slot p, and a query at position p sees slots 0 to p (or the last `window` of
them). So prompts of different lengths stand in one batch padded at the right: what the padding wrote lies after the
prompt, is not seen, and is overwritten by the tokens that follow. Going back, as speculative decoding does, is stepping
on from an earlier position. A window bounds what is read; the memory is `capacity` slots with or without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engram.nn.attention import Attend, causal_mask


class KVCache:
    """(layers, 2, rows, heads, capacity, width) numbers; per step one `place`, then one `append` for each layer.

    No gradient flows through it.
    lengths: (rows,) how many slots of each row hold something.
    """

    rewinds = True  # a position may be written again, which a hidden state of a recurrent network cannot undo

    def __init__(
        self,
        layers: int,
        rows: int,
        heads: int,
        capacity: int,
        width: int,
        *,
        window: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        # Zeros, because a weight of 0 times a slot never written must be 0, and 0 times an accidental NaN is not.
        self._store = torch.zeros(layers, 2, rows, heads, capacity, width, dtype=dtype, device=device)
        self.data = self._store  # of the rows in use; the store keeps its size when rows leave
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.window = window
        self._first = self._low = self._end = 0
        self._slots: tuple[Tensor, Tensor] | None = None

    @property
    def rows(self) -> int:
        return self.data.shape[2]

    @property
    def capacity(self) -> int:
        return self.data.shape[4]

    def place(self, positions: Tensor) -> tuple[Tensor | None, bool]:
        """Say where the next tokens stand, (rows, T), consecutive in each row; gives (mask, causal) for their attention.

        The mask is (rows or 1, 1, T, S) bool, or None where every query may see all that `append` returns. Raises
        ValueError when the memory is full, a position is skipped, or the number of rows is another.
        """
        count = positions.shape[1]
        if len(positions) != self.rows:
            raise ValueError(f"the cache has {self.rows} rows and the tokens {len(positions)}")
        first, last = (int(p) for p in positions.aminmax())
        if last >= self.capacity:
            raise ValueError(f"position {last} does not fit into a cache of {self.capacity} tokens; start with a larger one")
        if bool((positions[:, 0] > self.lengths).any()):
            raise ValueError("a row continues after a gap: its first position is larger than its length in the cache")
        self.lengths = positions[:, -1] + 1
        self._first, self._end = first, last + 1
        self._low = max(0, first - self.window + 1) if self.window else 0
        alike = last - first == count - 1  # rows are consecutive, so they all stand at the same place
        rows = torch.arange(self.rows, device=positions.device)[:, None]
        self._slots = None if alike else (rows, positions)
        if alike and count == 1:
            return None, False
        if alike and first == 0 and (self.window == 0 or count <= self.window):
            return None, True
        slots = torch.arange(self._low, self._end, device=positions.device)
        return causal_mask(positions[:1] if alike else positions, slots[None], self.window), False

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values (rows, heads, T, width) of the placed tokens; all that they may see, as views."""
        keys, values = self.data[layer, 0], self.data[layer, 1]
        k, v = k.detach(), v.detach()
        if self._slots is None:
            keys[:, :, self._first : self._end] = k
            values[:, :, self._first : self._end] = v
        else:
            rows, slots = self._slots
            keys[rows, :, slots] = k.transpose(1, 2).to(keys.dtype)
            values[rows, :, slots] = v.transpose(1, 2).to(values.dtype)
        return keys[:, :, self._low : self._end], values[:, :, self._low : self._end]

    def truncate(self, lengths: Tensor) -> None:
        """Forget what stands after the first `lengths` (rows,) tokens of each row, so that a gap there is noticed."""
        self.lengths = torch.minimum(self.lengths, lengths.to(self.lengths))

    def reorder(self, index: Tensor) -> None:
        """Row i becomes what row index[i] was: beams that move, rows that are finished (left out), or repeated prompts.

        Only rows that move are copied, in place; new memory is taken when there are more rows than ever before.
        """
        layers, pair, _, heads, capacity, width = self.data.shape
        count, used = len(index), self.used()
        place = torch.arange(count, device=index.device)
        moved = place if count > self._store.shape[2] else (index != place).nonzero()[:, 0]
        kept = self.data[..., :used, :].index_select(2, index[moved]) if len(moved) else None
        if count > self._store.shape[2]:
            self._store = self.data.new_zeros(layers, pair, count, heads, capacity, width)
        self.data = self._store[:, :, :count]
        if kept is not None:
            self.data[:, :, moved, :, :used] = kept
        self.lengths = self.lengths[index]

    def put(self, rows: Tensor, other: KVCache) -> None:
        """Replace some rows by all rows of another cache, in this order."""
        used = other.used()
        self.data[:, :, rows, :, :used] = other.data[..., :used, :]
        self.lengths[rows] = other.lengths

    def grow(self) -> None:
        """Twice the capacity."""
        layers, pair, rows, heads, capacity, width = self.data.shape
        used, data = self.used(), self.data.new_zeros(layers, pair, rows, heads, 2 * capacity, width)
        data[..., :used, :] = self.data[..., :used, :]
        self._store = self.data = data

    def used(self) -> int:
        """The length of the longest row."""
        return int(self.lengths.max()) if len(self.lengths) else 0


class CrossCache:
    """Keys and values of a source text that a decoder looks at: computed once, kept once however many rows look at it.

    data: (layers, 2, N, heads, S, width) of N source texts; mask: (N, 1, 1, S) bool, or bias.
    Rows that stand together and share a source (beams) are read as so many queries of one row.
    """

    def __init__(self, data: Tensor, mask: Tensor) -> None:
        self.data, self.mask = data, mask
        self.owner = torch.arange(data.shape[2], device=data.device)  # (rows,) the source of each row
        self.beams = 1

    def look(self, layer: int, attend: Attend, q: Tensor) -> Tensor:
        """Queries (rows, heads, 1, width) of one token each to (rows, heads, 1, width)."""
        b, h, _, d = q.shape
        q = q.view(-1, self.beams, h, d).transpose(1, 2)  # (N, H, beams, D)
        y = attend(q.to(self.data.dtype), self.data[layer, 0], self.data[layer, 1], self.mask)
        return y.transpose(1, 2).reshape(b, h, 1, d)

    def reorder(self, index: Tensor) -> None:
        """Row i looks at the source of row index[i]. Nothing is copied while each source keeps its rows together."""
        owner = self.owner[index]
        if len(owner) == len(self.owner) and bool((owner == self.owner).all()):
            return
        kept, owner = owner.unique(return_inverse=True)
        if len(kept) < self.data.shape[2]:
            self.data, self.mask = self.data.index_select(2, kept), self.mask[kept]
        self.beams = max(1, len(owner) // max(1, len(kept)))
        if not torch.equal(owner, torch.arange(len(owner), device=owner.device) // self.beams):
            self.data, self.mask, self.beams = self.data.index_select(2, owner), self.mask[owner], 1
            owner = torch.arange(len(owner), device=owner.device)
        self.owner = owner


@dataclass
class State:
    """Where the decoder of an encoder-decoder stands: its own keys and values, the sources', how many tokens it has read.

    `start(source, source_lengths)` of a model gives one, `step(tokens, state)` the next; each is used once.
    """

    cache: KVCache
    cross: CrossCache
    length: int = 0

    def select(self, index: Tensor) -> State:
        """Row i continues what row index[i] was: beams reordered, rows dropped or repeated."""
        self.cache.reorder(index)
        self.cross.reorder(index)
        return self


__all__ = ["CrossCache", "KVCache", "State"]
