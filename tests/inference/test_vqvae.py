"""Vector-quantised pictures in use: codes there and back, figures, and how the codes are used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from sklearn.datasets import load_digits

from engram.core.batch import Batch
from engram.core.errors import ConfigError
from engram.data.image_spec import ImageSpec
from engram.inference.vqvae import CodedPictures
from engram.models.vqvae import VQVAE

SPEC = ImageSpec(channels=1, height=8, width=8, mean=(0.3,), std=(0.37,), classes=())
X = (torch.tensor(load_digits().images[:30], dtype=torch.float32)[:, None] / 16 - 0.3) / 0.37


def predictor() -> CodedPictures:
    torch.manual_seed(0)
    net = VQVAE(1, 8, 8, codes=16, code_width=4, widths=(6, 6), blocks=1)
    net.codebook.vectors.normal_()
    return CodedPictures(net, SPEC)


def batches(size: int) -> Iterator[Batch]:
    for x in X.split(size):
        yield {"x": x}


def test_codes_there_and_back() -> None:
    p = predictor()
    ids = p.encode(X)
    assert (ids.shape, ids.dtype) == ((30, 2, 2), torch.int64)
    torch.testing.assert_close(p.reconstruct(X), p.model(X), atol=1e-5, rtol=1e-5)


def test_figures_by_hand() -> None:
    """In pixels of 0 to 1; however the rows are cut."""
    p = predictor()
    errors = ((p.model(X) - X) * 0.37).square().flatten(1).mean(1)
    torch.testing.assert_close(p.outputs({"x": X})["error"], errors.sqrt(), rtol=1e-4, atol=1e-6)
    used = p.encode(X).flatten().bincount(minlength=16)
    for size in (30, 7):
        scores = p.scores(batches(size), [])
        assert scores is not None
        sums = scores.parts.sum(0, keepdim=True)
        assert scores.figures["rmse"].statistic(sums).item() == pytest.approx(errors.mean().sqrt().item(), rel=1e-4)
        assert scores.figures["psnr"].statistic(sums).item() == pytest.approx(-10 * errors.mean().log10().item(), rel=1e-4)
        assert f"{int((used == 0).sum())} dead" in scores.beside
        assert "0.25 bits per pixel" in scores.beside  # 2 x 2 codes of 4 bits for 64 pixels
    assert p.scores(iter(()), []) is None


def test_views() -> None:
    p = predictor()
    views = {view.name: view for view in p.views(lambda: batches(12))}
    assert sorted(views) == ["codes", "codes-in-use", "reconstructions"]
    counts = p.encode(X).flatten().bincount(minlength=16)
    bars = views["codes-in-use"].data
    assert dict(zip(map(int, bars["names"]), bars["values"], strict=True)) == dict(enumerate(counts.float().tolist()))
    assert bars["values"] == sorted(bars["values"], reverse=True)
    alone = views["codes"].pictures
    assert alone is not None
    assert len(alone) == int((counts > 0).sum())
    assert torch.equal(alone[0], p.to_uint8(p.model.decode_ids(counts.argmax().expand(1, 2, 2)))[0])
    assert list(p.views(lambda: iter(()))) == []


def test_it_draws_nothing() -> None:
    with pytest.raises(ConfigError, match="makes no new pictures"):
        predictor().sample(n=2)
