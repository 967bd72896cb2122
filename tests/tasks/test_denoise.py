"""Denoising: the loss is the papers' squared error, its numbers come with the batch, and flow matching learns a known flow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engram.core.errors import DataError
from engram.core.task import Ctx
from engram.nn.schedule import KINDS, PREDICTIONS, Schedule
from engram.tasks.denoise import Denoise, squared_errors

SHAPE = (1, 2, 2)


class Toy(nn.Module):
    """Answers a weight times x, plus a number per class; remembers what it was asked."""

    def __init__(self, weight: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.told: list[Tensor | None] = []

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        self.told.append(condition)
        return self.weight * x


def batch(rows: int = 64, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, rows, *SHAPE, generator=generator)
    t, drop = torch.rand(2, rows, generator=generator)
    return {"x": x, "noise": noise, "t": t, "drop": drop, "y": torch.randint(0, 3, (rows,), generator=generator)}


def test_is_the_simple_loss_of_ddpm() -> None:
    """|noise - network(sqrt(a) x0 + sqrt(1 - a) noise, t)|^2, Ho et al., Eq. 14."""
    rows, schedule = batch(), Schedule("linear", "noise")
    task = Denoise(Toy(0.5), schedule, SHAPE)
    a = schedule.alpha_sigma(1 - rows["t"])[0].square().view(-1, 1, 1, 1)
    noisy = a.sqrt() * rows["x"] + (1 - a).sqrt() * rows["noise"]
    loss, _ = task.loss(rows, Ctx())
    torch.testing.assert_close(loss, (rows["noise"] - 0.5 * noisy).square().mean())


def test_is_flow_matching() -> None:
    """|network((1 - t) x0 + t noise, t) - (noise - x0)|^2, Lipman et al., Eq. 23, in the direction of the noise."""
    rows, schedule = batch(), Schedule("flow", "flow")
    t = (1 - rows["t"]).view(-1, 1, 1, 1)
    loss, _ = Denoise(Toy(0.5), schedule, SHAPE).loss(rows, Ctx())
    straight = (1 - t) * rows["x"] + t * rows["noise"]
    torch.testing.assert_close(loss, (0.5 * straight - (rows["noise"] - rows["x"])).square().mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_chance_is_the_loss_of_zero(kind: str, prediction: str) -> None:
    task = Denoise(Toy(), Schedule(kind, prediction, spread=1.0), SHAPE)
    chance = task.chance_loss()
    assert chance is not None
    assert abs(task.loss(batch(4000), Ctx())[0].item() / chance - 1) < 0.05


def test_classes_are_left_out_in_training_only() -> None:
    """Rows whose number is below `drop` are told the class that stands for none; an evaluation tells every class."""
    rows, toy = batch(), Toy()
    task = Denoise(toy, Schedule(), SHAPE, classes=3, drop=0.25)
    task.loss(rows, Ctx())
    (told,) = toy.told
    assert told is not None
    left_out = rows["drop"] < 0.25
    assert (told[left_out] == 3).all()
    assert torch.equal(told[~left_out], rows["y"][~left_out])
    toy.told.clear()
    task.eval()
    with torch.no_grad():
        task.evaluate([rows], Ctx())
    assert all(t is not None and torch.equal(t, rows["y"]) for t in toy.told)
    toy.told.clear()
    Denoise(toy, Schedule(), SHAPE).loss(rows, Ctx())
    assert toy.told == [None]


def test_parts_of_a_batch_are_the_batch() -> None:
    rows, task = batch(), Denoise(Toy(0.3), Schedule("cosine"), SHAPE, classes=3)
    whole = task.loss(rows, Ctx())[0]
    parts = [task.loss({n: v[i : i + 16] for n, v in rows.items()}, Ctx())[0] for i in range(0, 64, 16)]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_without_its_numbers_they_are_fixed() -> None:
    rows = {name: v for name, v in batch().items() if name in ("x", "y")}
    task = Denoise(Toy(0.3), Schedule(), SHAPE, classes=3)
    assert torch.equal(task.loss(rows, Ctx())[0], task.loss(rows, Ctx())[0])


def test_min_snr_weighs_rows() -> None:
    rows, schedule = batch(), Schedule("cosine", "noise")
    t = schedule.training_time(rows["t"])
    plain = squared_errors(Toy(0.5), schedule, rows["x"], rows["noise"], t)
    weighed = squared_errors(Toy(0.5), schedule, rows["x"], rows["noise"], t, min_snr=5.0)
    snr = schedule.log_snr(t).exp()
    torch.testing.assert_close(weighed, plain * snr.clamp(max=5) / snr, rtol=1e-3, atol=1e-6)


def test_evaluate_and_film() -> None:
    task = Denoise(Toy(0.1), Schedule("cosine"), SHAPE).eval()
    with torch.no_grad():
        metrics = task.evaluate([batch(), batch(seed=1)], Ctx())
        film = task.show(Ctx())
    assert metrics.keys() == {"loss", "bits"}
    assert film is not None
    assert film.shape == (16, *SHAPE)
    with pytest.raises(DataError, match="no rows"):
        task.evaluate([], Ctx())


def test_film_of_the_exact_network_is_the_data() -> None:
    """All pictures are one picture, and the network knows it: a dozen steps end there."""
    picture = torch.tensor([[[1.0, -1.0], [0.5, 0.0]]])

    class Exact(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
            return picture.expand_as(x)

    film = Denoise(Exact(), Schedule("linear", "x0"), SHAPE).show(Ctx())
    assert film is not None
    torch.testing.assert_close(film, picture.expand_as(film), atol=1e-4, rtol=0)
