"""The evidence lower bound against torch.distributions, its weights, free bits, and collapse that is named."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.distributions import Bernoulli as Coin
from torch.distributions import Independent, Normal, kl_divergence

from engram.core.batch import Batch, split_rows
from engram.core.task import Ctx
from engram.models.vae import VAE
from engram.nn.gaussian import Bernoulli, Gaussian
from engram.tasks.variational import Variational


def task(classes: int = 0, gaussian: bool = False, **knobs: float) -> Variational:
    torch.manual_seed(0)
    net = VAE(1, 4, 4, latent=3, hidden=(8,), classes=classes)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return Variational(net, Gaussian() if gaussian else Bernoulli(), **knobs)


def batch(rows: int = 6) -> Batch:
    torch.manual_seed(1)
    return {
        "x": torch.rand(rows, 1, 4, 4), "u": torch.rand(rows, 1, 4, 4), "eps": torch.randn(rows, 3),
        "y": torch.arange(rows) % 2,
    }  # fmt: skip


def reference(t: Variational, b: Batch, beta: float) -> tuple[Tensor, Tensor]:
    """-E log p(x | z) + beta KL and the plain bound, by torch.distributions."""
    y = b["y"] if t.coder.classes else None
    x = (b["u"] < b["x"]).float()
    if isinstance(t.likelihood, Gaussian):
        x = b["x"] + (b["u"] - 0.5) / 255
    mean, log_var = t.coder.encode(x, y)
    q = Normal(mean, log_var.div(2).exp())
    out = t.coder.decode(q.mean + q.stddev * b["eps"], y)
    p = Normal(out, t.likelihood.log_var.div(2).exp()) if isinstance(t.likelihood, Gaussian) else Coin(logits=out)
    fits = Independent(p, 3).log_prob(x)
    kl = kl_divergence(q, Normal(torch.zeros(3), torch.ones(3))).sum(1)
    return (beta * kl - fits).mean(), (fits - kl).mean()


@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize("classes", [0, 2])
def test_equals_torch_distributions(classes: int, gaussian: bool) -> None:
    """Loss, every gradient and the logged bound to 1e-5 of their size, with beta 0.7."""
    t, b = task(classes, gaussian, beta=0.7), batch()
    loss, logs = t.loss(b, Ctx())
    expected, bound = reference(t, b, 0.7)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logs["elbo"], bound, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logs["elbo"], -logs["distortion"] - logs["kl"])
    parameters = list(t.parameters())
    for a, e in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-4)


def test_warm_up_of_beta() -> None:
    t = task(beta=2.0, warmup=0.5)
    assert [t.weight(Ctx(step, 100)) for step in (0, 25, 50, 99)] == [0, 1, 2, 2]
    assert task(beta=2.0).weight(Ctx(0, 100)) == 2
    loss, logs = t.loss(batch(), Ctx(0, 100))
    torch.testing.assert_close(loss, logs["distortion"])


def test_free_bits() -> None:
    """Below lambda a latent number costs lambda and has no gradient; above it the KL as it is."""
    b = batch()
    kl = task().terms(b)[1]
    for free in (0.0, 0.3, 100.0):
        t = task(free_bits=free)
        loss, logs = t.loss(b, Ctx())
        torch.testing.assert_close(loss, logs["distortion"] + kl.clamp(min=free).sum(1).mean())
        torch.testing.assert_close(logs["kl"], kl.sum(1).mean())
    t = task(free_bits=100.0)
    full = torch.autograd.grad(t.loss(b, Ctx())[0], list(t.parameters()))
    plain = torch.autograd.grad(t.terms(b)[0].mean(), list(t.parameters()))
    assert all(torch.equal(a, e) for a, e in zip(full, plain, strict=True))


@pytest.mark.parametrize("pieces", [2, 3])
def test_pieces_equal_the_whole(pieces: int) -> None:
    t, b = task(free_bits=0.2, beta=0.5), batch(7)
    parameters = list(t.parameters())
    whole = torch.autograd.grad(t.loss(b, Ctx())[0], parameters)
    parts = [[g * len(p["x"]) / 7 for g in torch.autograd.grad(t.loss(p, Ctx())[0], parameters)] for p in split_rows(b, pieces)]
    for name, *several in zip(whole, *parts, strict=True):
        torch.testing.assert_close(sum(several), name, rtol=1e-4, atol=1e-5)


def test_evaluate_in_parts() -> None:
    """The figures do not depend on how the rows are cut, and the loss is that of full beta without free bits."""
    t, b = task(beta=0.5, free_bits=9.0, warmup=0.9), batch(7)
    one, parts = t.evaluate([b], Ctx()), t.evaluate(split_rows(b, 3), Ctx())
    for name, value in one.items():
        assert parts[name] == pytest.approx(value, rel=1e-5), name
    expected, bound = reference(t, b, 0.5)
    assert one["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert one["elbo"] == pytest.approx(bound.item(), rel=1e-5)
    assert one["elbo"] == pytest.approx(-one["distortion"] - one["kl"])


def test_collapse_is_named() -> None:
    t, b = task(), batch(64)
    assert t.evaluate([b], Ctx())["active"] == 3
    with torch.no_grad():
        t.model.posterior.weight[1:3] = 0
    found = t.evaluate([b], Ctx())
    assert (found["active"], found["collapsed"]) == (1, 0)
    with torch.no_grad():
        t.model.posterior.weight.zero_()
    found = t.evaluate([b], Ctx())
    assert (found["active"], found["collapsed"]) == (0, 1)
    t = task()
    with torch.no_grad():  # the means differ, and say less than a bit
        t.model.posterior.weight.mul_(0.15)
        t.model.posterior.bias.zero_()
    found = t.evaluate([b], Ctx())
    assert found["active"] > 0
    assert found["kl"] < 0.69
    assert found["collapsed"] == 1


def test_without_numbers_in_the_batch() -> None:
    """Those of a fixed seed: the same every time."""
    t, b = task(), {"x": batch()["x"]}
    assert torch.equal(t.loss(b, Ctx())[0], t.loss(b, Ctx())[0])


def test_shows_the_same_codes_every_time() -> None:
    t = task(classes=2)
    shown = t.show(Ctx())
    assert shown is not None
    assert shown.shape == (16, 1, 4, 4)
    assert torch.equal(shown, t.show(Ctx(5, 10)))
    assert 0 <= shown.min() <= shown.max() <= 1


def trained(beta: float, free_bits: float) -> tuple[dict[str, float], float]:
    """150 steps on digits: figures, and the loss that guessing costs."""
    torch.manual_seed(0)
    x = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 16
    t = Variational(VAE(1, 8, 8, 6, (64,), "silu"), Bernoulli(), beta=beta, free_bits=free_bits)
    optimizer = torch.optim.Adam(t.parameters(), 5e-3)
    for _ in range(150):
        rows = torch.randint(0, 1400, (100,))
        b = {"x": x[rows], "u": torch.rand(100, 1, 8, 8), "eps": torch.randn(100, 6)}
        optimizer.zero_grad()
        t.loss(b, Ctx())[0].backward()
        optimizer.step()
    with torch.no_grad():
        return t.evaluate([{"x": x[1400:]}], Ctx()), t.chance_loss() or 0.0


def test_learns_digits_and_free_bits_prevent_collapse() -> None:
    """Beta 1 codes; a beta so high that nothing is coded collapses, and free bits keep the numbers in use under it."""
    found, chance = trained(1.0, 0.0)
    assert found["loss"] < 0.6 * chance
    assert found["collapsed"] == 0
    assert trained(20.0, 0.0)[0]["collapsed"] == 1
    kept = trained(20.0, 0.5)[0]
    assert kept["collapsed"] == 0
    assert kept["active"] >= 3
