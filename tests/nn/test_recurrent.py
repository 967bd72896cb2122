"""The cells against torch's fused layers, and rows of unequal length against each row by itself."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from engram.nn.recurrent import CELLS, Recurrent, gru_cell, lstm_cell, rnn_cell


def by_hand(cell: str, x: Tensor, state: Tensor | tuple[Tensor, Tensor], weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """One layer as a loop over the cells: all h (B, T, width) and the last state, h above c for an lstm."""
    outputs = []
    for step in x.unbind(1):
        if isinstance(state, tuple):
            state = lstm_cell(step, state, *weights)
        else:
            state = (rnn_cell if cell == "rnn" else gru_cell)(step, state, *weights)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(outputs, 1), torch.stack(state) if isinstance(state, tuple) else state[None]


def joined(state: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return torch.cat(state) if isinstance(state, tuple) else state


@pytest.mark.parametrize("cell", CELLS)
def test_cells_equal_the_fused_layers(cell: str) -> None:
    """Outputs, state and every gradient to 1e-10, from a given state."""
    torch.manual_seed(0)
    layer = CELLS[cell](3, 5, batch_first=True).double()
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    h, c = torch.randn(2, 1, 2, 5, dtype=torch.float64)
    parts = []
    for fused in (True, False):
        named = {name: p.detach().clone().requires_grad_() for name, p in layer.named_parameters()}
        weights = list(named.values())
        given = [t.clone().requires_grad_() for t in ((x, h, c) if cell == "lstm" else (x, h))]
        if fused:
            start = (given[1], given[2]) if cell == "lstm" else given[1]
            y, state = torch.func.functional_call(layer, named, (given[0], start))
            state = joined(state)
        else:
            start = (given[1][0], given[2][0]) if cell == "lstm" else given[1][0]
            y, state = by_hand(cell, given[0], start, weights)
        loss = y.square().sum() + (state.double() ** 3).sum()
        parts.append([y, state, *torch.autograd.grad(loss, [*given, *weights])])
    for a, b in zip(*parts, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_padding_changes_nothing(cell: str, bidirectional: bool, layers: int, dtype: torch.dtype) -> None:
    """Each row by itself through torch's own layer gives the same outputs, state and gradients; padding gives zeros."""
    torch.manual_seed(0)
    net = Recurrent(cell, 3, 5, layers, bidirectional).to(dtype)
    for p in net.parameters():
        nn.init.normal_(p, std=0.7)
    lengths = torch.tensor([4, 9, 1, 6])
    x = torch.randn(4, 11, 3, dtype=dtype)
    x[0, 4:] = 50.0
    x.requires_grad_()
    y, state = net(x, lengths)
    (y.square().sum() + (joined(state) ** 3).sum()).backward()
    got = [x.grad, *[p.grad for p in net.parameters()]]
    net.zero_grad()
    alone = x.detach().clone().requires_grad_()
    total = torch.zeros((), dtype=dtype)
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    for row, length in enumerate(lengths.tolist()):
        z, last = net.stack(alone[row : row + 1, :length])
        torch.testing.assert_close(y[row : row + 1, :length], z, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(joined(state)[:, row : row + 1], joined(last), atol=tolerance, rtol=tolerance)
        assert not y[row, length:].any()
        total = total + z.square().sum() + (joined(last) ** 3).sum()
    total.backward()
    for a, b in zip(got, [alone.grad, *[p.grad for p in net.parameters()]], strict=True):
        torch.testing.assert_close(a, b, atol=10 * tolerance, rtol=10 * tolerance)
    assert not got[0][0, 4:].any()
    assert got[0][0, :4].any()


@pytest.mark.parametrize("cell", CELLS)
def test_a_state_goes_on_where_it_stopped(cell: str) -> None:
    """In two calls with rows that end at different steps, one of which is empty in the second call."""
    torch.manual_seed(0)
    net = Recurrent(cell, 3, 5, 2).double()
    x = torch.randn(3, 10, 3, dtype=torch.float64)
    first, second = torch.tensor([3, 5, 4]), torch.tensor([4, 0, 2])
    _, state = net(x[:, :5], first)
    rest = torch.zeros(3, 4, 3, dtype=torch.float64)
    for row in range(3):
        rest[row, : second[row]] = x[row, first[row] : first[row] + second[row]]
    y, state = net(rest, second, state)
    for row in range(3):
        end = int(first[row] + second[row])
        whole, last = net.stack(x[row : row + 1, :end])
        torch.testing.assert_close(y[row, : second[row]], whole[0, first[row] :])
        torch.testing.assert_close(joined(state)[:, row], joined(last)[:, 0])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("borders", [[[6], [2, 7]], [[1, 2, 3], []], [[], []]])
def test_documents_in_one_row_equal_documents_alone(cell: str, bidirectional: bool, borders: list[list[int]]) -> None:
    """Outputs and gradients to 1e-10, whatever the numbers of documents in the rows."""
    torch.manual_seed(0)
    net = Recurrent(cell, 3, 5, 2, bidirectional).double()
    x = torch.randn(2, 12, 3, dtype=torch.float64)
    documents = torch.zeros(2, 12, dtype=torch.int32)
    for row, cuts in enumerate(borders):
        for cut in cuts:
            documents[row, cut:] += 1
    got = net.separate(x, documents)
    got.square().sum().backward()
    grads = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    edges = [[0, *cuts, 12] for cuts in borders]
    alone = [
        torch.cat([net.stack(x[row : row + 1, a:b])[0] for a, b in itertools.pairwise(edge)], 1)
        for row, edge in enumerate(edges)
    ]
    torch.testing.assert_close(got, torch.cat(alone), atol=1e-10, rtol=1e-10)
    torch.cat(alone).square().sum().backward()
    for a, p in zip(grads, net.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, atol=1e-10, rtol=1e-10)


def test_dropout_between_layers_only_in_training() -> None:
    torch.manual_seed(0)
    net = Recurrent("lstm", 3, 64, 2, dropout=0.5)
    x, lengths = torch.randn(2, 6, 3), torch.tensor([6, 4])
    assert not torch.equal(net(x, lengths)[0], net(x, lengths)[0])
    net.eval()
    assert torch.equal(net(x, lengths)[0], net(x, lengths)[0])
    torch.testing.assert_close(net(x, lengths)[0][0], net(x)[0][0])


def test_forget_gates_start_open() -> None:
    net = Recurrent("lstm", 3, 4, 2, True)
    for _, _, bias, _ in net.stack.all_weights:
        assert (bias[4:8] == 1).all()
        assert (bias[8:] < 1).all()


@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16_autocast_with_padding_and_documents(cell: str) -> None:
    torch.manual_seed(0)
    net = Recurrent(cell, 8, 16, 2, True)
    x, lengths = torch.randn(3, 7, 8), torch.tensor([7, 3, 5])
    documents = (torch.arange(7) >= lengths[:, None]).int()
    wanted, apart = net(x, lengths)[0], net.separate(x, documents)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(net(x, lengths)[0].float(), wanted, atol=0.03, rtol=0.03)
        torch.testing.assert_close(net.separate(x, documents).float(), apart, atol=0.03, rtol=0.03)


def test_errors() -> None:
    with pytest.raises(ValueError, match="unknown cell 'lsmt': choose from rnn, lstm, gru"):
        Recurrent("lsmt", 2, 3)
    net = Recurrent("gru", 2, 3, bidirectional=True)
    with pytest.raises(ValueError, match="takes no state"):
        net(torch.zeros(1, 2, 2), state=torch.zeros(2, 1, 3))
