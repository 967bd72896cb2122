"""Recurrent layers: the cells as equations, and `Recurrent`, which runs torch's fused layers on rows of unequal length.

Papers: Elman 1990 (rnn); Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, Eq. 1-6 without peepholes
(lstm); Cho et al. 2014, Eq. 5-8 (gru). Differs: the gru is torch's, whose reset gate acts on U h + b in place of h, so that
both products of a step are one matrix multiply; forget gates start with bias 1 (Jozefowicz et al. 2015, section 4).

Unequal lengths. A padded step of a gated cell must leave its state alone, so each layer reads one more input, 1 at padded
steps, whose fixed weights shut the gates: input gate 0 and forget gate 1 (lstm), update gate 1 (gru). The backward
direction then reaches the last real step with the state that it started from, in one fused call and with no reversing.
Beside packed sequences, forward and backward pass on one CPU thread with rows nine tenths full: lstm 1.4 times as fast in
float32 and 2 times in bfloat16 (packing leaves oneDNN's fused layer), gru 1.1 times. Elman's cell has no gate to shut and
no oneDNN layer, so it is packed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

State = Tensor | tuple[Tensor, Tensor]  # (layers * directions, B, width); for lstm the pair (h, c)
CELLS: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
WASTE = 1.6  # padded steps per real step, above which packing is faster than padding
SHUT = 1e4  # a gate's input from the padding flag: its sigmoid is 0 or 1 in every number format


def rnn_cell(x: Tensor, h: Tensor, w: Tensor, u: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """h' = tanh(W x + b + U h + c): x (B, inputs), h (B, width), w (width, inputs), u (width, width), biases (width,)."""
    return torch.tanh(x @ w.T + b + h @ u.T + c)


