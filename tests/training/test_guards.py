"""What must not train is refused; what stops being finite ends the run before it does harm, with the step, batch and layer."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toys import Gan, NextToken, Regress, mlp, optim, points, run, seeded, waves

from engram.checkpoint.files import read_tensors
from engram.core.batch import Batch
from engram.core.errors import ConfigError, Diverged
from engram.core.mesh import Mesh
from engram.core.optim import Optim, constant, flatten
from engram.core.plan import Evaluated, Plan, Saved, Stepped
from engram.core.task import Ctx, Phase
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.training import guard, update
from engram.training.fit import fit


class SquareRoots(nn.Module):
    """sqrt(0 x): 0, with a slope of infinity times 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul(0).sqrt()


class Logarithm(nn.Module):
    """log(x), which is NaN below 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x.log()


def spoiled(at: int, name: str, value: float, row: int = 3):
    """Waves whose training batch number `at` holds a bad value."""
    data = waves(8)
    good = data.batches

    def batches(split: str, start: int = 0, part: tuple[int, int] = (0, 1)):
        for number, batch in enumerate(good(split, start, part), start):
            if split == "train" and number == at:
                batch[name][row, 1] = value
            yield batch

    data.batches = batches
    return data


def diverges(task, data, made: Optim, folder: Path, plan: Plan) -> tuple[str, dict[str, Tensor], list[int]]:
    """The message, the weights before the bad step, and the steps that were saved."""
    before: dict[str, Tensor] = {}
    saved: list[int] = []

    def remember() -> None:
        before.update(copy.deepcopy(task.state_dict()))

    def keep(snapshot, best):
        assert all(t.isfinite().all() for t in snapshot.tensors.values() if t.is_floating_point())
        saved.append(snapshot.facts["at"]["step"])

    def through() -> None:
        remember()
        for event in fit(task, data, {"model": made}, plan, save=keep):
            if isinstance(event, Stepped):
                remember()

    with pytest.raises(Diverged) as caught:
        through()
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return str(caught.value), before, saved


PLAN = Plan(steps=12, save_every=2, log_every=5)


def untouched(task: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(t, before[name]) for name, t in task.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["Adam", "SGD", "flat Adam", "LBFGS"])
def test_a_bad_input_is_named(kind: str, value: float, tmp_path: Path):
    task = seeded(lambda: Regress(mlp(3, 8, 2)))
    made = optim(kind.split()[-1], task, 0.01, flat=kind.startswith("flat"))
    message, before, saved = diverges(task, spoiled(4, "x", value), made, tmp_path, PLAN)
    where = "of phase 'model' is not finite at step 5, batch 4: input 'x' of the batch holds NaN or infinity (row 3)"
    assert where in message
    assert untouched(task, before)
    assert saved == [2, 4]


def test_a_bad_value_in_a_vector_is_named(tmp_path: Path):
    task = seeded(lambda: Regress(mlp(3, 8, 2)))
    data = waves(8)
    good = data.make

    def make(split: str, g: torch.Generator) -> Batch:
        weights = torch.ones(8)
        weights[5] = float("nan")
        batch = good(split, g)
        return {"w": weights, "x": batch["x"], "y": batch["y"] * weights[:, None]}

    data.make = make
    message, *_ = diverges(task, data, optim("SGD", task, 0.01), tmp_path, PLAN)
    assert "step 1, batch 0: input 'w'" in message
    assert "(row 5)" in message


def test_a_huge_rate_is_named(tmp_path: Path):
    """The loss overflows: the message says the layer, and the weights stay as they were before that step."""
    task = seeded(lambda: Regress(mlp(3, 8, 8, 2, act=nn.ReLU)))
    made = optim("SGD", task, 1e12, constant)
    message, before, saved = diverges(task, waves(8), made, tmp_path, Plan(steps=50, clip=0.0, save_every=1))
    assert "is not finite at step" in message
    assert "optim.lr" in message
    assert untouched(task, before)
    assert saved
    assert saved[-1] < 50


def test_the_first_bad_layer_is_named(tmp_path: Path):
    task = seeded(lambda: Regress(nn.Sequential(nn.Linear(3, 4), Logarithm(), nn.Linear(4, 2))))
    message, before, saved = diverges(task, waves(8), optim("SGD", task, 0.01), tmp_path, PLAN)
    assert "loss of phase 'model' is not finite at step 1, batch 0: first in the output of layer net.1 (Logarithm)" in message
    assert untouched(task, before)
    assert not saved


def test_a_bad_gradient_is_named(tmp_path: Path):
    """The loss is finite, its slope is not: what is upstream of sqrt at 0 has no gradient, what is downstream has."""
    net = nn.Sequential(nn.Linear(3, 4), SquareRoots(), nn.Linear(4, 2))
    task = seeded(lambda: Regress(net))
    message, before, saved = diverges(task, waves(8), optim("Adam", task, 0.01, flat=True), tmp_path, PLAN)
    assert "gradient of phase 'model' is not finite at step 1, batch 0: gradient of net.0.bias" in message
    assert untouched(task, before)
    assert not saved


def test_a_batch_without_targets_is_named(tmp_path: Path):
    model = seeded(lambda: nn.Sequential(nn.Embedding(5, 6), nn.Linear(6, 5)))
    data = waves(4)
    data.make = lambda split, g: {"tokens": torch.zeros(4, 3, dtype=torch.long), "targets": torch.full((4, 3), -100)}
    message, *_ = diverges(NextToken(model), data, optim("SGD", model, 0.1), tmp_path, PLAN)
    assert "no item of the batch counts" in message
    message, *_ = diverges(NextToken(model), data, optim("SGD", model, 0.1), tmp_path, Plan(steps=3, accumulate=2))
    assert "no item of the batch counts" in message


def test_bad_weights_are_never_saved(tmp_path: Path):
    """A step with a finite loss and gradient may still carry the weights out of range."""
    task = seeded(lambda: Regress(mlp(3, 8, 2)))
    data, saved = waves(8), []
    good = data.make
    data.make = lambda split, g: {name: 100 * t for name, t in good(split, g).items()}
    made = optim("SGD", task, 3e38, constant)
    plan = Plan(steps=5, save_every=1, clip=0.0)
    with pytest.raises(Diverged, match=r"^net.*not finite after step 1"):
        list(fit(task, data, {"model": made}, plan, save=lambda s, b: saved.append(s)))
    assert not saved


def accelerated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat the processor as a device that must not be asked at every step."""
    for module in (guard, update):
        monkeypatch.setattr(module, "at_once", lambda device: False)


