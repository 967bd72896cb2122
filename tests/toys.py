"""Small tasks and data that the tests of the loop share: one of each family, all of which train in a second or less."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engram.checkpoint.files import read_tensors
from engram.checkpoint.writer import StateWriter
from engram.core.batch import Batch, fold, rows
from engram.core.data import Data
from engram.core.optim import Optim, flatten
from engram.core.plan import Evaluated, Event, Plan, Stepped
from engram.core.snapshot import Snapshot
from engram.core.task import Ctx, Phase, Task
from engram.training.fit import fit

IGNORE = -100


class Fn(Data):
    """Batch k of a split is `make(split, generator)` with a generator that depends on (split, k) alone."""

    def __init__(self, make: Callable[[str, torch.Generator], Batch], batch: int, val: int = 1):
        self.make, self.batch, self.val = make, batch, val

    def size(self, split: str) -> int:
        return 4 * self.batch if split == "train" else self.val * self.batch

    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        for k in itertools.count(start) if split == "train" else range(start, self.val):
            whole = self.make(split, torch.Generator().manual_seed(fold(split, k)))
            yield {name: t.tensor_split(part[1])[part[0]] for name, t in whole.items()}


class Regress(Task):
    """Squared error of (B, in) -> (B, out), as a mean over the entries that `mask` keeps when the batch has one."""

    def __init__(self, net: nn.Module, splits: bool = True):
        super().__init__()
        self.net, self.splits = net, splits

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("model", self.loss, self.net, weight=self.weight, splits=self.splits),)

    def weight(self, batch: Batch) -> int | Tensor:
        return batch["mask"].sum() if "mask" in batch else rows(batch)

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, dict[str, Tensor]]:
        wrong = self.net(batch["x"]) - batch["y"]
        if "mask" not in batch:
            return wrong.square().mean(), {"error": wrong.abs().mean()}
        kept, count = wrong * batch["mask"], batch["mask"].sum()  # without any item 0 / 0, with a gradient of NaN
        return kept.square().sum() / count, {"error": kept.abs().sum() / count}

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        losses = [self.loss(b, ctx)[0] for b in batches]
        return {"loss": float(torch.stack(losses).mean())}


class NextToken(Task):
    """Cross entropy per token; the weight is the number of targets that are not IGNORE."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("model", self.loss, self.model, weight=lambda b: (b["targets"] != IGNORE).sum()),)

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.model(batch["tokens"])
        return F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), ignore_index=IGNORE), {}

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        return {"loss": float(torch.stack([self.loss(b, ctx)[0] for b in batches]).mean())}


class Gan(Task):
    """Non-saturating loss with R1 (Mescheder et al. 2018, Eq. 9) every fourth step; the critic is updated twice a step."""

    def __init__(self, generator: nn.Module, critic: nn.Module, latent: int):
        super().__init__()
        self.generator, self.critic, self.latent = generator, critic, latent

    def phases(self) -> tuple[Phase, ...]:
        return (
            Phase("critic", self.judge, self.critic, repeat=2),
            Phase("r1", self.r1, self.critic, optim="critic", every=4),
            Phase("generator", self.fool, self.generator),
        )

    def fake(self, like: Tensor) -> Tensor:
        # noise is a function of the row, so that ranks and micro-batches draw what one batch draws
        return self.generator(torch.sin(1e3 * like[:, :1] * torch.arange(1, self.latent + 1, dtype=like.dtype)))

    def judge(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            fake = self.fake(batch["x"])
        return F.softplus(-self.critic(batch["x"])).mean() + F.softplus(self.critic(fake)).mean(), {}

    def r1(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, dict[str, Tensor]]:
        x = batch["x"].detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(x).sum(), x, create_graph=True)
        return 0.4 * slope.square().sum(1).mean(), {}

    def fool(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, dict[str, Tensor]]:
        return F.softplus(-self.critic(self.fake(batch["x"]))).mean(), {}

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        real = torch.cat([b["x"] for b in batches])
        return {"loss": float((real.mean(0) - self.fake(real).mean(0)).norm())}


class Pairs(Task):
    """Symmetric InfoNCE (Radford et al. 2021, Fig. 3) over the rows of all ranks, encoded in checkpointed chunks."""

    def __init__(self, left: nn.Module, right: nn.Module, chunk: int = 10**9):
        super().__init__()
        self.left, self.right, self.chunk = left, right, chunk
        self.scale = nn.Parameter(torch.tensor(1.0))

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("model", self.loss, self, splits=False),)

    def encode(self, net: nn.Module, x: Tensor) -> Tensor:
        parts = [checkpoint(net, piece, use_reentrant=False) for piece in x.split(self.chunk)]
        return F.normalize(torch.cat(parts), dim=-1)  # type: ignore[arg-type]

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, dict[str, Tensor]]:
        a, b = self.encode(self.left, batch["left"]), self.encode(self.right, batch["right"])
        owner = ctx.mesh.gather(torch.full((len(a),), ctx.mesh.rank))
        want = (owner == ctx.mesh.rank).nonzero()[:, 0]
        one = F.cross_entropy(self.scale.exp() * a @ ctx.mesh.gather(b).T, want)
        two = F.cross_entropy(self.scale.exp() * b @ ctx.mesh.gather(a).T, want)
        return (one + two) / 2, {}

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        held = list(batches)
        a = self.encode(self.left, torch.cat([b["left"] for b in held]))
        b = self.encode(self.right, torch.cat([b["right"] for b in held]))
        recall = ((a @ b.T).argmax(1) == torch.arange(len(a))).float().mean()
        return {"recall": float(recall), "loss": float(self.loss(held[0], ctx)[0])}


