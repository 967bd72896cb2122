"""The losses of a GAN against formulas and gradients by hand, its phases, and eight modes on a ring that it must find."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import Fn, losses, metrics, mlp, optim, run, seeded

from engram.core.batch import Batch
from engram.core.optim import constant
from engram.core.plan import Plan, Stepped
from engram.core.task import Ctx
from engram.models.gan import Discriminator, Generator
from engram.tasks.adversarial import Adversarial
from engram.training.update import update

F64 = torch.float64


class Bend(nn.Module):
    """Points of the plane as pictures of one row: (B, latent) to (B, 1, 1, 2)."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.net = mlp(*widths, act=nn.ReLU)

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)[:, None, None]


class Score(nn.Module):
    """(B, 1, 1, 2) to (B,)."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.net = mlp(*widths, act=nn.LeakyReLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(1))[:, 0]


def small(classes: int = 3, dtype: torch.dtype = F64, **knobs: Any) -> Adversarial:
    """A convolutional GAN on 8 x 8 whose scores are far from 0."""
    torch.manual_seed(0)
    generator, discriminator = Generator(1, (8, 8), 4, 4, classes), Discriminator(1, (8, 8), 4, classes, hidden=6)
    nn.init.normal_(discriminator.score.weight)
    return Adversarial(generator, discriminator, 4, classes=classes, **knobs).to(dtype)


def batch(rows: int = 5, dtype: torch.dtype = F64) -> Batch:
    torch.manual_seed(1)
    y = torch.arange(rows) % 3
    draw = {"x": torch.randn(rows, 1, 8, 8), "z": torch.randn(rows, 4), "u": torch.rand(rows, 1)}
    return {name: t.to(dtype) for name, t in draw.items()} | {"y": y}


def slope(task: Adversarial, x: Tensor, y: Tensor) -> Tensor:
    """|grad D(x)| of each row by central differences of every pixel."""
    step, found = 1e-6, torch.zeros_like(x)
    for row, pixel in ((r, p) for r in range(len(x)) for p in range(x[0].numel())):
        up, down = x.clone(), x.clone()
        up[row].view(-1)[pixel] += step
        down[row].view(-1)[pixel] -= step
        change = task.discriminator(up, y)[row] - task.discriminator(down, y)[row]
        found[row].view(-1)[pixel] = change / (2 * step)
    return found.flatten(1).norm(dim=1)


def test_a_row_without_a_slope_does_not_spoil_the_gradient_penalty() -> None:
    """A discriminator of dead units scores all pictures alike: |grad D| is exactly 0, where a square root has no gradient."""
    task, given = small(0, objective="wgan_gp"), batch()
    nn.init.zeros_(task.discriminator.get_parameter("score.weight"))
    task.judge(given, Ctx())[0].backward()
    gradients = [p.grad for p in task.discriminator.parameters() if p.grad is not None]
    assert gradients
    assert all(g.isfinite().all() for g in gradients)


def test_losses_equal_their_formulas() -> None:
    """The logistic losses of Goodfellow et al., the hinges of Miyato et al., the penalty of Gulrajani et al., to 1e-9."""
    given = batch()
    x, y, u = given["x"], given["y"], given["u"][:, :, None, None]
    for objective in ("ns", "hinge", "wgan_gp"):
        task = small(objective=objective, gp=7.0)
        with torch.no_grad():
            fake = task.generator(given["z"], y)
            r, f = task.discriminator(x, y), task.discriminator(fake, y)
            steep = slope(task, u * x + (1 - u) * fake, y)
        judge = {
            "ns": -(r.sigmoid().log().mean() + (1 - f.sigmoid()).log().mean()),
            "hinge": -(torch.minimum(r - 1, r * 0).mean() + torch.minimum(-f - 1, f * 0).mean()),
            "wgan_gp": f.mean() - r.mean() + 7 * ((steep - 1) ** 2).mean(),
        }[objective]
        fool = -f.sigmoid().log().mean() if objective == "ns" else -f.mean()
        got, logs = task.judge(given, Ctx())
        assert got.item() == pytest.approx(judge.item(), abs=1e-8)
        assert task.fool(given, Ctx())[0].item() == pytest.approx(fool.item(), abs=1e-9)
        assert (logs["real"].item(), logs["fake"].item()) == pytest.approx((r.mean().item(), f.mean().item()))
        assert logs["right"].item() == pytest.approx((r > f).double().mean().item())


def test_penalties_equal_autograd_by_hand() -> None:
    """Values and the gradients of every weight, row by row with a graph of its own each, to 1e-9."""
    given = batch()
    task = small(objective="wgan_gp", r1=3.0, r1_every=4, gp=7.0)
    twin = copy.deepcopy(task)
    x, y, u = given["x"], given["y"], given["u"][:, :, None, None]
    fake = twin.generator(given["z"], y).detach()

    def rows(at: Tensor) -> Tensor:
        out = []
        for row, k in zip(at, y, strict=True):
            one = row[None].clone().requires_grad_()
            (g,) = torch.autograd.grad(twin.discriminator(one, k[None])[0], one, create_graph=True)
            out.append((g * g).sum())
        return torch.stack(out)

    by_hand = 4 * 3.0 / 2 * rows(x).mean()
    penalty = 7 * ((rows(u * x + (1 - u) * fake).sqrt() - 1) ** 2).mean()
    critic = twin.discriminator(fake, y).mean() - twin.discriminator(x, y).mean() + penalty
    for loss, want in ((task.smooth(given, Ctx())[0], by_hand), (task.judge(given, Ctx())[0], critic)):
        torch.testing.assert_close(loss, want, atol=1e-10, rtol=1e-10)
        ours = torch.autograd.grad(loss, list(task.discriminator.parameters()), allow_unused=True)
        theirs = torch.autograd.grad(want, list(twin.discriminator.parameters()), allow_unused=True, retain_graph=True)
        for (name, _), a, b in zip(task.discriminator.named_parameters(), ours, theirs, strict=True):
            a, b = (torch.zeros(()) if g is None else g for g in (a, b))
            assert torch.allclose(a, b, atol=1e-9, rtol=1e-9), name


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("objective", ["ns", "wgan_gp"])
def test_double_backward_in_bfloat16(objective: Any, channels_last: bool) -> None:
    """The gradients of both penalties under autocast point where those in float32 do (cosine above 0.99), in either layout."""
    whole = []
    for low in (False, True):
        task = small(dtype=torch.float32, objective=objective)
        given = batch(16, torch.float32)
        if channels_last and low:
            task = task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss = (task.judge if objective == "wgan_gp" else task.smooth)(given, Ctx())[0]
        assert loss.dtype == torch.float32
        loss.backward()
        whole.append(torch.cat([p.grad.flatten() for p in task.discriminator.parameters() if p.grad is not None]))
    assert torch.cosine_similarity(whole[0], whole[1], dim=0) > 0.99


@pytest.mark.parametrize("objective", ["ns", "hinge", "wgan_gp"])
def test_a_phase_moves_its_own_network_only(objective: Any) -> None:
    for number in range(len(small(objective=objective).phases())):
        task = small(objective=objective)
        phase = task.phases()[number]
        other = task.generator if phase.key == "discriminator" else task.discriminator
        before = copy.deepcopy(task.state_dict())
        step = optim("SGD", task.get_submodule(phase.key), 0.1)
        update(task, phase, step, batch(), Ctx(0, 1), Plan(steps=1))
        moved = {name.partition(".")[0] for name, t in task.state_dict().items() if not torch.equal(t, before[name])}
        assert moved == {phase.key}, phase.name
        assert all(p.grad is None for p in other.parameters())


def test_phases_follow_the_knobs() -> None:
    lazy = small(r1=0.5, r1_every=8, repeat=3).phases()
    assert [(p.name, p.key, p.every, p.repeat) for p in lazy] == [
        ("discriminator", "discriminator", 1, 3), ("r1", "discriminator", 8, 1), ("generator", "generator", 1, 1)
    ]  # fmt: skip
    assert all(p.splits for p in lazy)
    assert [p.name for p in small(r1=0.0).phases()] == ["discriminator", "generator"]
    task = small()
    task.generator = Generator(1, (8, 8), 4, 4, 3, norm="batch")
    assert not any(p.splits for p in task.phases())
    twice = small(r1=1.0, r1_every=16).smooth(batch(), Ctx())[0] / small(r1=1.0, r1_every=1).smooth(batch(), Ctx())[0]
    assert twice.item() == pytest.approx(16)


@pytest.mark.parametrize("objective", ["ns", "hinge", "wgan_gp"])
def test_losses_add_up_over_pieces(objective: Any) -> None:
    """Weighted by their rows, the losses of two pieces are that of the whole batch: all that is random lies in the batch."""
    task, given = small(objective=objective), batch(6)
    pieces = [{name: t[:2] for name, t in given.items()}, {name: t[2:] for name, t in given.items()}]
    for phase in task.phases():
        whole = phase.loss(given, Ctx())[0].item()
        parts = [phase.loss(p, Ctx())[0].item() for p in pieces]
        assert (2 * parts[0] + 4 * parts[1]) / 6 == pytest.approx(whole, rel=1e-9)


def test_evaluate_and_show() -> None:
    """The distance falls to 0 when the made pictures are the real ones; without latents fixed ones are drawn."""
    task, given = small(dtype=torch.float32), batch(30, torch.float32)
    made = {**given, "x": task.generator(given["z"], given["y"])}
    with torch.no_grad():
        far, near = task.evaluate([given], Ctx()), task.evaluate([made], Ctx())
        halves = task.evaluate([{n: t[:10] for n, t in given.items()}, {n: t[10:] for n, t in given.items()}], Ctx())
        assert near["swd"] == pytest.approx(0, abs=1e-6)
        assert far["swd"] > 0.1
        assert halves == pytest.approx(far)
        assert near["real"] == pytest.approx(near["fake"])
        bare = {name: given[name] for name in ("x", "y")}
        assert task.evaluate([bare], Ctx()) == task.evaluate([bare], Ctx())
        shown = task.show(Ctx())
        assert shown.shape == (40, 1, 8, 8)
        assert torch.equal(shown, task.show(Ctx(5, 9)))


@pytest.mark.parametrize("objective", ["ns", "hinge", "wgan_gp"])
def test_an_untrained_one_knows_nothing(objective: Any) -> None:
    torch.manual_seed(0)
    networks = Generator(1, (28, 28), 8, 8, 3), Discriminator(1, (28, 28), 8, 3)
    task = Adversarial(*networks, 8, objective=objective, classes=3)
    given = {"x": torch.randn(64, 1, 28, 28), "z": torch.randn(64, 8), "u": torch.rand(64, 1), "y": torch.arange(64) % 3}
    assert task.judge(given, Ctx())[0].item() == pytest.approx(task.chance_loss(), rel=0.25)


def ring(spread: float = 0.05) -> Fn:
    """Eight narrow Gaussians on a circle of radius 1, the test on which GANs lose modes (Metz et al. 2017, section 3.1)."""

    def make(split: str, g: torch.Generator) -> Batch:
        angle = torch.randint(8, (128,), generator=g) * (math.pi / 4)
        x = torch.stack([angle.cos(), angle.sin()], 1) + spread * torch.randn(128, 2, generator=g)
        draws = {"z": torch.randn(128, 4, generator=g), "u": torch.rand(128, 1, generator=g)}
        return {"x": x[:, None, None], **draws}

    return Fn(make, 128, 4)


def covered(task: Adversarial, rows: int = 2000) -> tuple[int, float]:
    """How many of the eight modes get at least a quarter of their share, and the share of samples near some mode."""
    with torch.no_grad():
        x = task.generator(torch.randn(rows, 4, generator=torch.Generator().manual_seed(9))).flatten(1)
    angle = torch.arange(8) * (math.pi / 4)
    far = torch.cdist(x, torch.stack([angle.cos(), angle.sin()], 1))
    near, mode = far.min(1)
    good = near < 0.2  # four deviations
    return int((mode[good].bincount(minlength=8) > rows / 32).sum()), good.float().mean().item()


@pytest.mark.parametrize(("objective", "r1"), [("ns", 0.1), ("hinge", 0.2), ("wgan_gp", 0.0)])
def test_finds_eight_modes_on_a_ring(objective: Any, r1: float) -> None:
    """All eight modes, and most samples within four deviations of one (spread evenly over the plane it would be a fifth)."""
    knobs: dict[str, Any] = {"objective": objective, "r1": r1, "r1_every": 4, "gp": 0.3, "repeat": 2 if r1 == 0 else 1}
    task = seeded(lambda: Adversarial(Bend(4, 64, 64, 2), Score(2, 64, 64, 1), 4, **knobs))
    more = {"betas": (0.0, 0.99), "schedule": constant, "flat": True}
    optims = {name: optim("Adam", task.get_submodule(name), 2e-3, **more) for name in ("generator", "discriminator")}
    assert covered(task)[0] < 4
    events, _ = run((task, ring(), optims), Plan(steps=600, clip=0.0, ema=0.99, watch="swd"))
    modes, near = covered(task)
    assert modes == 8
    assert near > 0.5
    assert metrics(events)["swd"] < 0.1
    logs = [e.logs for e in events if isinstance(e, Stepped)][-1]
    names = {"real", "fake", "right", "grad_norm"}
    assert {f"discriminator/{name}" for name in names} <= logs.keys()
    assert {"generator/fake", "generator/grad_norm"} <= logs.keys()
    assert all(math.isfinite(v) for v in losses(events, "generator/loss"))


def test_resume_is_bitwise(tmp_path: Any) -> None:
    """Stopped after 5 of 8 steps, R1 on a beat of its own: the weights of the run never stopped."""

    def made() -> Any:
        task = seeded(lambda: Adversarial(Bend(4, 16, 2), Score(2, 16, 1), 4, r1_every=3))
        return task, ring(), {n: optim("Adam", task.get_submodule(n), 1e-3, flat=True) for n in ("generator", "discriminator")}

    plan = Plan(steps=8, clip=0.0, ema=0.9, eval_every=4, watch="swd")
    whole = made()
    run(whole, plan)
    run(made(), plan, tmp_path, until=5)
    again = made()
    run(again, plan, tmp_path, resume=True)
    ends = [m[0].state_dict() for m in (whole, again)]
    assert all(torch.equal(ends[0][name], t) for name, t in ends[1].items())
