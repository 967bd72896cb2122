"""The codebook against k-means by hand, its gradient by hand, and cut into pieces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engram.nn.codebook import Codebook, perplexity


def feed(book: Codebook, z: Tensor, keys: Tensor, pieces: int = 1) -> None:
    for part, key in zip(z.tensor_split(pieces), keys.tensor_split(pieces), strict=True):
        book.see(part, book(part)[1], key)
    book.move()


def test_nearest_by_search_over_all_codes() -> None:
    torch.manual_seed(0)
    book = Codebook(7, 3)
    book.vectors.normal_()
    z = torch.randn(4, 3, 5, 2)
    q, ids = book(z)
    assert q.shape == z.shape
    assert ids.shape == (4, 5, 2)
    far = torch.cdist(z.permute(0, 2, 3, 1).reshape(-1, 3), book.vectors)
    assert torch.equal(ids.flatten(), far.argmin(1))
    torch.testing.assert_close(q, book.vectors[ids].permute(0, 3, 1, 2), atol=1e-6, rtol=0)
    assert torch.equal(book.lookup(ids), book.vectors[ids].permute(0, 3, 1, 2))


def test_the_gradient_passes_straight_through() -> None:
    """d loss / dz is d loss / dq, whatever the distance; the codes themselves get none."""
    torch.manual_seed(0)
    book = Codebook(5, 2)
    book.vectors.normal_()
    z = torch.randn(3, 2, 4, requires_grad=True)
    weight = torch.randn(3, 2, 4)
    q, ids = book(z)
    (q.square() * weight).sum().backward()
    torch.testing.assert_close(z.grad, 2 * weight * book.lookup(ids), atol=1e-6, rtol=1e-6)
    assert not list(book.parameters())


def test_without_decay_a_step_is_one_of_k_means() -> None:
    torch.manual_seed(0)
    book = Codebook(4, 2, decay=0.0, least=0.0)
    book.vectors.normal_()
    old, z = book.vectors.clone(), torch.randn(50, 2, 3)
    points = z.movedim(1, -1).reshape(-1, 2)
    ids = torch.cdist(points, old).argmin(1)
    feed(book, z, torch.rand(50))
    means = torch.stack([points[ids == k].mean(0) for k in range(4)])
    torch.testing.assert_close(book.vectors, means, atol=1e-5, rtol=1e-5)


def test_averages_by_the_equations_of_the_paper() -> None:
    """Three steps with decay 0.9, Eq. 6 to 8 in float64; a code that nobody chose stays where it is."""
    torch.manual_seed(0)
    book = Codebook(5, 3, decay=0.9, least=0.0)
    book.vectors.normal_()
    book.vectors[4] = 100.0
    codes, count, total = book.vectors.double(), torch.zeros(5).double(), torch.zeros(5, 3).double()
    for _ in range(3):
        z = torch.randn(40, 3, 2)
        points = z.movedim(1, -1).reshape(-1, 3).double()
        ids = torch.cdist(points, codes).argmin(1)
        for k in range(5):
            count[k] = 0.9 * count[k] + 0.1 * (ids == k).sum()
            total[k] = 0.9 * total[k] + 0.1 * points[ids == k].sum(0)
            if count[k] > 0:
                codes[k] = total[k] / count[k]
        feed(book, z, torch.rand(40))
    torch.testing.assert_close(book.vectors.double(), codes, atol=1e-5, rtol=1e-5)
    assert torch.equal(book.vectors[4], torch.full((3,), 100.0))


@pytest.mark.parametrize("pieces", [2, 3])
def test_pieces_equal_the_whole(pieces: int) -> None:
    """Codes, averages and restarts, over several steps; restarts are many at first."""
    torch.manual_seed(0)
    whole, cut = Codebook(16, 3, decay=0.7, least=0.3), Codebook(16, 3, decay=0.7, least=0.3)
    cut.load_state_dict(whole.state_dict())
    for step in range(6):
        z, keys = torch.randn(11, 3, 4) + step, torch.rand(11)
        feed(whole, z, keys)
        feed(cut, z, keys, pieces)
        for name, tensor in whole.state_dict().items():
            torch.testing.assert_close(cut.state_dict()[name], tensor, atol=1e-5, rtol=1e-5, msg=name)


def test_dead_codes_restart_at_vectors_of_the_batch() -> None:
    torch.manual_seed(0)
    book = Codebook(8, 2)
    book.vectors.fill_(50.0)
    book.vectors[0] = 0.0
    z = torch.randn(20, 2, 3)
    feed(book, z, torch.rand(20))
    points = z.movedim(1, -1).reshape(-1, 2)
    torch.testing.assert_close(book.vectors[0], points.mean(0), atol=1e-5, rtol=1e-5)
    assert torch.cdist(book.vectors[1:], points).min(1).values.max() < 1e-5
    assert len(book.vectors.unique(dim=0)) == 8
    assert perplexity(torch.bincount(book(z)[1].flatten(), minlength=8)) > 4
    assert torch.allclose(book.usage[1:], book.usage[1:].mean())
    torch.testing.assert_close(book.totals, book.vectors * book.usage[:, None])  # so they stay where they were put


def test_with_restarts_all_codes_are_in_use() -> None:
    """Clusters far apart: without restarts half of the codes are never chosen, with them nearly all are."""
    used = {}
    for least in (0.0, 0.03):
        torch.manual_seed(0)
        book, centres = Codebook(32, 4, decay=0.9, least=least), 10 * torch.randn(32, 4)
        for _ in range(100):
            z = centres[torch.randint(0, 32, (64,))] + 0.1 * torch.randn(64, 4)
            feed(book, z[:, :, None], torch.rand(64))
        used[least] = float(perplexity(book.usage))
    assert used[0.0] < 16, used
    assert used[0.03] > 24, used


def test_more_codes_than_vectors() -> None:
    """Only as many dead codes move as there are vectors to move to."""
    torch.manual_seed(0)
    book = Codebook(16, 2)
    old = book.vectors.clone()
    feed(book, torch.randn(2, 2, 3) + 5, torch.rand(2))
    moved = (book.vectors != old).any(1).sum()
    assert 6 <= moved <= 7


def test_nothing_seen_moves_nothing() -> None:
    book = Codebook(4, 2)
    feed(book, torch.randn(5, 2, 3), torch.rand(5))
    old = {name: t.clone() for name, t in book.state_dict().items()}
    book.move()
    assert all(torch.equal(old[name], t) for name, t in book.state_dict().items())


def test_perplexity() -> None:
    assert perplexity(torch.tensor([3, 3, 3, 0])).item() == pytest.approx(3)
    assert perplexity(torch.tensor([0.0, 5.0])).item() == pytest.approx(1)


def test_errors() -> None:
    with pytest.raises(ValueError, match="at least 2 codes"):
        Codebook(1, 4)
