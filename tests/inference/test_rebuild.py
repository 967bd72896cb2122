"""A trained autoencoder in use: codes, errors, the threshold, figures with odd classes and with noise, views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from engram.core.errors import ConfigError
from engram.core.predictor import Scores
from engram.data.image_spec import ImageSpec
from engram.inference.odd import placements, roc_curve
from engram.inference.rebuild import Denoiser, Rebuilder
from engram.models.autoencoder import Autoencoder
from engram.models.conv_autoencoder import ConvAutoencoder
from engram.nn.corrupt import corrupt
from engram.nn.noise import RowNoise

SHAPE = (1, 6, 5)
SPEC = ImageSpec(channels=1, height=6, width=5, mean=(0.0,), std=(1.0,), classes=("a", "b", "c"))


def net() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(SHAPE, 3, (8,))


def batches(rows: int = 60) -> list[dict[str, Tensor]]:
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(rows, *SHAPE, generator=g), torch.arange(rows) % 3
    x[y == 2] *= 0.5  # pictures of c have less contrast: another score
    return [{"x": x[:25], "y": y[:25]}, {"x": x[25:], "y": y[25:]}]


def values(found: Scores) -> dict[str, float]:
    return {name: float(figure.statistic(found.parts.sum(0, keepdim=True))[0]) for name, figure in found.figures.items()}


def test_codes_and_pictures_are_those_of_the_model() -> None:
    x = batches()[0]["x"]
    model = net()
    user = Rebuilder(model, SPEC)
    with torch.no_grad():
        raw, code = model(x)
        assert torch.equal(user.encode(x), code)
        assert torch.equal(user.reconstruct(x), raw.sigmoid())
        assert torch.equal(Rebuilder(model, SPEC, bounded=False).reconstruct(x), raw.clamp(0, 1))
        assert raw.min() < 0
        with pytest.raises(ConfigError, match="noise=gaussian"):
            user.denoise(x)
        assert torch.equal(Denoiser(model, SPEC, noise="gaussian", amount=0.3).denoise(x), raw.sigmoid())


def test_prediction_says_odd_by_the_threshold() -> None:
    x = batches()[0]["x"]
    model = net()
    with torch.no_grad():
        error = (model(x)[0].sigmoid() - x).square().flatten(1).mean(1)
    share = error / x.flatten(1).var(1, correction=0)
    pictures = [(p[0].numpy() * 255).round().astype(np.uint8) for p in x]
    for score, by in (("error", error), ("unexplained", share)):
        cut = float(by.sort().values[20])
        found = Rebuilder(model, SPEC, threshold=cut + 1e-4, score=score)(images=pictures)  # type: ignore[arg-type]
        assert found["error"] == pytest.approx(error.tolist(), abs=3e-3)  # eight bits
        assert found["unexplained"] == pytest.approx(share.tolist(), abs=3e-2)
        assert found["odd"].count("yes") in (3, 4, 5)
        assert {found["odd"][i] for i in by.argsort()[:15]} == {"no"}
    assert set(Rebuilder(model, SPEC)(images=pictures)["odd"]) == {"unknown"}


def test_figures_against_scikit_learn_with_odd_classes() -> None:
    """The area is exact, and the resampled one varies as DeLong's formula says."""
    both = batches(600)
    user = Rebuilder(net(), SPEC, threshold=1.05, odd=("c",))
    found = user.scores(iter(both), [])
    assert found is not None
    x, y = (torch.cat([b[n] for b in both]) for n in ("x", "y"))
    outputs = user.outputs({"x": x})
    score, odd = outputs["unexplained"].double().numpy(), (y == 2).numpy()
    got = values(found)
    assert next(iter(got)) == "roc_auc"
    assert got["roc_auc"] == pytest.approx(roc_auc_score(odd, score), abs=1e-9)
    assert got["found"] == pytest.approx((score[odd] > 1.05).mean())
    assert got["alarms"] == pytest.approx((score[~odd] > 1.05).mean())
    assert 0 < got["alarms"] != got["found"]
    assert got["error"] == pytest.approx(float(outputs["error"].mean()), rel=1e-5)
    assert got["psnr"] == pytest.approx(float((-10 * outputs["error"].log10()).mean()), rel=1e-5)
    assert "guessing" in found.beside
    random = np.random.default_rng(0)
    times = random.multinomial(600, np.full(600, 1 / 600), size=2000)
    drawn = found.figures["roc_auc"].statistic(torch.from_numpy(times @ found.parts.numpy())).numpy()
    true = [roc_auc_score(odd, score, sample_weight=t) for t in times[:300]]
    assert drawn.std() == pytest.approx(np.std(true), rel=0.1)


