"""Reconstruction: losses and penalties by hand, the threshold, denoising, and what sparse training does to codes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from engram.core.batch import split_rows
from engram.core.errors import DataError
from engram.core.task import Ctx
from engram.models.autoencoder import Autoencoder
from engram.models.conv_autoencoder import ConvAutoencoder
from engram.nn.corrupt import corrupt
from engram.tasks.reconstruct import Reconstruct, quantile

SHAPE = (1, 8, 8)


def pictures(rows: int = 40) -> Tensor:
    return torch.tensor(load_digits().images[:rows] / 16.0, dtype=torch.float32).unsqueeze(1)  # type: ignore[attr-defined]


def net(code_activation: str = "linear", code: int = 8) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(SHAPE, code, (24,), code_activation=code_activation)


def test_losses_by_hand() -> None:
    x = pictures()
    model = net()
    raw = model(x)[0].detach()
    p = raw.sigmoid()
    expected = {
        ("mse", True): (p - x).square().mean(),
        ("mse", False): (raw - x).square().mean(),
        ("bce", True): -(x * p.log() + (1 - x) * (1 - p).log()).mean(),
    }
    for (kind, bounded), value in expected.items():
        task = Reconstruct(model, loss=kind, bounded=bounded)  # type: ignore[arg-type]
        assert float(task.loss({"x": x}, Ctx())[0].detach()) == pytest.approx(float(value), rel=1e-5)
    plain = Reconstruct(model, bounded=False)({"x": x})  # in use clipped, which the loss above is not
    assert torch.equal(plain, model(x)[0].clamp(0, 1))
    assert raw.min() < 0
    assert Reconstruct(model, loss="bce").chance_loss() == pytest.approx(math.log(2))


@torch.no_grad()
def test_penalties_by_hand_and_which_may_be_split() -> None:
    x = pictures()
    model = net("sigmoid")
    code = model.encode(x).double()
    l1, logs = Reconstruct(model, sparse="l1", weight=0.3).loss({"x": x}, Ctx())
    assert float(logs["penalty"]) == pytest.approx(float(code.abs().mean()), rel=1e-5)
    assert float(l1) == pytest.approx(float(logs["error"] + 0.3 * logs["penalty"]), rel=1e-6)
    mean, target = code.mean(0), 0.1
    kl = (target * (target / mean).log() + (1 - target) * ((1 - target) / (1 - mean)).log()).mean()
    task = Reconstruct(model, sparse="kl", weight=0.3, activation=target)
    assert float(task.loss({"x": x}, Ctx())[1]["penalty"]) == pytest.approx(float(kl), rel=1e-5)
    assert not task.phases()[0].splits
    assert "mean activation" in task.phases()[0].why_whole
    assert Reconstruct(model, sparse="l1", weight=0.3).phases()[0].splits
    assert not Reconstruct(Autoencoder(SHAPE, 4, (8,), norm="batch")).phases()[0].splits


@torch.no_grad()
def test_a_map_is_sparse_by_channel() -> None:
    torch.manual_seed(0)
    model = ConvAutoencoder(SHAPE, 3, (4,), spatial=True, code_activation="sigmoid")
    x = pictures()
    mean = model.encode(x).mean((0, 2, 3))
    assert mean.shape == (3,)
    kl = (0.1 * (0.1 / mean).log() + 0.9 * (0.9 / (1 - mean)).log()).mean()
    found = Reconstruct(model, sparse="kl", weight=1.0, activation=0.1).loss({"x": x}, Ctx())[1]["penalty"]
    assert float(found) == pytest.approx(float(kl), rel=1e-5)


@pytest.mark.parametrize("noise", ["gaussian", "masking", "salt_and_pepper"])
def test_it_reads_the_noisy_picture_and_is_judged_by_the_clean_one(noise: str) -> None:
    x = pictures()
    draw = torch.Generator().manual_seed(1)
    numbers = (torch.randn if noise == "gaussian" else torch.rand)(x.shape, generator=draw)
    task = Reconstruct(net(), noise=noise, amount=0.4)  # type: ignore[arg-type]
    expected = (task.model(corrupt(x, noise, 0.4, numbers))[0].sigmoid() - x).square().mean()
    assert float(task.loss({"x": x, "noise": numbers}, Ctx())[0]) == pytest.approx(float(expected), rel=1e-6)
    # micro-batches carry their own numbers, so that together they are the batch
    parts = [task.loss(part, Ctx())[0] * len(part["x"]) for part in split_rows({"x": x, "noise": numbers}, 3)]
    assert float(torch.stack(parts).sum() / len(x)) == pytest.approx(float(expected), rel=1e-5)
    # without numbers the same ones are drawn every time
    assert torch.equal(task.corrupted({"x": x}), task.corrupted({"x": x}))
    assert not torch.equal(task.corrupted({"x": x}), x)


@torch.no_grad()
def test_figures_and_threshold() -> None:
    """Over uneven batches, against numpy over all rows at once; the threshold lets pass what it should."""
    x = pictures(50)
    numbers = torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    batches = [{"x": x[a:b], "noise": numbers[a:b]} for a, b in ((0, 30), (30, 45), (45, 50))]
    for score in ("error", "unexplained"):
        task = Reconstruct(net(), noise="masking", amount=0.3, score=score, alarms=0.1)  # type: ignore[arg-type]
        assert float(task.threshold) == -1
        found = task.evaluate(batches, Ctx())
        clean = (task({"x": x}) - x).square().flatten(1).mean(1).double().numpy()
        cleaned = (task({"x": task.corrupted({"x": x, "noise": numbers})}) - x).square().flatten(1).mean(1).double().numpy()
        assert found["loss"] == pytest.approx(cleaned.mean(), rel=1e-5)
        assert found["error"] == pytest.approx(clean.mean(), rel=1e-5)
        assert found["psnr"] == pytest.approx((-10 * np.log10(clean)).mean(), rel=1e-5)
        assert found["psnr_denoised"] == pytest.approx((-10 * np.log10(cleaned)).mean(), rel=1e-5)
        given = (torch.where(numbers < 0.3, 0.0, x) - x).square().flatten(1).mean(1).double().numpy()
        assert found["psnr_noisy"] == pytest.approx((-10 * np.log10(given)).mean(), rel=1e-4)
        scores = clean if score == "error" else clean / x.flatten(1).double().var(1, correction=0).numpy()
        assert float(task.threshold) == pytest.approx(found["threshold"]) == pytest.approx(np.sort(scores)[44], rel=1e-5)
        assert (scores > float(task.threshold) * (1 + 1e-6)).sum() == 5
    with pytest.raises(DataError, match="no rows"):
        task.evaluate([], Ctx())


def test_quantile_is_the_least_that_enough_do_not_exceed() -> None:
    values = torch.tensor([3.0, 1.0, 2.0, 4.0])
    assert [quantile(values, s) for s in (0.0, 0.25, 0.26, 0.5, 0.95, 1.0)] == [1.0, 1.0, 2.0, 2.0, 4.0, 4.0]
    assert quantile(torch.tensor([7.0]), 0.95) == 7.0


def test_the_threshold_is_part_of_the_state() -> None:
    task, other = Reconstruct(net()), Reconstruct(net())
    with torch.no_grad():
        task.evaluate([{"x": pictures()}], Ctx())
    other.load_state_dict(task.state_dict())
    assert float(other.threshold) == float(task.threshold) > 0


def trained(task: Reconstruct, steps: int = 150) -> tuple[Tensor, float]:
    """Codes of the pictures after training, and their error."""
    x = pictures(100)
    optimizer = torch.optim.Adam(task.parameters(), 1e-2)
    for _ in range(steps):
        loss, logs = task.loss({"x": x}, Ctx())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return task.model.encode(x).detach(), float(logs.get("error", loss))  # type: ignore[operator]


def test_penalties_do_to_codes_what_they_say() -> None:
    """KL brings every number's mean activation near its target, L1 sets most of a rectified code to zero."""
    free, error = trained(Reconstruct(net("sigmoid", 20)))
    held, _ = trained(Reconstruct(net("sigmoid", 20), sparse="kl", weight=0.2, activation=0.1))
    assert (held.mean(0) - 0.1).abs().max() < 0.05 < (free.mean(0) - 0.1).abs().mean()
    free, error = trained(Reconstruct(net("relu", 20)))
    sparse, penalised = trained(Reconstruct(net("relu", 20), sparse="l1", weight=1e-2))
    assert (sparse == 0).float().mean() > (free == 0).float().mean() + 0.2
    assert error < penalised < 0.06  # it still draws the digits: a grey picture has 0.2
