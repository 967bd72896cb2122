"""Vector quantisation: the loss by hand, micro-batches and ranks, and a codebook that is used."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from engram.core.batch import Batch, split_rows
from engram.core.mesh import Mesh
from engram.core.task import Ctx
from engram.models.vqvae import VQVAE
from engram.tasks.vector_quantise import VectorQuantise, follow


def task(least: float = 0.03, codes: int = 8) -> VectorQuantise:
    torch.manual_seed(0)
    return VectorQuantise(VQVAE(1, 8, 8, codes=codes, code_width=4, widths=(6,), blocks=1, least=least))


def batch(rows: int = 9) -> Batch:
    torch.manual_seed(1)
    return {"x": torch.randn(rows, 1, 8, 8), "key": torch.rand(rows, 1)}


def test_loss_by_hand() -> None:
    """The straight-through loss and its gradients: the decoder's from the error, the encoder's from both terms."""
    t, b = task(), batch()
    loss, logs = t.loss(b, Ctx())
    net = t.model
    z = net.encode(b["x"])
    codes = net.codebook.lookup(net.codebook(z)[1])
    leaf = codes.clone().requires_grad_()
    error = (net.decode(leaf) - b["x"]).square().mean()
    (through,) = torch.autograd.grad(error, leaf, retain_graph=True)
    torch.testing.assert_close(logs["error"], error, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss, error + 0.25 * (z - codes).square().mean(), rtol=1e-5, atol=1e-6)
    encoder = list(net.encoder.parameters())
    expected = torch.autograd.grad(z, encoder, through + 0.25 * 2 * (z - codes).detach() / z.numel())
    for a, e in zip(torch.autograd.grad(loss, encoder), expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-6)


def step(t: VectorQuantise, pieces: list[Batch], ctx: Ctx) -> None:
    for piece in pieces:
        t.loss(piece, ctx)
    t.after_step(ctx)


@pytest.mark.parametrize("pieces", [2, 3])
def test_micro_batches_move_the_codes_as_one_batch(pieces: int) -> None:
    whole, cut = task(least=0.5), task(least=0.5)
    for _ in range(3):
        step(whole, [batch()], Ctx())
        step(cut, split_rows(batch(), pieces), Ctx())
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


class Two(Mesh):
    """The view of rank 0 of two, whose other half is at hand."""

    world = 2

    def __init__(self, other: dict[str, Tensor], name: list[str]):
        self.other, self.names = other, name

    def sum(self, value: Tensor) -> Tensor:
        return value + self.other[self.names.pop(0)]

    def gather(self, value: Tensor) -> Tensor:
        return torch.cat([value, self.other[self.names.pop(0)]])


def test_ranks_move_the_codes_as_one_process() -> None:
    whole, mine, theirs = task(least=0.5), task(least=0.5), task(least=0.5)
    step(whole, [batch()], Ctx())
    first, second = split_rows(batch(), 2)
    mine.loss(first, Ctx())
    theirs.loss(second, Ctx())
    other = {n: t.clone() for n, t in theirs.model.codebook.state_dict().items()}
    follow(mine.model.codebook, Ctx(mesh=Two(other, ["seen", "seen_totals", "keys", "candidates"])))
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_evaluation_does_not_move_the_codes() -> None:
    t = task().eval()
    old = {name: tensor.clone() for name, tensor in t.state_dict().items()}
    t.evaluate([batch()], Ctx())
    t.loss(batch(), Ctx())
    t.after_step(Ctx())
    assert all(torch.equal(old[name], tensor) for name, tensor in t.state_dict().items())


def test_evaluate_in_parts() -> None:
    t = task().eval()
    one, parts = t.evaluate([batch()], Ctx()), t.evaluate(split_rows(batch(), 4), Ctx())
    for name, value in one.items():
        assert parts[name] == pytest.approx(value, rel=1e-5), name
    with torch.no_grad():
        assert one["loss"] == pytest.approx(t.loss(batch(), Ctx())[0].item(), rel=1e-5)
        used = t.model.encode_ids(batch()["x"]).unique()
    assert one["dead"] == pytest.approx(1 - len(used) / 8)
    assert 1 <= one["perplexity"] <= len(used) + 1e-6


def test_learns_digits_and_uses_its_codes() -> None:
    torch.manual_seed(0)
    x = torch.tensor(load_digits().images, dtype=torch.float32)[:, None]
    x = (x - x.mean()) / x.std()
    t = VectorQuantise(VQVAE(1, 8, 8, codes=32, code_width=8, widths=(16,), blocks=1))
    optimizer = torch.optim.Adam(t.model.parameters(), 5e-3)
    for _ in range(120):
        rows = torch.randint(0, 1400, (64,))
        optimizer.zero_grad()
        t.loss({"x": x[rows], "key": torch.rand(64, 1)}, Ctx())[0].backward()
        optimizer.step()
        t.after_step(Ctx())
    t.eval()
    with torch.no_grad():
        found = t.evaluate([{"x": x[1400:]}], Ctx())
    assert found["error"] < 0.3
    assert found["perplexity"] > 10
    assert found["dead"] < 0.5
