"""Recurrent layers: the cells as equations, and `Recurrent`, which runs torch's fused layers on rows of unequal length.

Papers: Elman 1990 (rnn); Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, Eq. 1-6 without peepholes
(lstm); Cho et al. 2014, Eq. 5-8 (gru). Differs: the gru is torch's, whose reset gate acts on U h + b in place of h, so that
both products of a step are one matrix multiply; forget gates start with bias 1 (Jozefowicz et al. 2015, section 4).

Unequal lengths. A padded step of a gated cell must leave its state alone, so each layer reads one more input, a flag that
is 1 at padded steps, whose fixed weights hold the state: input gate 0 and forget gate 1 (lstm), update gate 1 (gru). The
backward direction then reaches the last real step with the state that it started from, in one fused call and with no
reversing. Documents packed into one row are kept apart in the same manner, by a step between them whose flag resets the
state: input, forget and output gate 0 (lstm), update gate and candidate 0 (gru). Packed sequences give the same numbers but
leave oneDNN's fused layer; a prototype of it on one CPU thread, forward and backward: lstm rows nine tenths full 1.3 to 1.6
times as fast as packed (bfloat16 1.5 to 2.7), documents of 20 tokens in rows of 64 1.7 times. Elman's cell has neither gates
nor a oneDNN layer, so it is packed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

State = Tensor | tuple[Tensor, Tensor]  # (layers * directions, B, width); for lstm the pair (h, c)
CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
SHUT, OPEN = -1e4, 1e4  # what the flag adds to a gate: its sigmoid is then 0 or 1 in every number format
HOLD = {"lstm": (SHUT, OPEN, 0.0, 0.0), "gru": (0.0, OPEN, 0.0)}
RESET = {"lstm": (SHUT, SHUT, 0.0, SHUT), "gru": (SHUT, SHUT, 0.0)}


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
        return self._packed(x, lengths, start) if self.cell == "rnn" else self._held(x, lengths.to(x.device), start)

    def separate(self, x: Tensor, documents: Tensor) -> Tensor:
        """x (B, T, inputs) to (B, T, width * directions), from a state of zeros wherever `documents` (B, T) changes.

        The outputs are those of the documents one by one.
        """
        begins = torch.ones_like(documents, dtype=torch.bool)
        begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
        if not bool(begins[:, 1:].any()):
            return self.stack(x)[0]
        if self.cell == "rnn":
            return self._one_by_one(x, begins)
        steps = torch.arange(x.shape[1], device=x.device)
        place = (steps + begins.cumsum(1) - 1)[..., None]  # (B, T, 1): one more step before every document but the first
        longest = int(place.max()) + 1
        flag = x.new_ones(len(x), longest, 1).scatter(1, place, 0.0)
        grid = x.new_zeros(len(x), longest, x.shape[2]).scatter(1, place.expand_as(x), x)
        outputs = self._flagged(grid, flag, self.initial(len(x), x), RESET[self.cell])[0]
        return outputs.gather(1, place.expand(-1, -1, outputs.shape[2]))

    def initial(self, rows: int, like: Tensor) -> State:
        """Zeros of the dtype and on the device of `like`."""
        zeros = like.new_zeros(self.layers * self.directions, rows, self.width)
        return (zeros, zeros) if self.cell == "lstm" else zeros

    def _one_by_one(self, x: Tensor, begins: Tensor) -> Tensor:
        """Every document a row of a packed sequence."""
        number = begins.flatten().cumsum(0) - 1  # (B * T,)
        place = torch.arange(len(number), device=x.device) - begins.flatten().nonzero()[:, 0][number]
        lengths = torch.bincount(number)
        grid = x.new_zeros(len(lengths), int(lengths.max()), x.shape[2]).index_put((number, place), x.flatten(0, 1))
        packed = pack_padded_sequence(grid, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, _ = pad_packed_sequence(self.stack(packed)[0], batch_first=True)
        return outputs[number, place].view(*begins.shape, -1)

    def _packed(self, x: Tensor, lengths: Tensor, start: State) -> tuple[Tensor, State]:
        packed = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        outputs, state = self.stack(packed, start)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
        empty = (lengths == 0)[:, None]  # (B, 1)
        return outputs.masked_fill(empty[:, None], 0), torch.where(empty, start, state)  # type: ignore[call-overload]

    def _held(self, x: Tensor, lengths: Tensor, start: State) -> tuple[Tensor, State]:
        padded = (torch.arange(x.shape[1], device=x.device) >= lengths[:, None])[..., None]  # (B, T, 1)
        outputs, ahead, states = self._flagged(x, padded.to(x.dtype), start, HOLD[self.cell])
        # The forward direction's h passes an output gate or a rounding at each padded step: read it at the last real one.
        last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, self.width)
        h, d = torch.cat(states[0]).clone(), self.directions
        read = torch.stack([y.gather(1, last).squeeze(1) for y in ahead])
        began = start[0] if isinstance(start, tuple) else start
        h[::d] = torch.where((lengths == 0)[:, None], began[::d], read).to(h.dtype)
        return outputs.masked_fill(padded, 0), (h, torch.cat(states[1])) if states[1] else h

    def _flagged(
        self, x: Tensor, flag: Tensor, start: State, gates: tuple[float, ...]
    ) -> tuple[Tensor, list[Tensor], tuple[list[Tensor], list[Tensor]]]:
        """All layers with the flag (B, T, 1) as one more input: outputs, each layer's forward outputs, each layer's h and c."""
        d, ahead = self.directions, []
        states: tuple[list[Tensor], list[Tensor]] = ([], [])
        for layer in range(self.layers):
            here = slice(layer * d, (layer + 1) * d)
            weights = [w for one in self.stack.all_weights[here] for w in self._with_flag(gates, *one)]
            x = torch.cat([x, flag.to(x.dtype)], -1)
            if isinstance(start, tuple):
                begin = (start[0][here].contiguous(), start[1][here].contiguous())
                x, h, c = torch.lstm(x, begin, weights, True, 1, 0.0, self.training, d == 2, True)
                states[1].append(c)
            else:
                x, h = torch.gru(x, start[here].contiguous(), weights, True, 1, 0.0, self.training, d == 2, True)
            states[0].append(h)
            ahead.append(x[..., : self.width])
            if layer + 1 < self.layers:
                x = F.dropout(x, self.dropout, self.training)
        return x, ahead, states

    def _with_flag(self, gates: tuple[float, ...], w: Tensor, u: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        """The weights of one direction with a last column for the flag."""
        column = torch.tensor(gates, dtype=w.dtype, device=w.device).repeat_interleave(self.width)
        if gates == RESET["gru"]:  # the candidate tanh(W x + b + 0) must be 0 too, and the inputs are
            column = torch.cat([column[: 2 * self.width], -b[2 * self.width :]])
        return torch.cat([w, column[:, None]], 1), u, b, c
