"""word2vec against a reference that walks over pairs in plain loops, gradients by autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engram.models.word2vec import Word2Vec, neighbours, scatter

WINDOW, CENTRES, WORDS, K = 3, 7, 11, 5


def batch(rows: int = 4, shared: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    words = torch.randint(WORDS, (rows, CENTRES + 2 * WINDOW), generator=draw)
    left = torch.randint(0, WINDOW + 1, (rows, CENTRES), generator=draw).int()
    right = torch.randint(0, WINDOW + 1, (rows, CENTRES), generator=draw).int()
    left[0, 0] = right[0, 0] = 0  # a word alone
    return words, left, right, torch.randint(WORDS, (rows, shared), generator=draw)


def model(kind: str) -> Word2Vec:
    torch.manual_seed(0)
    net = Word2Vec(WORDS, 8, WINDOW, kind, K).double()  # type: ignore[arg-type]
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return net


def reference(net: Word2Vec, words: Tensor, left: Tensor, right: Tensor, noise: Tensor) -> tuple[Tensor, int]:
    """Eq. 4 word by word."""
    total, examples = torch.zeros((), dtype=torch.float64), 0
    u, v = net.inputs.weight, net.outputs.weight
    for r in range(len(words)):
        for c in range(CENTRES):
            at = c + WINDOW
            near = [*range(at - int(left[r, c]), at), *range(at + 1, at + 1 + int(right[r, c]))]
            pairs = [(u[words[r, at]], words[r, j]) for j in near]
            if net.kind == "cbow":
                pairs = [(u[words[r, near]].mean(0), words[r, at])] if near else []
            for given, target in pairs:
                fakes = torch.stack([-torch.nn.functional.logsigmoid(-(v[n] @ given)) for n in noise[r]])
                total = total - torch.nn.functional.logsigmoid(v[target] @ given) + K * fakes.mean()
                examples += 1
    return total, examples


@pytest.mark.parametrize("kind", ["skipgram", "cbow"])
def test_loss_and_gradients_equal_plain_loops(kind: str) -> None:
    net, other = model(kind), model(kind)
    loss, count = net(*batch())
    expected, examples = reference(other, *batch())
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    assert int(count) == examples > 20
    (loss * 0.3).backward()
    (expected * 0.3).backward()
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-12)


def test_neighbours_are_those_within_reach() -> None:
    left, right = torch.tensor([[2, 0]], dtype=torch.int32), torch.tensor([[1, 3]], dtype=torch.int32)
    near = neighbours(left, right, 3)
    assert near.shape == (1, 2, 8)
    assert near[0, 0].nonzero().flatten().tolist() == [1, 2, 4]  # the centre is word 3
    assert near[0, 1].nonzero().flatten().tolist() == [5, 6, 7]


def test_an_untrained_network_knows_nothing() -> None:
    net = Word2Vec(WORDS, 8, WINDOW)
    loss, count = net(*batch())
    torch.testing.assert_close(loss / count, torch.tensor(6 * 0.693147), rtol=1e-5, atol=0)


def test_scatter_adds_repeated_words() -> None:
    rows = torch.arange(6.0).view(3, 2)
    table = torch.zeros(3, 2, requires_grad=True)
    expected = [[2.0, 3.0], [4.0, 6.0], [0.0, 0.0]]
    assert scatter(table, (torch.tensor([1, 0, 1]), rows)).tolist() == expected  # type: ignore[union-attr]
    table.grad = torch.ones(3, 2)
    assert scatter(table, (torch.tensor([1, 0, 1]), rows)) is None
    assert (table.grad - 1).tolist() == expected


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="skipgram nor cbow"):
        Word2Vec(4, 2, 1, "glove")  # type: ignore[arg-type]
