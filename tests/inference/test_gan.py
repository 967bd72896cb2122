"""Samples of a GAN by class, temperature and seed; scores and figures against what they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from engram.core.batch import Batch
from engram.core.errors import ConfigError
from engram.data.image_spec import ImageSpec
from engram.inference.gan import Adversary
from engram.models.gan import Discriminator, Generator
from engram.nn.sliced import directions, transport

NAMES = ("cat", "dog", "eel")


def spec(classes: tuple[str, ...] = NAMES) -> ImageSpec:
    counts = (1, 2, 97)[: len(classes)]
    return ImageSpec(channels=1, height=8, width=8, mean=(0.5,), std=(0.5,), classes=classes, class_counts=counts)


def made(classes: int = 3) -> Adversary:
    torch.manual_seed(0)
    networks = Generator(1, (8, 8), 4, 4, classes), Discriminator(1, (8, 8), 4, classes, hidden=6)
    torch.nn.init.normal_(networks[1].score.weight)
    return Adversary(networks[0].eval(), networks[1].eval(), spec(NAMES[:classes]), 4, classes)


def arrays(gan: Adversary, n: int = 6, **asked: Any) -> np.ndarray:
    return np.concatenate([s.arrays for s in gan.sample(n, **asked)])


def batches(rows: int = 10, classes: bool = True) -> Iterator[Batch]:
    g = torch.Generator().manual_seed(3)
    for _ in range(3):
        x = torch.randn(rows, 1, 8, 8, generator=g).clamp(-1, 1)
        yield {"x": x, "y": torch.arange(rows) % 3} if classes else {"x": x}


def test_a_seed_means_its_pictures() -> None:
    """In chunks of any size; another seed gives others."""
    gan = made()
    whole = arrays(gan, 6)
    assert whole.shape == (6, 8, 8, 1)
    assert np.array_equal(arrays(gan, 6, chunk=4), whole)
    assert not np.array_equal(arrays(gan, 6, seed=1), whole)


def test_classes_as_asked_or_as_often_as_in_training() -> None:
    gan = made()
    noise = torch.rand(2000, generator=torch.Generator().manual_seed(0))
    drawn = gan._labels(None, noise)
    assert drawn is not None
    assert (drawn.bincount(minlength=3) / 2000).tolist() == pytest.approx([0.01, 0.02, 0.97], abs=0.01)
    eels = arrays(gan, 6, label="eel")
    assert not np.array_equal(arrays(gan, 6, label="cat"), eels)
    with torch.no_grad():
        gan.generator.get_parameter("embed.weight")[2] += 1  # what the class means has changed
    assert not np.array_equal(arrays(gan, 6, label="eel"), eels)


def test_temperature_zero_is_the_mean_picture() -> None:
    gan = made()
    still = arrays(gan, 5, label="dog", temperature=0.0)
    assert all(np.array_equal(still[0], one) for one in still)
    assert not np.array_equal(arrays(gan, 5, label="dog"), still)
    assert np.array_equal(arrays(gan, 5, label="dog", temperature=1.0), arrays(gan, 5, label="dog"))


def test_errors() -> None:
    with pytest.raises(ConfigError, match=r"no class 'dgo'.*did you mean dog"):
        made().sample(2, label="dgo")
    with pytest.raises(ConfigError, match="knows no classes"):
        made(0).sample(2, label="dog")
    with pytest.raises(ConfigError, match=r"temperature=3 must be 0 to 2"):
        made().sample(2, temperature=3)
    with pytest.raises(ConfigError, match="steps=5 means nothing"):
        made().sample(2, steps=5)


def test_scores_of_pictures() -> None:
    """Of the class given, or of the class that suits best; one number per picture from outside."""
    gan, batch = made(), next(batches())
    with torch.no_grad():
        known = gan.discriminator(batch["x"], batch["y"])
        every = torch.stack([gan.discriminator(batch["x"], torch.full((10,), k)) for k in range(3)], 1)
    torch.testing.assert_close(gan.outputs(batch)["score"], known)
    torch.testing.assert_close(gan.outputs({"x": batch["x"]})["score"], every.amax(1))
    told = gan(images=[np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)])
    ends = torch.cat([torch.full((1, 1, 8, 8), v) for v in (-1.0, 1.0)])
    assert told["score"] == pytest.approx(gan.outputs({"x": ends})["score"].tolist(), abs=1e-5)


@pytest.mark.parametrize("classes", [0, 3])
def test_figures_of_the_test_split(classes: int) -> None:
    gan = made(classes)
    found = gan.scores(batches(classes=bool(classes)), [])
    assert found is not None
    assert len(found.parts) == 30
    values = {n: float(f.statistic(found.parts.sum(0, keepdim=True))) for n, f in found.figures.items()}
    pairs = list(gan._pairs(batches(classes=bool(classes))))
    x, fake = torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])
    assert len(fake.unique(dim=0)) == 30  # every row has latents of its own
    along = directions((1, 8, 8))
    with torch.no_grad():
        expected = transport(x.flatten(1) @ along, fake.flatten(1) @ along).mean()
        real = torch.cat([gan._score(p[0], p[2]) for p in pairs]).mean()
    assert values["swd"] == pytest.approx(float(expected), rel=1e-5)
    assert values["real"] == pytest.approx(float(real), rel=1e-4)
    assert 0 <= values["right"] <= 1
    assert "two halves" in found.beside
    assert gan.scores([], []) is None


@pytest.mark.parametrize("classes", [0, 3])
def test_views(classes: int) -> None:
    gan = made(classes)
    grid, scores = gan.views(lambda: batches(classes=bool(classes)))
    assert grid.pictures is not None
    assert (grid.pictures.shape, grid.pictures.dtype) == ((40, 1, 8, 8), torch.uint8)
    assert np.array_equal(grid.pictures[:6].permute(0, 2, 3, 1).numpy(), arrays(gan, 6))
    assert scores.kind == "lines"
    for series in scores.data["series"].values():
        assert len(series) == len(scores.data["x"])
        assert sum(series) == pytest.approx(1)