def named(task, data, name: str, plan: Plan, good: dict[str, Tensor] | None = None) -> tuple[str, list[int], list[int]]:
    """The message, the steps that went by, and those that were saved; the last of these states goes to `good`."""
    gone: list[int] = []
    saved: list[int] = []

    def keep(snapshot, best: bool) -> None:
        saved.append(snapshot.facts["at"]["step"])
        if good is not None:
            good.update({n: t.clone() for n, t in snapshot.tensors.items()})

    def through() -> None:
        made = build(task, OptimKnobs(name=name, lr=0.01, warmup=0.0, schedule="constant"))
        for event in fit(task, data, {"model": made}, plan, save=keep):
            if isinstance(event, Stepped):
                gone.append(event.step)

    with pytest.raises(Diverged) as caught:
        through()
    return str(caught.value), gone, saved


@pytest.mark.parametrize("fault", ["input", "layer", "gradient"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", ["adamw", "momentum", "rmsprop", "lbfgs"])
def test_an_accelerator_names_the_same(name: str, accumulate: int, fault: str, monkeypatch: pytest.MonkeyPatch):
    """It is not asked at every step, but some steps later; message, weights and saved states are as if it had been."""

    class Sudden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if self.training and fault == "gradient" and float(x.detach().abs().max()) > 50:
                return x.mul(0).sqrt()
            return x.log() if self.training and fault == "layer" and float(x.detach().abs().max()) > 50 else x

    if name == "lbfgs" and accumulate > 1:
        pytest.skip("the same as with one piece")
    ends = []
    for at_once in (True, False):
        if not at_once:
            accelerated(monkeypatch)
        task, good = seeded(lambda: Regress(nn.Sequential(nn.Linear(3, 4), Sudden(), nn.Dropout(0.3), nn.Linear(4, 2)))), {}
        data = spoiled(4, "x", float("nan") if fault == "input" else 1e4)
        plan = Plan(steps=12, save_every=2, log_every=7, accumulate=accumulate, clip=1.0)
        ends.append(named(task, data, name, plan, good))
        for key, tensor in task.state_dict().items():
            assert torch.equal(tensor, good[f"task/{key}"]), key
    (message, gone, saved), (later, went, kept) = ends
    assert later == message
    assert "at step 5, batch 4" in message
    assert {"input": "input 'x'", "layer": "layer net.1 (Sudden)", "gradient": "gradient of net.0"}[fault] in message
    assert gone == [1, 2, 3, 4]
    assert went == ([1, 2, 3, 4] if name == "lbfgs" else [1, 2, 3, 4, 5, 6])  # then a save is due
    assert saved == kept == [2, 4]


@pytest.mark.parametrize("log_every", [1, 4, 100])
def test_an_accelerator_is_asked_when_it_matters(log_every: int, monkeypatch: pytest.MonkeyPatch):
    """At the interval of the log, and before every save: good weights go on being saved, bad ones are not."""
    accelerated(monkeypatch)
    task = seeded(lambda: Regress(mlp(3, 8, 2)))
    before = copy.deepcopy(task.state_dict())
    plan = Plan(steps=30, save_every=10, log_every=log_every)
    message, gone, saved = named(task, spoiled(13, "y", float("inf")), "adamw", plan)
    assert "loss of phase 'model' is not finite at step 14, batch 13: input 'y'" in message
    assert gone[-1] == {1: 13, 4: 15, 100: 20}[log_every]
    assert saved == [10]
    assert not untouched(task, before)
    assert all(p.isfinite().all() for p in task.parameters())


def test_an_accelerator_says_which_phase(monkeypatch: pytest.MonkeyPatch):
    accelerated(monkeypatch)
    task = seeded(lambda: Gan(mlp(3, 8, 2), mlp(2, 8, 1), 3))
    optims = {key: optim("Adam", net, 0.01) for key, net in (("generator", task.generator), ("critic", task.critic))}
    whole = task.phases

    def phases():
        first, *others = whole()
        loss = first.loss

        def bad(batch: Batch, ctx: Ctx):
            value, logs = loss(batch, ctx)
            return value * (float("nan") if ctx.step == 3 else 1.0), logs

        return (dataclasses.replace(first, loss=bad), *others)

    task.phases = phases
    with pytest.raises(Diverged, match="loss of phase 'critic' is not finite at step 4, batch 10: gradient of critic"):
        list(fit(task, points(), optims, Plan(steps=8, log_every=6)))


def test_what_is_finite_when_repeated_is_said(monkeypatch: pytest.MonkeyPatch):
    class Once(Regress):
        calls = 0

        def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, dict[str, Tensor]]:
            value, logs = super().loss(batch, ctx)
            self.calls += 1
            return value + (float("inf") if self.calls == 3 else 0.0), logs

    accelerated(monkeypatch)
    task = seeded(lambda: Once(mlp(3, 8, 2)))
    message, *_ = named(task, waves(8), "adamw", PLAN)
    assert message.startswith("loss of phase 'model' was not finite at step 3, batch 2, and is when repeated; lower optim.lr")


def test_trial_steps_are_taken_back(tmp_path: Path):
    """The line search has moved the weights when its second evaluation is not finite: they return to where they were."""

    class Fragile(Regress):
        evaluations = 0

        def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, dict[str, Tensor]]:
            value, logs = super().loss(batch, ctx)
            self.evaluations += 1
            return value * (float("nan") if self.evaluations == 2 else 1.0), logs

    task = seeded(lambda: Fragile(mlp(3, 8, 2)))
    made = optim("LBFGS", task, 0.5, max_iter=4, line_search_fn="strong_wolfe")
    message, before, saved = diverges(task, waves(8), made, tmp_path, PLAN)
    assert "is not finite at step 1, batch 0" in message
    assert untouched(task, before)
    assert not saved


