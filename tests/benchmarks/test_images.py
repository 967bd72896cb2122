"""The benchmarks of picture generators: our own contenders and the plain loops run, on networks of equal size."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks.image_ours import DDPM, Sampling, UNetStep
from benchmarks.image_peers import HandGan, pictures
from benchmarks.images import WORKS, contestant
from benchmarks.vae_peers import HandVae


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("work", "name"), [("gan", "hand"), ("gan", "engram"), ("vae", "hand"), ("vae", "engram")])
def test_contenders_train(work: str, name: str) -> None:
    made = contestant(work, name, True, 1)
    assert made.hello()["threads"] == 1
    reply = made.run(0)
    assert reply["units"] == 3
    assert reply["seconds"] > 0
    assert all(0 < loss < 600 for loss in reply["figures"].values())
    assert len(reply["figures"]) in (1, 2)


def test_networks_have_the_size_of_the_peers() -> None:
    gan, vae = HandGan(True, 1), HandVae(True, 1)
    ours = {work: contestant(work, "engram", True, 1)._job(0).task for work in ("gan", "vae")}  # type: ignore[attr-defined]
    count = {name: sum(p.numel() for p in task.parameters()) for name, task in ours.items()}
    assert count["gan"] == sum(p.numel() for net in (gan.g, gan.d) for p in net.parameters())
    assert count["vae"] == sum(p.numel() for net in (vae.encoder, vae.decoder) for p in net.parameters())


def test_the_clock_covers_the_steps_and_not_the_film() -> None:
    made = UNetStep(True, 1)
    job = made._job(0)
    assert job.plan.steps == 3
    assert job.data.size("val") == 0
    assert DDPM["batch"] == len(next(job.data.batches("train"))["x"])
    assert 1_900_000 < job.parameters < 2_300_000  # UNet2DModel: 1,904,001


def test_sampling_says_what_it_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DDPM, "widths", (8, 8, 16))
    made = Sampling(True, 1)
    assert made.hello()["precision"] == "fp32"
    assert made.run(0)["units"] == 3


def test_every_reference_is_a_contender_and_pictures_have_their_range() -> None:
    assert all(reference in classes for _, _, reference, classes in WORKS.values())
    x = pictures(5, 28)
    assert x.shape == (5, 1, 28, 28)
    assert float(x.min()) >= -1
    assert float(x.max()) <= 1.01
