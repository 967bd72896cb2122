"""vae on colour: few pictures give codes, pictures and bounds worth having at once, and every check of a recipe holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import recipe_checks as checks
import torch
from PIL import Image

import engram
from engram.core.errors import RunError
from engram.data.image_spec import ImageSpec
from engram.data.shapes import draw
from engram.recipes.vae import Vae

CHECKS = [
    checks.check_one_batch_overfits, checks.check_every_weight_gets_a_gradient, checks.check_rows_do_not_leak_into_each_other,
    checks.check_micro_batches_equal_one_batch, checks.check_resume_is_bitwise, checks.check_same_seed_gives_same_weights,
]  # fmt: skip


class Normal(Vae):
    """Pixels that are normal, at the size for checks."""

    tiny: ClassVar = {**Vae.tiny, "likelihood": "gaussian"}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> checks.Case:
    folder = tmp_path_factory.mktemp("vae")
    run = engram.train("vae", out=folder / "run", progress=False, report=False, **Normal.tiny, **checks.FIXED)
    return checks.Case("vae", Normal, run, folder)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__.removeprefix("check_"))
def test_checks(case: checks.Case, check: Any) -> None:
    check(case)


def test_a_run_opens_without_its_data(case: checks.Case) -> None:
    """The axes come from the run's weights, not from its Spec."""
    again = engram.load(case.run.path)
    assert "principal" not in str(again.info["spec"])
    x = torch.rand(3, 1, 8, 8)
    assert again.model.axes.abs().sum() > 0  # type: ignore[union-attr,operator]
    assert torch.equal(again.predictor.reconstruct(x), case.run.predictor.reconstruct(x))  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 coloured shapes on bright ground of 16 x 16."""
    path = tmp_path_factory.mktemp("shapes")
    ground = np.random.default_rng(0).integers(120, 250, (160, 1, 1, 3))
    for n, picture in enumerate(draw("train", 160, side=16).pixels.transpose(0, 2, 3, 1)):
        Image.fromarray(np.maximum(picture, ground[n]).astype(np.uint8)).save(path / f"{n}.png")
    return path


def trained(folder: Path, out: Path, **knobs: Any) -> engram.Run:
    return engram.train(
        "vae", data=str(folder), out=out, steps=40, evals=4, samples=4, threads=1, progress=False, report=False, **knobs
    )


def test_few_colour_pictures(folder: Path, tmp_path: Path) -> None:
    """Against the network alone: a better bound and reconstructions; and samples have the colours of the pictures."""
    axes, alone = (trained(folder, tmp_path / str(on), axes=on) for on in (True, False))
    assert any("128 training pictures are few" in note["text"] for note in axes.info["data"]["notes"])
    figures = [run.result["metrics"]["elbo"]["value"] for run in (axes, alone)]
    assert figures[0] > figures[1] + 300, figures
    x = torch.cat([axes.spec.encode(str(p))["x"] for p in sorted(folder.glob("*.png"))])
    errors = [(run.predictor.reconstruct(x) - x).square().mean().sqrt().item() for run in (axes, alone)]  # type: ignore[attr-defined]
    assert errors[0] < 0.6 * errors[1], errors
    drawn = torch.from_numpy(np.concatenate([c.arrays for c in axes.sample(64)])).float() / 255
    assert (drawn.mean((0, 1, 2)) - x.mean((0, 2, 3))).abs().max() < 0.05
    assert (drawn.std() / x.std()).item() == pytest.approx(1, abs=0.25)


def test_a_run_of_before_the_axes_is_refused(folder: Path, tmp_path: Path) -> None:
    """Its weights hold none, and its knobs do not know the word."""
    run = trained(folder, tmp_path / "run", axes=False)
    info = json.loads(run.folder.run_json.read_text())
    del info["knobs"]["axes"]
    run.folder.run_json.write_text(json.dumps(info))
    with pytest.raises(RunError, match="a version with other networks made it"):
        engram.load(run.path).predict(torch.rand(3, 16, 16))


def test_conv_by_class_and_a_given_deviation(folder: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(folder.glob("*.png"))[:40]):
        (tmp_path / "by" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "by" / str(number % 2) / path.name).write_bytes(path.read_bytes())
    run = trained(tmp_path / "by", tmp_path / "run", network="conv", widths=(8,), conditional=True, sigma=0.1, latent=50)
    assert run.task.likelihood.log_var.exp().sqrt().item() == pytest.approx(0.1)  # type: ignore[union-attr,operator]
    assert next(iter(run.sample(2, label="1"))).arrays.shape == (2, 16, 16, 3)
    assert np.isfinite(run.result["metrics"]["elbo"]["value"])


def test_what_a_code_holds_by_default(folder: Path, tmp_path: Path) -> None:
    assert trained(folder, tmp_path / "run").model.latent == 64
    assert Vae().latent == 0
    task = Vae().make_task(ImageSpec(channels=1, height=8, width=8, mean=(0.0,), std=(1.0,), classes=()))
    assert task.model.latent == 20  # type: ignore[union-attr]
    assert type(task.model).__name__ == "VAE"