def test_the_last_good_file_stays(tmp_path: Path):
    task = seeded(lambda: Regress(mlp(3, 8, 2)))
    with pytest.raises(Diverged):
        run((task, spoiled(9, "y", float("nan")), {"model": optim("Adam", task, 0.01)}), PLAN, tmp_path)
    assert read_tensors(tmp_path / "state.safetensors").facts["at"]["step"] == 8


def refused(task, optims: dict[str, Optim], plan: Plan, match: str) -> None:
    before = copy.deepcopy(task.state_dict())
    with pytest.raises(ConfigError, match=match) as caught:
        next(fit(task, waves(8), optims, plan))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert untouched(task, before)


def test_idle_weights_are_refused():
    task = seeded(lambda: Regress(mlp(3, 8, 2)))
    task.extra = nn.Linear(2, 2)
    refused(task, {"model": optim("SGD", task.net, 0.1)}, PLAN, r"no phase trains extra\.weight, extra\.bias")
    task.extra.requires_grad_(False)
    run((task, waves(8), {"model": optim("SGD", task.net, 0.1)}), PLAN)


def test_a_missing_optimizer_is_refused():
    task = seeded(lambda: Gan(mlp(4, 8, 2), mlp(2, 8, 1), 4))
    refused(
        task,
        {"critic": optim("SGD", task.critic, 0.1)},
        PLAN,
        r"phase 'generator' wants optimizer 'generator'; there are \['critic'\]",
    )


