"""Variational autoencoders in use: bounds by independent sums, samples by seed and class, looks inside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.distributions import Bernoulli as Coin
from torch.distributions import Independent, Normal

from engram.core.batch import Batch
from engram.core.errors import ConfigError
from engram.data.image_spec import ImageSpec
from engram.inference import latents
from engram.inference import vae as module
from engram.inference.vae import VaePictures
from engram.models.vae import VAE
from engram.nn.gaussian import Bernoulli, Gaussian
from engram.nn.noise import RowNoise

NAMES = ("zero", "one", "two")
SPEC = ImageSpec(channels=1, height=8, width=8, mean=(0.0,), std=(1.0,), classes=NAMES)
X = torch.tensor(load_digits().images[:30], dtype=torch.float32)[:, None] / 16
Y = torch.arange(30) % 3


def predictor(classes: int = 0, samples: int = 5, gaussian: bool = False, latent: int = 4) -> VaePictures:
    torch.manual_seed(0)
    net = VAE(1, 8, 8, latent, (16,), classes=classes)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return VaePictures(net, Gaussian() if gaussian else Bernoulli(), SPEC, NAMES, samples)


def batches(size: int) -> Iterator[Batch]:
    for x, y in zip(X.split(size), Y.split(size), strict=True):
        yield {"x": x, "y": y}


def test_scores_equal_independent_sums() -> None:
    """Both bounds of every row by torch.distributions from the same numbers, to 1e-4 nats."""
    p = predictor(3)
    scores = p.scores(batches(30), [])
    assert scores is not None
    noise = RowNoise(0, 0, 30)
    b = (noise.uniform(1, 8, 8) < X).float()
    mean, log_var = p.coder.encode(b, Y)
    q = Normal(mean[:, None], log_var.div(2).exp()[:, None])
    z = q.loc + q.scale * noise.normal(5, 4)
    out = p.coder.decode(z.reshape(-1, 4), Y.repeat_interleave(5)).view(30, 5, 1, 8, 8)
    log_w = Independent(Coin(logits=out), 3).log_prob(b[:, None].expand_as(out))
    log_w = log_w + (Normal(torch.zeros(4), torch.ones(4)).log_prob(z) - q.log_prob(z)).sum(-1)
    torch.testing.assert_close(scores.parts[:, 0].float(), log_w.mean(1), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(scores.parts[:, 1].float(), log_w.exp().mean(1).log(), atol=1e-4, rtol=1e-5)
    sums = scores.parts.sum(0, keepdim=True)
    bits = -sums[0, 1] / 30 / (64 * torch.tensor(2.0).log())
    assert scores.figures["bits_per_pixel"].statistic(sums).item() == pytest.approx(bits.item())
    assert scores.figures["elbo"].statistic(sums) <= scores.figures["bound"].statistic(sums)


def test_scores_do_not_depend_on_the_batches() -> None:
    """The same black and white test set and the same codes, however the rows come and whatever the batch holds."""
    one, cut = (predictor(samples=70).scores(batches(size), []) for size in (30, 7))
    assert one is not None
    assert cut is not None
    torch.testing.assert_close(one.parts, cut.parts, atol=1e-4, rtol=1e-5)
    other = predictor(samples=70).scores(({**b, "u": torch.rand(len(b["x"]), 1, 8, 8)} for b in batches(30)), [])
    assert other is not None
    assert torch.equal(other.parts, one.parts)


def test_memory_does_not_grow_with_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 30 rows with 70 draws at most 4 are decoded at once, to the same figures and the same words."""
    p, decoded = predictor(3, samples=70), []
    whole = p.scores(batches(30), [])
    decode = p.coder.decode
    monkeypatch.setattr(p.coder, "decode", lambda z, y=None: (decoded.append(len(z)), decode(z, y))[1])
    monkeypatch.setattr(module, "AT_ONCE", 4 * 64 * 64)
    cut = p.scores(batches(30), [])
    assert whole is not None
    assert cut is not None
    assert max(decoded) == 4 * 64
    torch.testing.assert_close(cut.parts, whole.parts, atol=1e-4, rtol=1e-5)
    assert cut.beside == whole.beside


def test_levels_of_pixels_give_probabilities() -> None:
    """Of the gaussian likelihood the figures are in levels: far below zero, where the density itself need not be."""
    sharp = predictor(gaussian=True)
    with torch.no_grad():
        sharp.likelihood.level.fill_(-20.0 / 30)  # type: ignore[union-attr]
    scores = sharp.scores(batches(30), [])
    assert scores is not None
    assert scores.figures["bits_per_pixel"].statistic(scores.parts.sum(0, keepdim=True)).item() > 0


def test_outputs_are_those_of_each_picture_alone() -> None:
    for p in (predictor(), predictor(3)):
        together = p.outputs({"x": X[:6]})["nats"]
        alone = torch.cat([p.outputs({"x": X[n : n + 1]})["nats"] for n in range(6)])
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-5)
        assert p(images=[X[0, 0].numpy()])["nats"][0] == pytest.approx(together[0].item(), abs=0.1)  # through 8 bits


def test_encode_and_reconstruct() -> None:
    p = predictor(3)
    assert p.encode(X).shape == (30, 4)
    back = p.reconstruct(X)
    assert back.shape == X.shape
    assert 0 <= back.min() <= back.max() <= 1
    costs = torch.stack([_cost(p, X, k) for k in range(3)])
    torch.testing.assert_close(p.encode(X), torch.stack([p.coder.encode(X[n : n + 1], costs[:, n].argmin()[None])[0][0]
                                                         for n in range(30)]), atol=1e-5, rtol=1e-5)  # fmt: skip


