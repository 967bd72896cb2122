"""Every family trains through the one loop, and learns."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import Fn, Gan, NextToken, Pairs, Regress, losses, matching, metrics, mlp, optim, points, run, seeded, waves

from engram.core.batch import Batch
from engram.core.errors import ConfigError
from engram.core.optim import Optim, constant, flatten
from engram.core.plan import Plan, Stepped
from engram.core.task import Ctx, Phase, Task
from engram.training.fit import fit
from engram.training.update import update

VOCAB, CONTEXT = 7, 12


def gan() -> tuple[Gan, dict[str, Optim]]:
    task = seeded(lambda: Gan(mlp(4, 32, 2, act=nn.LeakyReLU), mlp(2, 32, 1, act=nn.LeakyReLU), 4))
    more = {"betas": (0.5, 0.99), "schedule": constant}
    critic, generator = optim("Adam", task.critic, 4e-3, **more), optim("Adam", task.generator, 3e-3, **more)
    return task, {"critic": critic, "generator": generator}


def test_gan_learns():
    """The generated cloud moves to the real one; R1 runs at every fourth step, the critic twice a step."""
    task, optims = gan()
    with torch.no_grad():
        assert task.evaluate(points().batches("val"), Ctx())["loss"] > 0.9
    events, _ = run((task, points(), optims), Plan(steps=120, accumulate=2, clip=10.0, ema=0.95))
    assert metrics(events)["loss"] < 0.2
    steps = [e for e in events if isinstance(e, Stepped)]
    assert [e.step for e in steps[:9] if "r1/loss" in e.logs] == [1, 5, 9]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_phase_moves_its_own_networks_only(number: int):
    task, optims = gan()
    phase = task.phases()[number]
    other = "generator" if phase.key == "critic" else "critic"
    before = copy.deepcopy(task.state_dict())
    update(task, phase, optims[phase.key], next(points().batches("train")), Ctx(0, 1), Plan(steps=1))
    moved = {name.partition(".")[0] for name, value in task.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {phase.key}
    assert all(p.grad is None for p in getattr(task, other).parameters())
    assert all(p.requires_grad for p in task.parameters())


def test_a_phase_repeats():
    """`repeat=2` is two updates with two batches."""
    task, optims = gan()
    phase, data = task.phases()[0], points()
    twin = copy.deepcopy(task.critic.state_dict())
    list(fit(task, data, optims, Plan(steps=1, clip=0.0)))
    once, other = gan()
    once.critic.load_state_dict(twin)
    batches = data.batches("train")
    for step, phase in enumerate([once.phases()[0], once.phases()[0], once.phases()[1]]):
        update(once, phase, other["critic"], next(batches), Ctx(0, 1), Plan(steps=1, clip=0.0))
        same = all(torch.equal(a, b) for a, b in zip(task.critic.parameters(), once.critic.parameters(), strict=True))
        assert same == (step == 2)


class Nodes(Task):
    """Full-batch node classification (Kipf & Welling 2017, Eq. 9): A relu(A X W) W."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.first, self.second = nn.Linear(width, 16), nn.Linear(16, classes)

    def forward(self, batch: Batch) -> Tensor:
        return (batch["adjacency"] @ self.second(F.relu(batch["adjacency"] @ self.first(batch["x"]))))[batch["mask"]]

    def phases(self) -> tuple[Phase, ...]:
        why = "every node's loss reads its neighbours"
        return (Phase("model", self.loss, self, weight=lambda b: b["mask"].sum(), splits=False, why_whole=why),)

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, dict[str, Tensor]]:
        return F.cross_entropy(self(batch), batch["y"][batch["mask"]]), {}

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        (batch,) = batches
        right = self(batch).argmax(1) == batch["y"][batch["mask"]]
        return {"loss": float(self.loss(batch, ctx)[0]), "accuracy": float(right.float().mean())}


def graph() -> Fn:
    """Three communities of 40 nodes, of which 4 each are labelled; the split picks the mask."""

    def make(split: str, g: torch.Generator) -> Batch:
        g = torch.Generator().manual_seed(0)
        y = torch.arange(120) % 3
        links = torch.rand(120, 120, generator=g) < torch.where(y[:, None] == y, 0.2, 0.01)
        adjacency = (links | links.T).float().fill_diagonal_(1.0)
        scale = adjacency.sum(1).rsqrt()
        train = torch.arange(120) < 12
        x = F.one_hot(y, 3) + 1.2 * torch.randn(120, 3, generator=g)
        mask = train if split == "train" else ~train
        return {"x": x, "y": y, "mask": mask, "adjacency": scale[:, None] * adjacency * scale}

    return Fn(make, 120)