def mlp(*widths: int, act: type[nn.Module] = nn.Tanh, drop: float = 0.0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Linear layers with an activation and dropout between them; the middle widths are hidden layers."""
    layers: list[nn.Module] = []
    for number, (a, b) in enumerate(itertools.pairwise(widths)):
        if number:
            layers += [act(), nn.Dropout(drop)] if drop else [act()]
        layers.append(nn.Linear(a, b))
    return nn.Sequential(*layers).to(dtype)


def waves(batch: int = 16, dtype: torch.dtype = torch.float32, ragged: bool = False, val: int = 2) -> Fn:
    """y = (sin, cos) of a linear form of x; with `ragged` a mask keeps some of the outputs, none of rows 4 to 10."""

    def make(split: str, g: torch.Generator) -> Batch:
        x = torch.randn(batch, 3, generator=g, dtype=dtype)
        z = x @ torch.tensor([1.0, -0.5, 0.3], dtype=dtype)
        made = {"x": x, "y": torch.stack([z.sin(), z.cos()], 1)}
        if ragged:
            made["mask"] = torch.rand(batch, 2, generator=g) < 0.6
            made["mask"][4:11] = False
            made["mask"][0] = True
        return made

    return Fn(make, batch, val)


def points(batch: int = 64, dtype: torch.dtype = torch.float32, spread: float = 0.2) -> Fn:
    """A Gaussian cloud around (1, 0.5)."""

    def make(split: str, g: torch.Generator) -> Batch:
        return {"x": torch.randn(batch, 2, generator=g, dtype=dtype) * spread + torch.tensor([1.0, 0.5], dtype=dtype)}

    return Fn(make, batch, 2)


def matching(batch: int = 32, dtype: torch.dtype = torch.float32) -> Fn:
    """Two noisy views of one vector."""

    def make(split: str, g: torch.Generator) -> Batch:
        z = torch.randn(batch, 8, generator=g, dtype=dtype)
        return {"left": z, "right": z.flip(1) * 2 + 0.05 * torch.randn(batch, 8, generator=g, dtype=dtype)}

    return Fn(make, batch, 1)


def cosine(step: int, steps: int) -> float:
    """Three steps of warm-up, then half a cosine."""
    return (step + 1) / 4 if step < 3 else (1 + math.cos(math.pi * (step - 3) / max(steps - 3, 1))) / 2


def optim(kind: str, module: nn.Module, lr: float, schedule: Any = cosine, flat: bool = False, **more: Any) -> Optim:
    """An Optim by hand: `kind` is a class of torch.optim; flat ones lay weights and biases in two groups end to end."""
    groups = [[p for p in module.parameters() if p.dim() > 1], [p for p in module.parameters() if p.dim() <= 1]]
    made = flatten(groups) if flat else ()
    params = [{"params": [f.buffer]} for f in made] if flat else list(module.parameters())
    return Optim(getattr(torch.optim, kind)(params, lr=lr, **more), schedule, made)


def seeded(build: Callable[[], Any], seed: int = 0) -> Any:
    """What `build` makes, with weights drawn from `seed`."""
    torch.manual_seed(seed)
    return build()


def losses(events: list[Event], name: str = "model/loss") -> list[float]:
    """One logged value per step."""
    return [float(e.logs[name]) for e in events if isinstance(e, Stepped)]


def metrics(events: list[Event]) -> dict[str, float]:
    """The last evaluation."""
    return [e for e in events if isinstance(e, Evaluated)][-1].metrics


def plainly(events: list[Event]) -> list[Any]:
    """What steps and evaluations say, as values that compare with ==."""
    told: list[Any] = []
    for e in events:
        if isinstance(e, Stepped):
            layers = {n: v.item() for n, v in e.layers.items()} if e.layers else None
            told.append(("step", e.step, {n: v.item() for n, v in e.logs.items()}, layers))
        elif isinstance(e, Evaluated):
            told.append(("eval", e.step, e.metrics, e.best))
    return told


def run(
    made: tuple[Task, Data, dict[str, Optim]],
    plan: Plan,
    folder: Path | None = None,
    *,
    until: int | None = None,
    resume: bool = False,
) -> tuple[list[Event], Snapshot | None]:
    """Train and, with a folder, save through files; `until` asks for a stop after that step; returns events and last state."""
    task, data, optims = made
    writer = StateWriter()
    seen = [0]
    state = read_tensors(folder / "state.safetensors") if resume and folder else None

    def save(snapshot: Snapshot, best: bool) -> None:
        if folder:
            writer.save(folder / ("weights.safetensors" if best else "state.safetensors"), snapshot)

    events: list[Event] = []
    try:
        for event in fit(task, data, optims, plan, state=state, save=save, stop=lambda: seen[0] + 1 == until):
            events.append(event)
            seen[0] = event.step
    finally:
        writer.close()
    return events, read_tensors(folder / "state.safetensors") if folder else None