def lstm_cell(x: Tensor, state: tuple[Tensor, Tensor], w: Tensor, u: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """(h', c') from (h, c); the four gates' weights are stacked in the order input, forget, candidate, output.

    c' = f * c + i * g and h' = o * tanh(c'), where i, f, o = sigmoid and g = tanh of W x + b + U h + c.
    """
    h, memory = state
    i, f, g, o = (x @ w.T + b + h @ u.T + c).chunk(4, -1)
    memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
    return o.sigmoid() * memory.tanh(), memory


def gru_cell(x: Tensor, h: Tensor, w: Tensor, u: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """h' = (1 - z) * n + z * h; weights are stacked in the order reset r, update z, candidate n.

    r, z = sigmoid of W x + b + U h + c, and n = tanh(W x + b + r * (U h + c)).
    """
    rx, zx, nx = (x @ w.T + b).chunk(3, -1)
    rh, zh, nh = (h @ u.T + c).chunk(3, -1)
    z = (zx + zh).sigmoid()
    return (1 - z) * (nx + (rx + rh).sigmoid() * nh).tanh() + z * h


class Recurrent(nn.Module):
    """A stack of recurrent layers, (B, T, inputs) to (B, T, width * directions) and the state after the last real step.

    cell:           "rnn", "lstm" or "gru"
    width:          of the state, per direction
    bidirectional:  a second direction reads from the right; the outputs of both stand side by side
    dropout:        share of features set to zero between layers in training
    """

    def __init__(
        self, cell: str, inputs: int, width: int, layers: int = 1, bidirectional: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"unknown cell {cell!r}: choose from {', '.join(CELLS)}")
        self.cell, self.width, self.layers, self.dropout = cell, width, layers, dropout
        self.directions = 2 if bidirectional else 1
        between = dropout if layers > 1 else 0.0
        self.stack = CELLS[cell](inputs, width, layers, batch_first=True, bidirectional=bidirectional, dropout=between)
        if cell == "lstm":
            for _, _, bias, _ in self.stack.all_weights:
                nn.init.ones_(bias[width : 2 * width])

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: State | None = None) -> tuple[Tensor, State]:
        """x (B, T, inputs), lengths (B,) real steps of each row from 0 to T: the rest changes nothing and comes out as 0.

        `state` goes on from an earlier call. ValueError for a state in a bidirectional stack, whose second direction
        has no past to go on from.
        """
        if state is not None and self.directions == 2:
            raise ValueError("a bidirectional stack takes no state: its second direction starts at the right end")
        if lengths is None or bool((lengths == x.shape[1]).all()):
            return self.stack(x, state)
        start = self.initial(x.shape[0], x) if state is None else state
        return self._packed(x, lengths, start) if self.cell == "rnn" else self._shut(x, lengths, start)

    def separate(self, x: Tensor, documents: Tensor) -> Tensor:
        """x (B, T, inputs) to (B, T, width * directions), from a state of zeros wherever `documents` (B, T) changes.

        Each run of equal numbers becomes a row of its own, so the outputs are those of the documents one by one.
        """
        begins = torch.ones_like(documents, dtype=torch.bool)
        begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
        first = begins.flatten().nonzero()[:, 0]  # (N,) where each document starts
        if len(first) == len(x):
            return self.stack(x)[0]
        number = begins.flatten().cumsum(0) - 1  # (B * T,)
        place = torch.arange(len(number), device=x.device) - first[number]
        lengths = torch.bincount(number)
        grid = x.new_zeros(len(first), int(lengths.max()), x.shape[2])
        grid = grid.index_put((number, place), x.flatten(0, 1))
        if grid.shape[0] * grid.shape[1] > WASTE * len(number):
            packed = pack_padded_sequence(grid, lengths.cpu(), batch_first=True, enforce_sorted=False)
            outputs, _ = pad_packed_sequence(self.stack(packed)[0], batch_first=True)
        else:  # without a second direction what follows a document cannot reach it
            outputs, _ = self(grid, lengths) if self.directions == 2 else self.stack(grid)
        return outputs[number, place].view(*documents.shape, -1)

    def initial(self, rows: int, like: Tensor) -> State:
        """Zeros of the dtype and on the device of `like`."""
        zeros = like.new_zeros(self.layers * self.directions, rows, self.width)
        return (zeros, zeros) if self.cell == "lstm" else zeros

    def _packed(self, x: Tensor, lengths: Tensor, start: State) -> tuple[Tensor, State]:
        packed = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        outputs, state = self.stack(packed, start)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
        empty = (lengths == 0)[:, None]  # (B, 1)
        return outputs.masked_fill(empty[:, None], 0), torch.where(empty, start, state)  # type: ignore[call-overload]

    def _shut(self, x: Tensor, lengths: Tensor, start: State) -> tuple[Tensor, State]:
        lengths = lengths.to(x.device)
        padded = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]  # (B, T)
        flag, empty = padded[..., None].to(x.dtype), (lengths == 0)[:, None]
        last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, self.width)  # (B, 1, width)
        hs: list[Tensor] = []
        cs: list[Tensor] = []
        weights, d = self.stack.all_weights, self.directions
        for layer in range(self.layers):
            here = slice(layer * d, (layer + 1) * d)
            flat = [w for direction in weights[here] for w in self._flagged(*direction)]
            x = torch.cat([x, flag.to(x.dtype)], -1)
            if isinstance(start, tuple):
                begin = (start[0][here].contiguous(), start[1][here].contiguous())
                x, h, c = torch.lstm(x, begin, flat, True, 1, 0.0, self.training, d == 2, True)
                cs.append(c)
            else:
                begin = (start[here].contiguous(),)
                x, h = torch.gru(x, *begin, flat, True, 1, 0.0, self.training, d == 2, True)
            # The forward direction's h goes through the output gate at padded steps too, so it is read at the last real one.
            ahead = x[..., : self.width].gather(1, last).squeeze(1)
            hs += [torch.where(empty, begin[0][0], ahead), *h[1:]]
            if layer + 1 < self.layers:
                x = F.dropout(x, self.dropout, self.training)
        h = torch.stack(hs)
        return x.masked_fill(padded[..., None], 0), (h, torch.cat(cs)) if cs else h

    def _flagged(self, w: Tensor, u: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        """The weights of one direction with a last column for the padding flag."""
        gates = (-SHUT, SHUT, 0.0, 0.0) if self.cell == "lstm" else (0.0, SHUT, 0.0)
        column = torch.tensor(gates, dtype=w.dtype, device=w.device).repeat_interleave(self.width)
        return torch.cat([w, column[:, None]], 1), u, b, c