def _cost(p: VaePictures, x: Tensor, k: int) -> Tensor:
    y = torch.full((len(x),), k)
    mean, log_var = p.coder.encode(x, y)
    logits = p.coder.decode(mean, y)
    fits = (x * logits - torch.log1p(logits.double().exp())).sum((1, 2, 3))
    return 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(1) - fits


def sampled(p: VaePictures, **wishes: object) -> list[bytes]:
    return [image.tobytes() for chunk in p.sample(**wishes) for image in chunk.images]  # type: ignore[arg-type]


def test_samples_by_seed_class_and_temperature() -> None:
    p = predictor(3)
    assert sampled(p, n=5, seed=1) == sampled(p, n=5, seed=1, chunk=2)
    assert sampled(p, n=5, seed=1) != sampled(p, n=5, seed=2)
    ones, twos = sampled(p, n=40, label="one"), sampled(p, n=40, label="two")
    free = sampled(p, n=40)
    assert all(a != b for a, b in zip(ones, twos, strict=True))
    assert 4 < sum(a == b for a, b in zip(free, ones, strict=True)) < 25  # a third are ones
    assert len(set(sampled(p, n=6, label="one", temperature=0.0))) == 1
    z = RowNoise(0, 0, 1).normal(4)
    expected = p.to_uint8(p.coder.decode(z, torch.tensor([1])).sigmoid())
    assert sampled(p, n=1, label="one") == [expected.numpy().tobytes()]


def test_what_cannot_be_asked() -> None:
    with pytest.raises(ConfigError, match=r"no class 'on'.*did you mean one"):
        list(predictor(3).sample(label="on"))
    with pytest.raises(ConfigError, match="conditional=true"):
        list(predictor().sample(label="one"))
    with pytest.raises(ConfigError, match="temperature=-1"):
        list(predictor().sample(temperature=-1))
    with pytest.raises(ConfigError, match="guidance"):
        list(predictor().sample(guidance=3.0))


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("latent", [1, 2, 4])
def test_views(latent: int, classes: int) -> None:
    p = predictor(classes, latent=latent)
    views = {view.name: view for view in p.views(lambda: batches(12))}
    names = ["latent-map", "latent-grid", "interpolation", "reconstructions", "kl-per-number"]
    assert sorted(views) == sorted(names + (["by-class"] if classes else []))
    points = views["latent-map"].data
    assert len(points["x"]) == len(points["y"]) == len(points["label"]) == 30
    assert points["label"][:3] == list(NAMES)
    for view in views.values():
        if view.kind == "pictures":
            assert view.pictures is not None
            assert view.pictures.dtype == torch.uint8
            assert len(view.pictures) % view.data["columns"] == 0
    line = views["interpolation"].pictures
    assert line is not None
    told = Y[:12] if classes else None
    ends = p.to_uint8(p.coder.decode(p.coder.encode(X[:12], told)[0], told).sigmoid())
    assert torch.equal(line[::10], ends[:6])
    assert list(predictor().views(lambda: iter(()))) == []


def test_grid_of_two_numbers_is_at_the_quantiles() -> None:
    """The corner above left is the largest second number and the smallest first; rows and columns are quantiles."""
    seen: list[Tensor] = []

    def decode(z: Tensor) -> Tensor:
        seen.append(z)
        return torch.zeros(len(z), 1, 2, 2, dtype=torch.uint8)

    latents.latent_grid(torch.zeros(5, 2), decode)
    z = seen[0].view(12, 12, 2)
    steps = Normal(0.0, 1.0).icdf((torch.arange(12) + 0.5) / 12)
    torch.testing.assert_close(z[0, :, 0], steps)
    torch.testing.assert_close(z[:, 0, 1], steps.flip(0))
    assert (z[:, 3, 0] == z[0, 3, 0]).all()


def test_principal_directions_are_those_of_most_variance() -> None:
    torch.manual_seed(0)
    codes = torch.randn(500, 5) * torch.tensor([0.1, 3.0, 0.1, 2.0, 0.1]) + 7
    centre, directions, deviations = latents.principal(codes)
    torch.testing.assert_close(centre, codes.mean(0))
    assert directions[0, 1].abs() > 0.98
    assert directions[1, 3].abs() > 0.98
    torch.testing.assert_close(deviations, torch.tensor([3.0, 2.0]), rtol=0.1, atol=0)


@pytest.mark.parametrize("latent", [1, 2, 5])
def test_one_picture_alone_is_a_map_too(latent: int) -> None:
    code = torch.arange(1.0, latent + 1)[None]
    view = latents.latent_map(code, ["a"])
    assert len(view.data["x"]) == len(view.data["y"]) == 1
    grid = latents.latent_grid(code, lambda z: torch.zeros(len(z), 1, 8, 8, dtype=torch.uint8))
    assert grid.pictures is not None
    assert len(grid.pictures) == 144


def test_collapse_is_said() -> None:
    p = predictor()
    with torch.no_grad():
        p.model.posterior.weight.zero_()
    scores = p.scores(batches(10), [])
    assert scores is not None
    assert "posterior collapse: the 4 latent numbers together say" in scores.beside
    assert "Posterior collapse" in [v.title for v in p.views(lambda: batches(10))][-1]
