"""Phases that have their turn in a part of the run only, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from toys import Fn, mlp, seeded

from engram.core.batch import Batch
from engram.core.optim import Optim
from engram.core.plan import Evaluated, Plan, Stepped, Stopped
from engram.core.snapshot import Snapshot
from engram.core.task import Ctx, Phase, Task
from engram.training.fit import fit

STEPS = 12


class Staged(Task):
    """An autoencoder in the first half; then a network on its codes."""

    def __init__(self) -> None:
        super().__init__()
        self.coder, self.reader = seeded(lambda: mlp(2, 4, 2)), seeded(lambda: mlp(2, 4, 1))

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("coder", self.code, self.coder, until=0.5), Phase("reader", self.read, self.reader, since=0.5))

    def code(self, batch: Batch, ctx: Ctx) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return (self.coder(batch["x"]) - batch["x"]).square().mean(), {}

    def read(self, batch: Batch, ctx: Ctx) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        with torch.no_grad():
            codes = self.coder(batch["x"])
        return (self.reader(codes) - batch["x"][:, :1]).square().mean(), {}

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        return {"loss": float(torch.stack([self.read(b, ctx)[0] for b in batches]).mean())}


def made(cls: type[Staged] = Staged) -> tuple[Staged, Fn, dict[str, Optim]]:
    task = cls()

    def falling(step: int, steps: int) -> float:
        return 1 - step / steps

    optims = {
        name: Optim(torch.optim.Adam(net.parameters(), 0.01), falling)
        for name, net in (("coder", task.coder), ("reader", task.reader))
    }
    return task, Fn(lambda split, g: {"x": torch.randn(8, 2, generator=g)}, 8), optims


def test_evaluations_before_the_last_stage_are_not_ranked() -> None:
    """What is watched is measured on a network that does not train yet: it can neither be the best nor use up patience."""

    class Rising(Staged):
        calls = 0

        def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
            self.calls += 1
            return {"loss": float(self.calls)}

    task, data, optims = made(Rising)
    plan = Plan(steps=STEPS, eval_every=2, patience=3)
    kinds = [e for e in fit(task, data, optims, plan) if isinstance(e, Evaluated | Stopped)]
    found = [(e.step, e.best) for e in kinds if isinstance(e, Evaluated)]
    assert found == [(2, False), (4, False), (6, False), (8, True), (10, False), (12, False)]
    assert kinds[-1] == Stopped(STEPS, "done", 8)


def states(plan: Plan, state: Snapshot | None = None) -> Iterator[tuple[int, dict[str, torch.Tensor], dict[str, float]]]:
    task, data, optims = made()
    for event in fit(task, data, optims, plan, state=state):
        if isinstance(event, Stepped):
            yield event.step, {n: t.clone() for n, t in task.state_dict().items()}, {n: float(v) for n, v in event.logs.items()}


def test_each_stage_moves_its_network_and_has_a_schedule_of_its_own() -> None:
    seen = list(states(Plan(steps=STEPS)))
    before = {n: t.clone() for n, t in Staged().state_dict().items()}
    for step, weights, logs in seen:
        stage = "coder" if step <= STEPS // 2 else "reader"
        moved = {n.split(".")[0] for n, t in weights.items() if not torch.equal(t, before[n])}
        assert moved == {stage}, (step, moved)
        assert {n.split("/")[0] for n in logs} == {stage}
        assert abs(logs[f"{stage}/lr"] - 0.01 * (1 - (step - 1) % 6 / 6)) < 1e-7
        before = weights


def test_resume_in_either_stage_is_bitwise() -> None:
    *_, (_, whole, _) = states(Plan(steps=STEPS))
    for stop in (3, 6, 9):
        kept: list[Snapshot] = []

        def keep(snapshot: Snapshot, best: bool, kept: list[Snapshot] = kept) -> None:
            if not best:
                kept.append(Snapshot({n: t.clone() for n, t in snapshot.tensors.items()}, snapshot.facts))

        task, data, optims = made()
        for event in fit(task, data, optims, Plan(steps=STEPS, save_every=stop), save=keep):
            assert not isinstance(event, Stopped) or event.step == STEPS
        *_, (_, resumed, _) = states(Plan(steps=STEPS), kept[0])
        assert all(torch.equal(resumed[n], whole[n]) for n in whole)
