"""`Columns` against a plain loop over rows and columns, gradients included."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from engram.nn import Columns
from engram.nn.columns import category_width

EDGES = [[-1.0, 0.0, 0.5, 2.0], [0.0, 1.0], [], [-2.0, -0.5, 3.0]]
CARDINALITIES = [3, 100, 3, 40000]


def encode(x: float, edges: list[float]) -> list[float]:
    """Eq. 1 of the paper, case by case."""
    bins = len(edges) - 1
    result = []
    for t in range(1, bins + 1):
        if x < edges[t - 1] and t > 1:
            result.append(0.0)
        elif x >= edges[t] and t < bins:
            result.append(1.0)
        else:
            result.append((x - edges[t - 1]) / (edges[t] - edges[t - 1]))
    return result


def rows(count: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    numeric = torch.randn(count, 4, generator=generator, dtype=torch.float64) * 2
    numeric[0], numeric[1] = torch.tensor([[0.5, 1.0, 1.0, -0.5], [-1.0, 0.0, 0.0, 3.0]])  # values on the edges
    categorical = torch.stack([torch.randint(0, c, (count,), generator=generator) for c in CARDINALITIES], 1)
    return numeric, categorical


def test_numbers_follow_equation_one() -> None:
    numeric, _ = rows()
    columns = Columns(EDGES, []).double()
    y = columns(numeric, torch.zeros(30, 0, dtype=torch.int64))
    expected = [[v for x, e in zip(row, EDGES, strict=True) for v in (x, *encode(x, e))] for row in numeric.tolist()]
    np.testing.assert_allclose(y.numpy(), np.array(expected), atol=1e-6)  # the edges are stored in float32
    assert columns.out_features == y.shape[1] == 4 + 3 + 1 + 0 + 2


def test_embedding_is_one_small_layer_per_column() -> None:
    torch.manual_seed(0)
    numeric, none = rows()[0].float().double(), torch.zeros(30, 0, dtype=torch.int64)
    columns = Columns(EDGES, [], embed=5).double()
    x = numeric.clone().requires_grad_()
    y = columns(x, none)
    upstream = torch.randn_like(y)
    y.backward(upstream)
    weight, bias = columns.weight.detach().numpy(), columns.bias.detach().numpy()
    assert columns.out_features == 20
    assert columns.cost() == 4 * 4 * 5
    for n, edges in enumerate(EDGES):
        inputs = np.array([[v, *encode(v, edges)] for v in numeric[:, n].tolist()])  # (B, 1 + T)
        used = inputs.shape[1]
        before = inputs @ weight[n, :used] + bias[n]
        np.testing.assert_allclose(y[:, n * 5 : n * 5 + 5].detach().numpy(), np.maximum(before, 0), atol=1e-6)
        slope = upstream[:, n * 5 : n * 5 + 5].numpy() * (before > 0)
        grad = columns.weight.grad
        assert grad is not None
        np.testing.assert_allclose(grad[n, :used].numpy(), inputs.T @ slope, atol=1e-4)
        assert grad[n, used:].count_nonzero() == 0  # padding takes no part
    # The gradient with respect to the numbers, by central differences away from the edges.
    inside = (numeric[:, :, None] - torch.tensor([-2, -1, -0.5, 0, 0.5, 1, 2, 3])).abs().amin(2) > 1e-3
    step = torch.full_like(numeric, 1e-5)
    for n in range(4):
        move = torch.zeros_like(numeric)
        move[:, n] = step[:, n]
        rise = ((columns(numeric + move, none) - columns(numeric - move, none)) * upstream).sum(1) / 2e-5
        assert x.grad is not None
        mask = inside[:, n]
        torch.testing.assert_close(x.grad[mask, n], rise.detach()[mask], rtol=1e-4, atol=1e-4)


def test_categories_look_up_their_own_rows() -> None:
    torch.manual_seed(0)
    _, categorical = rows()
    columns = Columns([], CARDINALITIES)
    y = columns(torch.zeros(30, 0), categorical)
    assert columns.out_features == y.shape[1] == sum(map(category_width, CARDINALITIES))
    assert len(columns.tables) == 2  # widths 3 and 16
    narrow, wide = (table.get_parameter("embedding.weight") for table in columns.tables)
    assert narrow.shape == (6, 3)
    assert wide.shape == (40100, 16)
    for row, (a, b, c, d) in zip(y, categorical.tolist(), strict=True):
        expected = torch.cat([narrow[a], narrow[3 + c], wide[b], wide[100 + d]])
        assert torch.equal(row, expected)


def test_category_outside_its_range_is_unknown_and_never_another_column() -> None:
    columns = Columns([], [3, 3], width=2)
    y = columns(torch.zeros(3, 0), torch.tensor([[3, 1], [-1, 1], [0, 1]]))
    assert torch.equal(y[0], y[2])
    assert torch.equal(y[1], y[2])
    assert columns.out_features == 4


def test_width_rule() -> None:
    assert [category_width(c) for c in (1, 2, 3, 10, 40, 61, 10**6)] == [
        min(16, math.ceil(1.6 * c**0.56)) for c in (1, 2, 3, 10, 40, 61, 10**6)
    ]
    assert [category_width(c) for c in (1, 10, 10**6)] == [2, 6, 16]


@pytest.mark.parametrize("embed", [None, 3])
@pytest.mark.parametrize(("edges", "cardinalities"), [(EDGES, CARDINALITIES), (EDGES, []), ([], [4]), ([[]], [4])])
def test_all_weights_learn_and_compile(edges: list[list[float]], cardinalities: list[int], embed: int | None) -> None:
    torch.manual_seed(0)
    numeric, categorical = rows()
    numeric, categorical = numeric[:, : len(edges)].float(), categorical[:, : len(cardinalities)] % 4
    columns = Columns(edges, cardinalities, embed)
    y = columns(numeric, categorical)
    assert y.shape == (30, columns.out_features)
    if list(columns.parameters()):
        y.square().sum().backward()
    assert all(p.grad is not None and p.grad.count_nonzero() > 0 for p in columns.parameters())
    columns.compile(backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(columns(numeric, categorical), y)


def test_weights_come_back_through_the_state_dict() -> None:
    first, second = Columns(EDGES, [5], 2), Columns([[0.0, 1, 2, 3]] * 4, [5], 2)
    with pytest.raises(RuntimeError, match="used"):  # another number of bins
        second.load_state_dict(first.state_dict())
    third = Columns([[e + 1 for e in column] for column in EDGES], [5], 2)
    third.load_state_dict(first.state_dict())
    numeric, categorical = rows()
    numeric = numeric.float()
    assert torch.equal(first(numeric, categorical[:, :1]), third(numeric, categorical[:, :1]))


def test_errors() -> None:
    with pytest.raises(ValueError, match="edges of numeric column 1 must be strictly increasing"):
        Columns([[0, 1], [0, 0, 1]], [])
    with pytest.raises(ValueError, match="at least 1"):
        Columns([], [0])
    with pytest.raises(ValueError, match="at least one"):
        Columns([], [])
