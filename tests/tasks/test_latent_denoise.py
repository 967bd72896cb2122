"""The two stages of latent diffusion: what each moves and reads, and that no figure depends on how a batch is cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from engram.core.batch import Batch
from engram.core.data import Data, Summary
from engram.core.errors import DataError
from engram.core.plan import Plan
from engram.core.task import Ctx
from engram.models.latent_vae import LatentVAE
from engram.models.text_encoder import TextEncoder
from engram.models.text_unet import TextUNet
from engram.nn.schedule import Schedule
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.latent_denoise import LatentDenoise
from engram.training.fit import fit


def make(drop: float = 0.5) -> LatentDenoise:
    torch.manual_seed(0)
    text, unet = TextEncoder(9, 4, 8, 1, 2), TextUNet(2, (2, 2), 8, (8,), 2)
    torch.nn.init.normal_(unet.out.weight, std=0.2)
    return LatentDenoise(LatentVAE(1, (8, 8), 2, (4, 8)), text, unet, Schedule("cosine", "velocity"), share=0.5, drop=drop)


def batch(rows: int = 8, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=random)

    return {
        "x": normal(1, 8, 8), "eps": normal(2, 2, 2), "noise": normal(2, 2, 2),
        "tokens": torch.randint(1, 9, (rows, 4), generator=random), "lengths": torch.randint(1, 5, (rows,), generator=random),
        "u": torch.rand(rows, generator=random), "drop": torch.rand(rows, generator=random),
    }  # fmt: skip


def test_losses_are_those_of_their_formulas() -> None:
    """Squared error plus KL per number, and the error of alpha noise - sigma code with some captions left out, to 1e-6."""
    task, b = make(), batch()
    mean, log_var = task.codec.encode(b["x"])
    decoded = task.codec.decode(mean + (log_var / 2).exp() * b["eps"])
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (log_var / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    want = (decoded - b["x"]).pow(2).mean() + 1e-3 * kl.sum() / b["x"].numel()
    torch.testing.assert_close(task.compress(b, Ctx())[0], want, atol=1e-6, rtol=1e-6)

    task.eval()
    alpha, sigma = (c.view(-1, 1, 1, 1) for c in task.schedule.alpha_sigma(1 - b["u"]))
    codes = task.codec(b["x"])
    told = torch.where(b["drop"] < 0.5, 0, b["lengths"])
    assert 0 < int((told == 0).sum()) < 8
    text, unet = task.denoiser["text"], task.denoiser["unet"]
    out = unet(alpha * codes + sigma * b["noise"], 1 - b["u"], text(b["tokens"], told))
    want = (out - (alpha * b["noise"] - sigma * codes)).pow(2).mean()
    torch.testing.assert_close(task.denoise(b, Ctx())[0], want, atol=1e-6, rtol=1e-6)


def test_sums_of_codes_do_not_depend_on_the_cut() -> None:
    whole, cut = make(), make()
    b = batch()
    whole.compress(b, Ctx())
    for rows in (slice(0, 3), slice(3, 4), slice(4, 8)):
        cut.compress({name: t[rows] for name, t in b.items()}, Ctx())
    torch.testing.assert_close(whole.codec.moments, cut.codec.moments)
    assert whole.codec.moments[0, 0] == 8 * 4
    whole.after_step(Ctx(0, 10))
    assert whole.codec.moments[0, 0] == pytest.approx(0.99 * 32)
    whole.after_step(Ctx(5, 10))  # the second stage: nothing fades
    assert whole.codec.moments[0, 0] == pytest.approx(0.99 * 32)
    whole.eval()
    whole.compress(b, Ctx())
    assert whole.codec.moments[0, 0] == pytest.approx(0.99 * 32)


class Same(Data):
    """New rows at every step."""

    spec, summary, batch = None, Summary(title="", rows={"train": 8, "val": 0, "test": 0}), 8  # type: ignore[assignment]

    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        number = start
        while split == "train":
            yield batch(seed=number)
            number += 1
        yield batch(seed=999)

    def size(self, split: str) -> int:
        return 8


def test_stages_move_their_own_and_codes_end_with_deviation_1() -> None:
    """60 steps: the autoencoder moves in the first half only, text and U-Net in the second; its codes are measured well."""
    task = make()
    optims = {"autoencoder": build(task.vae, OptimKnobs(lr=1e-3)), "denoiser": build(task.denoiser, OptimKnobs(lr=1e-3))}
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    for event in fit(task, Same(), optims, Plan(steps=60)):
        step = getattr(event, "step", 0)
        if step == 30:
            middle = {name: p.detach().clone() for name, p in task.named_parameters()}
    after = dict(task.named_parameters())
    first = {n for n in before if not torch.equal(before[n], middle[n])}
    second = {n for n in before if not torch.equal(middle[n], after[n])}
    assert first == {n for n in before if n.startswith("vae.")}
    assert second == {n for n in before if n.startswith("denoiser.")}
    codes = torch.cat([task.codec(batch(seed=n)["x"]) for n in range(30)])
    torch.testing.assert_close(codes.std((0, 2, 3)), torch.ones(2), atol=0.1, rtol=0)
    torch.testing.assert_close(codes.mean((0, 2, 3)), torch.zeros(2), atol=0.1, rtol=0)


def test_evaluation_tells_captions_and_is_a_mean_over_rows() -> None:
    task = make(drop=1.0).eval()
    b = batch()
    parts = [{n: t[:3] for n, t in b.items()}, {n: t[3:] for n, t in b.items()}]
    whole, cut = task.evaluate([b], Ctx()), task.evaluate(parts, Ctx())
    assert whole == pytest.approx(cut, rel=1e-5)
    assert whole["loss"] != pytest.approx(task.denoise(b, Ctx())[0].item(), rel=1e-4)  # there no caption is told
    shown = task.show(Ctx())
    assert shown is not None
    assert shown.shape == (8, 1, 8, 8)
    assert torch.equal(shown, task.show(Ctx()))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no rows"):
        task.evaluate([], Ctx())


def test_untrained_denoiser_costs_about_1_once_codes_are_measured() -> None:
    task = make()
    torch.nn.init.zeros_(task.denoiser["unet"].out.weight)  # type: ignore[arg-type]
    for seed in range(30):
        task.compress(batch(seed=seed), Ctx())
    losses = [task.denoise(batch(seed=100 + n), Ctx())[0].item() for n in range(30)]
    assert sum(losses) / 30 == pytest.approx(1.0, abs=0.1)


def test_works_without_random_numbers_in_the_batch() -> None:
    task = make()
    b = {name: t for name, t in batch().items() if name in ("x", "tokens", "lengths")}
    for phase in task.phases():
        assert torch.equal(phase.loss(b, Ctx())[0], phase.loss(b, Ctx())[0])