def test_figures_of_pictures_without_classes_and_without_rows() -> None:
    user = Rebuilder(net(), SPEC, threshold=0.1, odd=("c",))
    plain = user.scores([{"x": b["x"]} for b in batches()], [])
    assert plain is not None
    assert list(plain.figures) == ["psnr", "error", "unexplained"]
    normal = [{n: t[b["y"] != 2] for n, t in b.items()} for b in batches()]
    alone = user.scores(normal, [])  # no odd one among them: nothing to tell apart
    assert alone is not None
    assert "roc_auc" not in alone.figures
    assert user.scores([], []) is None


@pytest.mark.parametrize("noise", ["gaussian", "masking", "salt_and_pepper"])
def test_cleaning_is_measured_on_the_same_noise_for_any_batches(noise: str) -> None:
    user = Denoiser(net(), SPEC, noise=noise, amount=0.4)
    both = batches()
    x = torch.cat([b["x"] for b in both])
    law = RowNoise(0, 0, len(x))
    noisy = corrupt(x, noise, 0.4, law.normal(*SHAPE) if noise == "gaussian" else law.uniform(1, *SHAPE[1:]))
    found = user.scores(both, [])
    assert found is not None
    got = values(found)
    assert list(got)[:2] == ["psnr_denoised", "psnr_noisy"]
    for name, y in (("psnr_noisy", noisy), ("psnr_denoised", user.denoise(noisy))):
        expected = (-10 * (y - x).square().flatten(1).mean(1).log10()).mean()
        assert got[name] == pytest.approx(float(expected), rel=1e-5)
    assert f"{got['psnr_noisy']:.1f}" in found.beside


def test_views_show_what_they_say() -> None:
    user = Denoiser(net(), SPEC, threshold=0.1, odd=("c",), noise="gaussian", amount=0.4)
    both = batches()
    views = {view.name: view for view in user.views(lambda: both)}
    assert set(views) == {"latent-map", "reconstructions", "denoising", "oddest", "roc"}
    x, y = (torch.cat([b[n] for b in both]) for n in ("x", "y"))
    assert views["latent-map"].data["label"] == ["abc"[i] for i in y.tolist()]
    # the map keeps the directions of most variance: numpy's covariance has the same two eigenvalues
    at = np.array([views["latent-map"].data["x"], views["latent-map"].data["y"]])
    largest = np.linalg.eigvalsh(np.cov(user.encode(x).numpy().T))[-2:]
    np.testing.assert_allclose(np.var(at, 1, ddof=1), largest[::-1], rtol=1e-2, atol=1e-4)
    pictures = {name: view.pictures for name, view in views.items()}
    assert pictures["reconstructions"] is not None
    assert torch.equal(pictures["reconstructions"][:10], user.to_uint8(x[:10]))
    assert torch.equal(pictures["reconstructions"][10:], user.to_uint8(user.reconstruct(x[:10])))
    assert pictures["denoising"] is not None
    assert len(pictures["denoising"]) == 30
    worst = user.outputs({"x": x})["unexplained"].argsort(descending=True)[:20]
    assert pictures["oddest"] is not None
    assert torch.equal(pictures["oddest"][:20], user.to_uint8(x[worst]))
    plain = {view.name for view in Rebuilder(net(), SPEC).views(lambda: [{"x": b["x"]} for b in both])}
    assert plain == {"latent-map", "reconstructions", "oddest"}
    assert list(Rebuilder(net(), SPEC).views(list)) == []


def test_roc_curve_passes_through_its_points() -> None:
    normal, strange = torch.linspace(0, 1, 100), torch.linspace(0.5, 1.5, 40)
    scores, odd = torch.cat([normal, strange]), torch.arange(140) >= 100
    data = roc_curve(scores, odd).data
    found = data["series"]["odd ones found"]
    assert found == sorted(found)
    assert found[0] == pytest.approx(float((strange > 1).float().mean()), abs=1e-5)  # no false alarm
    assert found[50] == pytest.approx(1.0, abs=0.03)
    assert found[-1] == 1
    assert float(np.trapezoid(found, data["x"])) == pytest.approx(float(placements(strange, normal).mean()), abs=0.01)


def test_low_precision_and_layout_change_little() -> None:
    torch.manual_seed(0)
    model = ConvAutoencoder(SHAPE, 4, (6, 8))
    x = batches()[0]["x"]
    plain, tuned = Rebuilder(model, SPEC), Rebuilder(model, SPEC)
    tuned.tune(bf16=True, channels_last=True)
    torch.testing.assert_close(tuned.reconstruct(x), plain.reconstruct(x), atol=2e-2, rtol=0)
    assert tuned.encode(x).dtype == torch.float32
    assert not torch.equal(tuned.reconstruct(x), plain.reconstruct(x))
    assert next(model.parameters()).stride() == next(plain.model.parameters()).stride()
