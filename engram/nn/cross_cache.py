"""Keys and values of source texts for the decoder of an encoder-decoder, and where that decoder stands."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engram.nn.attention import Attend
from engram.nn.cache import KVCache, attend_in

SHORT = 256  # tokens up to which float32 is faster than bfloat16 for a source's keys: twice as fast with 34 and 5 beams


class CrossCache:
    """Keys and values of a source text that a decoder looks at: computed once, kept once however many rows look at it.

    data: (layers, 2, N, heads, S, width) of N source texts, short ones on a processor in float32; mask: (N, 1, 1, S) bool.
    Rows that stand together and share a source (beams) are read as so many queries of one row.
    """

    def __init__(self, data: Tensor, mask: Tensor) -> None:
        short = data.element_size() == 2 and data.device.type == "cpu" and data.shape[4] <= SHORT
        self.data, self.mask = data.float() if short else data, mask
        self.owner = torch.arange(data.shape[2], device=data.device)  # (rows,) the source of each row
        self.beams = 1

    def look(self, layer: int, attend: Attend, q: Tensor) -> Tensor:
        """Queries (rows, heads, 1, width) of one token each to (rows, heads, 1, width)."""
        b, h, _, d = q.shape
        q = q.view(-1, self.beams, h, d).transpose(1, 2)  # (N, H, beams, D)
        y = attend_in(attend, q, self.data[layer, 0], self.data[layer, 1], self.mask)
        return y.transpose(1, 2).reshape(b, h, 1, d)

    def reorder(self, index: Tensor) -> None:
        """Row i looks at the source of row index[i]. Nothing is copied while each source keeps its rows together."""
        owner = self.owner[index]
        if len(owner) == len(self.owner) and bool((owner == self.owner).all()):
            return
        kept, counts = owner.unique_consecutive(return_counts=True)
        beams = int(counts.max()) if len(counts) else 1
        if bool((counts != beams).any()):
            kept, beams = owner, 1
        if not torch.equal(kept, torch.arange(self.data.shape[2], device=kept.device)):
            self.data, self.mask = self.data.index_select(2, kept), self.mask[kept]
        self.beams, self.owner = beams, torch.arange(len(owner), device=owner.device) // beams


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


__all__ = ["CrossCache", "State"]