def test_an_optimizer_that_lacks_weights_is_refused():
    task = seeded(lambda: Regress(mlp(3, 8, 2)))
    refused(task, {"model": optim("SGD", task.net[0], 0.1)}, PLAN, "trains 2 tensors that optimizer 'model' does not hold")


def test_a_phase_with_nothing_to_train_is_refused():
    task = seeded(lambda: Regress(mlp(3, 8, 2)))
    made = optim("SGD", task.net, 0.1)
    task.net.requires_grad_(False)
    refused(task, {"model": made}, PLAN, "nothing to train")


def test_a_flat_group_with_more_than_the_phase_is_refused():
    """Its step would move the other weights too: momentum and weight decay act on a gradient of zero."""
    task = seeded(lambda: Gan(mlp(4, 8, 2), mlp(2, 8, 1), 4))
    flat = flatten([list(task.parameters())])
    both = Optim(torch.optim.Adam([f.buffer for f in flat], lr=0.1), constant, flat)
    refused(task, {"critic": both, "generator": both}, PLAN, r"holds more than phase 'critic' trains; set optim\.flat=false")


def test_one_optimizer_for_both_networks_moves_only_the_phase():
    """Not flat, the same optimizer may hold both: weights of the other phase have no gradient and stay."""
    task = seeded(lambda: Gan(mlp(4, 8, 2), mlp(2, 8, 1), 4))

    class CriticOnly(Gan):
        def phases(self) -> tuple[Phase, ...]:
            return super().phases()[:1]

    task.__class__ = CriticOnly
    both = optim("Adam", task, 0.1, weight_decay=0.5)
    task.generator.requires_grad_(False)
    before = copy.deepcopy(task.generator.state_dict())
    run((task, points(16), {"critic": both}), Plan(steps=3))
    assert untouched(task.generator, before)


def test_an_unknown_metric_to_watch_is_refused():
    task = seeded(lambda: Regress(mlp(3, 8, 2)))
    with pytest.raises(ConfigError, match="no metric 'accuracy' to watch; the task gives loss"):
        run((task, waves(8), {"model": optim("SGD", task, 0.1)}), Plan(steps=1, watch="accuracy"))


def test_a_batch_without_rows_is_refused():
    task = seeded(lambda: Regress(mlp(3, 8, 2)))
    data = waves(8)
    data.make = lambda split, g: {"x": torch.zeros(0, 3), "y": torch.zeros(0, 2)}
    with pytest.raises(ConfigError, match="has no rows for rank 0 of 1"):
        run((task, data, {"model": optim("SGD", task, 0.1)}), Plan(steps=1))


@pytest.mark.parametrize(("mode", "best"), [("min", [True, False, True]), ("max", [True, True, False])])
def test_a_metric_that_is_nan_is_never_the_best(mode: str, best: list[bool]):
    class Told(Regress):
        values = iter([float("nan"), 0.5, 0.7, 0.3])

        def evaluate(self, batches, ctx):
            return {"loss": next(self.values)}

    task = seeded(lambda: Told(mlp(3, 8, 2)))
    Told.values = iter([float("nan"), 0.5, 0.7, 0.3])
    plan = Plan(steps=4, eval_every=1, mode=mode)  # type: ignore[arg-type]
    events, _ = run((task, waves(8), {"model": optim("SGD", task, 0.1)}), plan)
    assert [e.best for e in events if isinstance(e, Evaluated)] == [False, *best]


def test_without_validation_rows_the_latest_is_the_best(tmp_path: Path):
    task = seeded(lambda: Regress(mlp(3, 8, 2)))
    events, _ = run(
        (task, waves(8, val=0), {"model": optim("SGD", task, 0.1)}), Plan(steps=4, eval_every=2, patience=1), tmp_path
    )
    assert [(e.metrics, e.best) for e in events if isinstance(e, Evaluated)] == [({}, True), ({}, True)]
    assert [e.step for e in events if isinstance(e, Saved)] == [4]
    assert read_tensors(tmp_path / "weights.safetensors").facts["at"]["step"] == 4


def test_evaluation_is_for_one_process():
    """Every rank evaluates all rows, so a loss that gathers must not gather them again."""
    seen: list[Mesh] = []

    class Told(Regress):
        def evaluate(self, batches, ctx: Ctx):
            seen.append(ctx.mesh)
            return super().evaluate(batches, ctx)

    class Two(Mesh):
        world = 2

    task = seeded(lambda: Told(mlp(3, 8, 2)))
    list(fit(task, waves(8), {"model": optim("SGD", task, 0.1)}, Plan(steps=1), mesh=Two()))
    assert [m.world for m in seen] == [1]
