"""Random numbers in the batch: a function of (seed, split, k), shared among ranks as rows are."""

from itertools import islice

import pytest
import torch

from engram.data.images import images
from engram.data.noisy import Noisy, quick_uniform
from engram.nn.noise import RowNoise, row_normal


@pytest.fixture(scope="module")
def data() -> Noisy:
    return Noisy(images("digits", batch=100), {"z": (3,)}, {"u": (), "pixels": (1, 5, 7)}, seed=5)


def test_shapes_and_distributions(data: Noisy) -> None:
    batches = list(islice(data.batches("train"), 40))
    for batch in batches:
        assert batch["z"].shape == (len(batch["x"]), 3)
        assert batch["u"].shape == (len(batch["x"]),)
        assert batch["pixels"].shape == (len(batch["x"]), 1, 5, 7)
    z, u = (torch.cat([b[name] for b in batches]) for name in ("z", "u"))
    assert abs(z.mean()) < 0.05
    assert abs(z.std() - 1) < 0.05
    assert abs(u.mean() - 0.5) < 0.03
    assert 0 <= u.min() <= u.max() < 1


def test_batch_k_is_the_same_from_any_start(data: Noisy) -> None:
    whole = list(islice(data.batches("train"), 8))
    later = list(islice(data.batches("train", start=5), 3))
    assert all(torch.equal(a[k], b[k]) for a, b in zip(whole[5:], later, strict=True) for k in a)
    assert not torch.equal(whole[0]["z"][:50], whole[1]["z"][:50])
    assert not torch.equal(whole[0]["pixels"][:50], whole[1]["pixels"][:50])


def test_parts_of_ranks_are_the_whole_batch(data: Noisy) -> None:
    for k in (0, 14):  # the batches of an epoch are not all of one size
        (whole,) = islice(data.batches("train", start=k), 1)
        parts = [next(data.batches("train", start=k, part=(r, 3))) for r in range(3)]
        assert all(torch.equal(torch.cat([p[name] for p in parts]), whole[name]) for name in whole)


def test_validation_repeats_and_seeds_differ(data: Noisy) -> None:
    first, again = next(data.batches("val")), next(data.batches("val"))
    assert torch.equal(first["z"], again["z"])
    other = Noisy(data.data, {"z": (3,)}, seed=6)
    assert not torch.equal(next(other.batches("val"))["z"], first["z"])
    assert not torch.equal(next(data.batches("train"))["z"][:5], first["z"][:5])


def test_quick_uniform_numbers_are_uniform_and_independent() -> None:
    """A million of them: moments, a histogram by chi squared, neighbours, and neighbouring seeds; never 1."""
    u, other = quick_uniform(3, 1001, 999).double(), quick_uniform(4, 1001, 999).double()
    assert u.shape == (1001, 999)
    assert 0 <= u.min() <= u.max() < 1
    assert abs(u.mean() - 1 / 2) < 4 * 12**-0.5 / 1000
    assert abs(u.var() - 1 / 12) < 4e-4
    counts = torch.histc(u, 256, 0, 1)
    expected = u.numel() / 256
    assert abs(((counts - expected) ** 2 / expected).sum() - 255) < 4 * (2 * 255) ** 0.5
    flat = u.flatten()
    for a, b in ((flat[1:], flat[:-1]), (flat[2:], flat[:-2]), (u[1:], u[:-1]), (u, other)):
        assert abs(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) < 4e-3
    assert torch.equal((flat * 2**24).round(), flat * 2**24)
    assert torch.equal(quick_uniform(3, 5), quick_uniform(3, 6)[:5])


def test_rows_do_not_depend_on_the_chunk() -> None:
    together, parts = RowNoise(3, 0, 5), [RowNoise(3, 0, 2), RowNoise(3, 2, 3)]
    for draw in (lambda n: n.normal(2, 4), lambda n: n.uniform(3), lambda n: n.integers(7, 2)):
        assert torch.equal(draw(together), torch.cat([draw(p) for p in parts]))
    assert torch.equal(row_normal(3, 4, 1, (6,)), row_normal(3, 0, 5, (6,))[4:])
    assert not torch.equal(row_normal(4, 0, 1, (6,)), row_normal(3, 0, 1, (6,)))