def test_graph_learns_from_few_labels():
    task = seeded(lambda: Nodes(3, 3))
    events, _ = run((task, graph(), {"model": optim("Adam", task, 0.03, constant)}), Plan(steps=60))
    assert metrics(events)["accuracy"] > 0.9
    with pytest.raises(ConfigError, match="reads its neighbours"):
        next(fit(task, graph(), {"model": optim("Adam", task, 0.03)}, Plan(steps=1, accumulate=2)))


def towers(chunk: int = 10**9, drop: float = 0.0) -> Pairs:
    return seeded(lambda: Pairs(mlp(8, 32, 8, drop=drop), mlp(8, 32, 8, drop=drop), chunk))


def test_contrast_learns():
    task = towers(chunk=12)
    events, _ = run((task, matching(), {"model": optim("Adam", task, 5e-3, constant)}), Plan(steps=80))
    assert metrics(events)["recall"] > 0.9


@pytest.mark.parametrize("drop", [0.0, 0.4])
def test_contrast_in_chunks_has_the_same_gradient(drop: float):
    """Encoding in checkpointed chunks, and encoding again for the backward pass, change nothing; dropout repeats."""
    grads = []
    for chunk in (32, 7) if not drop else (7, 7):
        task = towers(chunk, drop).double()
        batch = next(matching(dtype=torch.float64).batches("train"))
        update(task, task.phases()[0], optim("SGD", task, 0.1), batch, Ctx(0, 1), Plan(steps=1, clip=0.0))
        grads.append([p.grad for p in task.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_contrast_refuses_micro_batches_with_the_reason():
    task = towers()
    with pytest.raises(ConfigError, match=r"compares rows across the batch; set accumulate=1") as caught:
        next(fit(task, matching(), {"model": optim("Adam", task, 1e-3)}, Plan(steps=1, accumulate=2)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("flat", [False, True])
def test_lbfgs_learns(flat: bool):
    """Under 20 steps of a line search reach what first-order steps would need thousands for; the clip knob leaves it alone."""
    task = seeded(lambda: Regress(mlp(3, 16, 2, dtype=torch.float64)))
    data = waves(64, torch.float64, val=1)
    fixed = next(data.batches("train"))
    data.make = lambda split, g: fixed
    more = {"max_iter": 20, "line_search_fn": "strong_wolfe", "schedule": constant}
    made = optim("LBFGS", task, 1.0, **more) if not flat else flat_lbfgs(task, **more)
    with torch.no_grad():
        start = float(task.loss(fixed, Ctx())[0])
    events, _ = run((task, data, {"model": made}), Plan(steps=15, clip=1e-3))
    assert losses(events)[-1] < 1e-4
    assert losses(events)[0] == start  # of a step's many evaluations the one before it
    assert losses(events) == sorted(losses(events), reverse=True)


def flat_lbfgs(task: Task, **more: Any) -> Optim:
    (group,) = flatten([list(task.parameters())])
    schedule = more.pop("schedule")
    return Optim(torch.optim.LBFGS([group.buffer], lr=1.0, **more), schedule, (group,))


class Follow(Task):
    """The student learns the data, the teacher is a moving average of the student (Tarvainen & Valpola 2017, Eq. 2)."""

    def __init__(self, student: nn.Module, teacher: nn.Module):
        super().__init__()
        self.student, self.teacher = student, teacher.requires_grad_(False)

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("student", self.loss, self.student),)

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            taught = self.teacher(batch["x"])
        seen = self.student(batch["x"])
        return F.mse_loss(seen, batch["y"]) + 0.1 * F.mse_loss(seen, taught), {}

    def after_step(self, ctx: Ctx) -> None:
        for mean, p in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            mean.lerp_(p, 0.1)

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        return {"loss": float(torch.stack([F.mse_loss(self.teacher(b["x"]), b["y"]) for b in batches]).mean())}


def test_a_teacher_moves_after_each_step():
    task = seeded(lambda: Follow(mlp(3, 16, 2), mlp(3, 16, 2)))
    start = copy.deepcopy(task.teacher.state_dict())
    made = optim("Adam", task.student, 1e-2, constant)
    task_once = copy.deepcopy(task)
    run((task_once, waves(), {"student": optim("Adam", task_once.student, 1e-2, constant)}), Plan(steps=1))
    for name, value in task_once.teacher.state_dict().items():
        expected = start[name].lerp(task_once.student.state_dict()[name], 0.1)
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
    events, _ = run((task, waves(), {"student": made}), Plan(steps=150, eval_every=50))
    seen = [e.metrics["loss"] for e in events if hasattr(e, "metrics")]
    assert seen[-1] < 0.1 < seen[0]


class TinyGPT(nn.Module):
    """One pre-norm block with causal attention over (B, T) tokens."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.token, self.place = nn.Embedding(VOCAB, width), nn.Embedding(CONTEXT, width)
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.head = nn.Linear(width, VOCAB)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.place.weight[: tokens.shape[1]]
        q, k, v = self.qkv(self.norm(x)).unsqueeze(1).chunk(3, -1)
        return self.head(x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).squeeze(1)))


class TinyLSTM(nn.Module):
    """(B, T) tokens to (B, T, VOCAB) logits."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.token, self.head = nn.Embedding(VOCAB, width), nn.Linear(width, VOCAB)
        self.lstm = nn.LSTM(width, width, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.token(tokens))[0])


def counting(batch: int = 16) -> Fn:
    """Sequences that step by 1 or 3 modulo VOCAB, with targets of random length."""

    def make(split: str, g: torch.Generator) -> Batch:
        start = torch.randint(VOCAB, (batch, 1), generator=g)
        by = torch.randint(2, (batch, 1), generator=g) * 2 + 1
        rows = (start + by * torch.arange(CONTEXT + 1)) % VOCAB
        lengths = torch.randint(1, CONTEXT, (batch, 1), generator=g)
        targets = torch.where(torch.arange(CONTEXT) < lengths, rows[:, 1:], -100)
        targets[:, 0] = -100  # the first step cannot be known
        return {"tokens": rows[:, :-1], "targets": targets}

    return Fn(make, batch)


@pytest.mark.parametrize("model", [TinyGPT, TinyLSTM])
def test_language_models_share_one_task(model: type[nn.Module]):
    task = NextToken(seeded(model))
    plan = Plan(steps=150, accumulate=2, eval_every=150)
    events, _ = run((task, counting(), {"model": optim("Adam", task, 1e-2, constant)}), plan)
    assert losses(events)[0] > 1.7
    assert metrics(events)["loss"] < 0.15


class Denoise(Task):
    """Noise prediction (Ho et al. 2020, Eq. 14) on points; the schedule is a buffer."""

    def __init__(self, net: nn.Module, steps: int = 30):
        super().__init__()
        self.net = net
        self.register_buffer("keep", torch.cumprod(1 - torch.linspace(1e-3, 0.3, steps), 0))

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("model", self.loss, self.net),)

    def predict(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(torch.cat([x, t[:, None] / len(self.keep)], 1))

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, dict[str, Tensor]]:
        x = batch["x"]
        t = torch.randint(len(self.keep), (len(x),))
        noise, kept = torch.randn_like(x), self.keep[t][:, None]
        return F.mse_loss(self.predict(kept.sqrt() * x + (1 - kept).sqrt() * noise, t), noise), {}

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        return {"loss": float(torch.stack([self.loss(b, ctx)[0] for b in batches]).mean())}

    def sample(self, count: int) -> Tensor:
        x = torch.randn(count, 2)
        before = torch.cat([torch.ones(1), self.keep[:-1]])
        for t in reversed(range(len(self.keep))):
            step = self.keep[t] / before[t]
            guess = self.predict(x, torch.full((count,), t))
            x = (x - (1 - step) / (1 - self.keep[t]).sqrt() * guess) / step.sqrt()
            x = x + (1 - step).sqrt() * torch.randn_like(x) if t else x
        return x


def test_diffusion_learns_and_samples_with_the_average(tmp_path):
    task = seeded(lambda: Denoise(mlp(3, 48, 48, 2, act=nn.SiLU)))
    _, state = run((task, points(128), {"model": optim("Adam", task, 3e-3, constant)}), Plan(steps=300, ema=0.97), tmp_path)
    assert state is not None
    task.load_state_dict({n.removeprefix("mean/"): t for n, t in state.tensors.items() if n.startswith("mean/")})
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = task.sample(256)
    assert (drawn.mean(0) - torch.tensor([1.0, 0.5])).norm() < 0.2
    assert drawn.std(0).max() < 0.45


def test_a_consumer_may_leave_at_any_event():
    task = seeded(lambda: Regress(mlp(3, 8, 2)))
    for event in fit(task, waves(), {"model": optim("SGD", task, 0.1)}, Plan(steps=1000)):
        if event.step == 3:
            break
    assert event.step == 3
