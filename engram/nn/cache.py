"""Keys and values of the tokens read so far, in memory of a fixed size, for decoding token by token.

A token at position p of its row lies in slot p, and a query at position p sees slots 0 to p (or the last `window` of
them). So prompts of different lengths stand in one batch padded at the right: what the padding wrote lies after the
prompt, is not seen, and is overwritten by the tokens that follow. Going back, as speculative decoding does, is stepping
on from an earlier position. A window bounds what is read; the memory is `capacity` slots with or without it.

On a processor one query of each row is attended to in pieces: rows of like length together, so little padding is read, and
16-bit numbers as float32: torch's fused kernel takes 0.43 ms for one bfloat16 query of 12 heads of 64 and 300 keys, 0.13 so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.nn.attention import Attend, causal_mask

PADDING = 2**15  # most numbers, of keys and values, that are read for nothing before a row is worth a call of its own
CAST = 2**18  # most numbers of keys that are cast to float32 at once, unless one row has more


@dataclass(frozen=True)
class Piece:
    """Rows attended to together, the slots they see, and the mask (rows, 1, 1, slots) among them."""

    rows: slice
    slots: slice
    mask: Tensor | None


class KVCache:
    """(layers, 2, rows, heads, capacity, width) numbers; per step one `place`, then one `append` or `look` for each layer.

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
        self._mask: Tensor | None = None
        self._pieces: list[Piece] = []

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
        self._slots, self._pieces = None if alike else (rows, positions), []
        mask, causal = None, alike and first == 0 and count > 1 and (self.window == 0 or count <= self.window)
        if not causal and not (alike and count == 1):
            slots = torch.arange(self._low, self._end, device=positions.device)
            mask = causal_mask(positions[:1] if alike else positions, slots[None], self.window)
        if count == 1 and not (alike and self.data.element_size() > 2) and positions.device.type == "cpu":
            self._pieces = self._split(positions[:, 0].tolist(), mask)
        self._mask = mask
        return mask, causal

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

    def look(
        self, layer: int, attend: Attend, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool = False
    ) -> Tensor:
        """`append`, then attention of the queries (rows, H, T, width), in their shape; `mask` as `place` gave it, or others."""
        keys, values = self.append(layer, k, v)
        if not self._pieces:
            return attend_in(attend, q, keys, values, mask, causal)
        found = []
        for p in self._pieces:
            own = p.mask if mask is self._mask or mask is None else (mask if len(mask) == 1 else mask[p.rows])[..., p.slots]
            found.append(attend_in(attend, q[p.rows], keys[p.rows, :, p.slots], values[p.rows, :, p.slots], own))
        return torch.cat(found)

    def _split(self, positions: list[int], mask: Tensor | None) -> list[Piece]:
        """Neighbouring rows at like positions, one query each; [] where all are best read at once."""
        _, _, _, heads, _, width = self.data.shape
        most = CAST // (heads * width) if self.data.element_size() == 2 else len(positions) * self.capacity
        spare, groups, total, ends = PADDING // (2 * heads * width), [], 0, (0, 0)
        for row, position in enumerate(positions):
            low = max(0, position - self.window + 1) if self.window else 0
            first, ends = groups[-1][0] if groups else 0, (min(ends[0], low), max(ends[1], position + 1))
            size, total = (ends[1] - ends[0]) * (row - first + 1), total + position + 1 - low
            if not groups or size > most or size - total > spare:
                groups.append((row, row + 1, (low, position + 1)))
                total, ends = position + 1 - low, (low, position + 1)
            else:
                groups[-1] = (first, row + 1, ends)
        pieces = []
        for first, last, (low, end) in groups if len(groups) > 1 else []:
            slots, alike = slice(low - self._low, end - self._low), len(set(positions[first:last])) == 1
            pieces.append(Piece(slice(first, last), slots, None if mask is None or alike else mask[first:last, ..., slots]))
        return pieces

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


def fill_gaps(kept: Sequence[int]) -> list[int]:
    """An order for `reorder` of those that are kept, ascending: the last move into the gaps, so few are copied."""
    staying, last = set(kept), list(kept)
    return [at if at in staying else last.pop() for at in range(len(kept))]


def attend_in(attend: Attend, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
    """Attention in the dtype of the keys, or in float32 for one query in 16 bits on a processor; in the dtype of q."""
    if q.shape[2] == 1 and k.element_size() == 2 and k.device.type == "cpu":
        mask = mask if mask is None or mask.dtype == torch.bool else mask.float()
        return attend(q.float(), k.float(), v.float(), mask, causal).to(q.dtype)
    return attend(q.to(k.dtype), k, v, mask, causal).to(q.dtype)


__all__ = ["KVCache", "attend_in", "fill_gaps"]
