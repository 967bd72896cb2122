"""The checks that every recipe must pass. `tests/test_recipes.py` runs each of them on each recipe, found by discovery."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import engram
from engram.app.api import Interrupted
from engram.app.train import Job, make_recipe, prepare
from engram.core.batch import Batch, rows
from engram.core.data import Data
from engram.core.errors import ConfigError, EngramError
from engram.core.knobs import knobs_of
from engram.core.recipe import Recipe
from engram.core.task import Ctx
from engram.inference.generate import Generator
from engram.inference.pictures import Pictures
from engram.recipes import find
from engram.training.fit import evaluate, fit
from engram.training.update import Update

LISTS = ("words", "tags", "entities", "neighbours", "answers", "hits")  # kinds of output that are lists
SEQUENCES = {"tokens", "source"}  # batches with one of these hold text
FIXED: dict[str, Any] = {"threads": 1, "precision": "fp32", "device": "cpu", "seed": 3}


@dataclass
class Case:
    """One recipe at its tiny size, with a run that was trained once for all checks."""

    name: str
    cls: type[Recipe]
    run: engram.Run
    folder: Path

    def job(self, **knobs: Any) -> Job:
        return prepare(*make_recipe(self.name, {**self.cls.tiny, **FIXED, **knobs}))

    @property
    def knobs(self) -> dict[str, Any]:
        return {**self.cls.tiny, **FIXED}


class OneBatch(Data):
    """The same batch again and again."""

    def __init__(self, data: Data, most: int = 32):
        whole = next(data.batches("val"))
        most = 2 if SEQUENCES & whole.keys() else most  # each row has many targets
        self.spec, self.summary, self.batch = data.spec, data.summary, most
        self.only = {name: t[:most] for name, t in whole.items()}

    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        while True:
            yield self.only

    def size(self, split: str) -> int:
        return rows(self.only) if split == "train" else 0


def first_loss(job: Job) -> float:
    batch = next(job.data.batches("train"))
    job.task.train()
    return job.task.phases()[0].loss(batch, Ctx())[0].item()


def weights(run: engram.Run) -> dict[str, Tensor]:
    return run.folder.read_state().tensors


# ------------------------------------------------------------------------------------------------------------ training


def check_first_loss_is_that_of_chance(case: Case) -> None:
    """An untrained network knows nothing: its loss is near that of guessing, averaged over seeds."""
    losses = [first_loss(case.job(seed=seed)) for seed in range(4)]
    chance = case.job().task.chance_loss()
    if chance is None:  # squared errors of pictures, where an untrained network may be better or worse than the mean
        assert isinstance(case.run.predictor, Pictures), "the task must say what guessing costs"
        return
    assert 0.7 * chance < sum(losses) / len(losses) < 1.5 * chance, (losses, chance)


def check_one_batch_overfits(case: Case) -> None:
    """Training on one batch alone drives its loss far below that of chance: gradients reach what they should."""
    plain = {"optim.schedule": "constant", "optim.warmup": 0.0, "label_smoothing": 0.0, "dropout": 0.0}
    job = case.job(**{"steps": 250, "evals": 1}, **{k: v for k, v in plain.items() if k in knobs_of(case.cls)})
    goal, name = job.task.overfits, f"{job.task.phases()[0].name}/loss"
    if goal is None:  # losses that fight each other: see check_each_phase_moves_only_its_own, and the recipe's own tests
        return
    losses = []
    for event in fit(job.task, OneBatch(job.data), job.optims, job.plan):
        if isinstance(event, engram.Stepped) and name in event.logs:
            losses.append(float(event.logs[name]))
            if losses[-1] < goal * losses[0]:
                return
    raise AssertionError(f"the loss of one batch went from {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} steps only")


def check_every_weight_gets_a_gradient(case: Case) -> None:
    """No parameter is idle (a branch that starts at zero may wait one step)."""
    job = case.job()
    alive: set[str] = set()
    for event in fit(job.task, job.data, job.optims, _short(job, 4)):
        if isinstance(event, engram.Stepped) and event.layers:
            alive |= {name for name, norm in event.layers.items() if float(norm) > 0}
    idle = {name for name, p in job.task.named_parameters() if p.requires_grad} - alive
    assert not idle, f"no gradient reached {sorted(idle)}"


def check_rows_do_not_leak_into_each_other(case: Case) -> None:
    """What a row gives does not depend on its neighbours in the batch."""
    batch = {name: t[:6] for name, t in next(case.job().data.batches("val")).items()}
    predictor = case.run.recipe.make_predictor(case.run.task, case.run.spec)
    together = predictor.outputs(batch)
    for number in range(6):
        alone = predictor.outputs({name: t[number : number + 1] for name, t in batch.items()})
        for name, value in alone.items():
            torch.testing.assert_close(value[0], together[name][number], rtol=1e-4, atol=1e-5)


def check_micro_batches_equal_one_batch(case: Case) -> None:
    """The same weights come out of one batch and of three micro-batches, or accumulation is refused with a reason."""
    ends = []
    for pieces in (1, 3):
        job = case.job(**{"accumulate": pieces, "steps": 3, "optim.name": "sgd", "optim.lr": 0.05, "evals": 1})
        if pieces > 1 and not all(phase.splits for phase in job.task.phases()):
            with pytest.raises(ConfigError, match="set accumulate=1"):
                next(fit(job.task, job.data, job.optims, job.plan))
            return
        list(fit(job.task, job.data, job.optims, job.plan))
        ends.append({name: t.clone() for name, t in job.task.state_dict().items()})
    for name, tensor in ends[0].items():
        torch.testing.assert_close(ends[1][name], tensor, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


def check_each_phase_moves_only_its_own(case: Case) -> None:
    """An update of a phase changes the weights that the phase trains, and no others."""
    job = case.job()
    job.task.train()
    batches = job.data.batches("train")
    for number, phase in enumerate(job.task.phases()):
        mine = {id(p) for p in phase.parameters()}
        before = {name: p.detach().clone() for name, p in job.task.named_parameters()}
        update = Update(job.task, phase, job.optims[phase.key], job.plan, job.device)
        steps = max(job.plan.steps, 100)
        for step in range(2):  # a branch that starts at zero waits one step
            update(next(batches), Ctx(round(phase.since * steps) + step + 10, steps), 2 * number + step)
        moved = {name for name, p in job.task.named_parameters() if not torch.equal(p, before[name])}
        others = {name for name, p in job.task.named_parameters() if id(p) not in mine}
        assert not moved & others, f"phase {phase.name} moved {sorted(moved & others)[:3]}"
        assert moved, f"phase {phase.name} moved nothing"


def check_resume_is_bitwise(case: Case) -> None:
    """Stopped in the middle of an epoch and resumed, the run ends with exactly the weights of the run never stopped."""
    steps = case.job().plan.steps

    def stop(event: engram.Event) -> None:
        if isinstance(event, engram.Stepped) and event.step == steps // 2:
            signal.raise_signal(signal.SIGINT)

    path = case.folder / "stopped"
    with pytest.raises(Interrupted):
        engram.train(case.name, out=path, progress=False, report=False, on_event=stop, **case.knobs)
    torch.manual_seed(12345)
    resumed = engram.resume(path, progress=False, report=False)
    whole, again = weights(case.run), weights(resumed)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    evals = [[(r["step"], r["metrics"]) for r in run.metrics if r["kind"] == "eval"] for run in (case.run, resumed)]
    assert evals[0] == evals[1]


def check_same_seed_gives_same_weights(case: Case) -> None:
    """Two jobs of one seed start alike; another seed starts elsewhere."""
    first, second, other = case.job(), case.job(), case.job(seed=4)
    same = zip(first.task.state_dict().values(), second.task.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert any(not torch.equal(a, b) for a, b in zip(first.task.parameters(), other.task.parameters(), strict=True))


# ------------------------------------------------------------------------------------------------------------- the run


def check_save_and_load_are_equal(case: Case) -> None:
    """Two loads of the run predict exactly alike, and the weights on disk give the figures that they were chosen for."""
    raw = case.job().data.raw("val", [0, 1, 2])
    first, second = engram.load(case.run.path), engram.load(case.run.path)
    assert first.predict(raw) == second.predict(raw)
    saved = {n.partition("/")[2]: t for n, t in case.run.folder.read_weights().tensors.items()}
    assert all(torch.equal(saved[name], t) for name, t in first.task.state_dict().items())
    chosen = [r for r in case.run.folder.read_metrics() if r["kind"] == "eval" and r["best"]][-1]
    job, at = case.job(), chosen["step"] - 1
    job.task.load_state_dict(first.task.state_dict())
    again = evaluate(job.task, job.data, "val", job.plan, Ctx(at, job.plan.steps))
    assert {n: float(f"{v:.8g}") for n, v in again.items()} == chosen["metrics"]  # these weights were chosen, and no others


def check_loads_without_its_data(case: Case) -> None:
    """A run needs nothing but its folder."""
    raw = case.job().data.raw("val", [0, 1])
    with mock.patch.object(case.cls, "make_data", side_effect=AssertionError("the data was opened")):
        assert engram.load(case.run.path).predict(raw)


def check_output_matches_declaration(case: Case) -> None:
    """The predictor gives what it declares, one entry per row, as plain values."""
    predictor = case.run.predictor
    raw = case.job().data.raw("val", [0, 1, 2])
    out = case.run.predict(raw)
    assert isinstance(out, dict)
    assert out.keys() == predictor.gives.keys()
    kinds = {"label": str, "number": float, "probabilities": dict, "text": str} | dict.fromkeys(LISTS, list)
    for name, field in predictor.gives.items():
        assert len(out[name]) == 3, name
        assert all(type(value) is kinds[field.kind] for value in out[name]), name
        if field.kind == "probabilities":
            assert all(math.isclose(sum(p.values()), 1.0, abs_tol=1e-4) for p in out[name])


def check_report_is_written(case: Case) -> None:
    """The page and the picture are there, with the verdict."""
    page = case.run.report()
    assert case.run.result["verdict"][:20] in page.read_text("utf-8").replace("&#x27;", "'").replace("&amp;", "&")
    assert case.run.folder.png.read_bytes().startswith(b"\x89PNG")


def check_bad_input_gives_a_clear_error(case: Case) -> None:
    """One line that says what is wrong; never a traceback from deep inside."""
    text = case.folder / "notes.txt"
    text.write_text("not what a network reads\n")
    empty = case.folder / "empty.png"
    empty.touch()
    reads_text = "vocab" in case.run.spec.to_json()
    for bad in (case.folder / "missing.file", *(() if reads_text else (text,)), empty, object(), [], 3.5):
        with pytest.raises(EngramError) as caught:
            case.run.predict(bad)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) > 15
    with pytest.raises(ConfigError, match="no knob"):
        case.job(no_such_knob=1)
    with pytest.raises(ConfigError, match="batch"):
        case.job(batch="many")


def check_batched_equals_single(case: Case) -> None:
    """Several inputs at once give what each gives alone, also where their lengths differ."""
    raw = case.job().data.raw("val", [0, 1, 2, 3])
    if isinstance(raw[0], str):
        raw = [text[: max(1, len(text) // (n + 1))] for n, text in enumerate(raw)]
    together = case.run.predict(raw)
    assert isinstance(together, dict)
    for number, one in enumerate(raw):
        alone = case.run.predict([one])
        assert isinstance(alone, dict)
        for name, values in together.items():
            assert alike(values[number], alone[name][0]), (name, values[number], alone[name][0])


def alike(a: Any, b: Any) -> bool:
    """Equal, numbers within rounding."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(alike(x, y) for x, y in zip(a, b, strict=True))
    return math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4) if isinstance(a, float) else a == b


# ------------------------------------------------------------------------------------------------------------ pictures


def check_pictures_repeat_by_seed(case: Case) -> None:
    """Picture i of a seed is the same after loading, in chunks of any size, and however many are asked for."""
    predictor = case.run.predictor
    if not isinstance(predictor, Pictures) or "sample" not in predictor.verbs:
        return
    whole = next(case.run.sample(5, seed=4)).arrays
    spec: Any = case.run.spec
    assert whole.shape == (5, spec.height, spec.width, spec.channels)
    assert whole.dtype == "uint8"
    parts = [chunk.arrays for chunk in engram.load(case.run.path).sample(3, seed=4, chunk=2)]
    close = abs(torch.cat([torch.from_numpy(p) for p in parts]).int() - torch.from_numpy(whole[:3]).int())
    assert close.max() <= 1, close.max()  # rounding of other matrix sizes
    assert (whole != next(case.run.sample(5, seed=5)).arrays).any()
    with pytest.raises(ConfigError, match="nonsense"):
        case.run.sample(1, nonsense=1)
    with pytest.raises(ConfigError, match="n=0"):
        case.run.sample(0)


def check_codes_and_reconstructions_have_the_right_shapes(case: Case) -> None:
    """A code per picture, and a picture of the same shape from it."""
    predictor = case.run.predictor
    if not isinstance(predictor, Pictures):
        return
    x = case.run.spec.encode([r["image"] if isinstance(r, dict) else r for r in case.job().data.raw("val", [0, 1, 2])])["x"]
    for verb in ("encode", "reconstruct", "denoise"):
        with torch.no_grad():
            if verb in predictor.verbs:
                out = getattr(predictor, verb)(x)
                assert len(out) == 3
                assert verb == "encode" or out.shape == x.shape
            else:
                with pytest.raises(ConfigError):
                    getattr(predictor, verb)(x)


# ---------------------------------------------------------------------------------------------------------------- text


def check_padding_changes_nothing(case: Case) -> None:
    """More padding at the right of any sequence leaves the outputs as they are."""
    batch = {name: t[:4] for name, t in next(case.job().data.batches("val")).items()}
    pairs = {name: name.removesuffix("_lengths") if "_" in name else "tokens" for name in batch if name.endswith("lengths")}
    if not pairs:
        return
    longer = dict(batch)
    for sequence in pairs.values():
        width = batch[sequence].shape[1]
        for name, t in batch.items():
            if t.dim() >= 2 and t.shape[1] == width and (name == sequence or sequence == "tokens"):
                pad = t.new_full((t.shape[0], 3, *t.shape[2:]), -100 if name in ("tags", "targets") else 0)
                longer[name] = torch.cat([t, pad], 1)
    predictor = case.run.recipe.make_predictor(case.run.task, case.run.spec)
    before, after = predictor.outputs(batch), predictor.outputs(longer)
    assert before, "the predictor gives no outputs"
    for name, value in before.items():
        more = after[name][:, : value.shape[1]] if value.dim() > 1 and value.shape != after[name].shape else after[name]
        torch.testing.assert_close(more, value, rtol=1e-4, atol=1e-5)


def check_no_look_ahead(case: Case) -> None:
    """What a language model says at a position does not change with what comes later."""
    if not isinstance(case.run.predictor, Generator):
        return
    model, batch = case.run.model, next(case.job().data.batches("val"))
    tokens = batch["tokens"][:2]
    cut = tokens.shape[1] // 2
    changed = tokens.clone()
    changed[:, cut:] = (changed[:, cut:] + 1) % case.run.spec.to_json()["context"]
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :cut], after[:, :cut])
    assert not torch.equal(before[:, cut:], after[:, cut:])


def check_cache_equals_no_cache(case: Case) -> None:
    """Decoding with a cache takes the tokens that reading the whole text anew at every step would take."""
    predictor = case.run.predictor
    if not isinstance(predictor, Generator):
        return
    (prompt,) = case.job().data.raw("val", [0])
    pieces = list(predictor.stream(prompt, tokens=6, temperature=0))
    drawn = [p.token["id"] for p in pieces if p.token]
    ids = torch.tensor([case.run.spec.prompt_ids(case.run.spec.prompts(prompt)[0])])  # type: ignore[attr-defined]
    ids = ids[:, -(case.run.spec.context - 7) :]  # type: ignore[attr-defined]
    expected = []
    for _ in drawn:
        with torch.no_grad():
            logits = case.run.model(ids)[:, -1]
        logits[:, list(predictor.banned)] = -math.inf
        expected.append(int(logits.argmax()))
        ids = torch.cat([ids, logits.argmax(1, keepdim=True)], 1)
    assert drawn == expected


def check_tiny_and_docs(case: Case) -> None:
    """The recipe says what it is, and has a page in the docs."""
    assert engram.recipes()[case.name]
    assert all(info.help for info in knobs_of(case.cls).values())
    page = Path(__file__).parent.parent / "docs" / "recipes" / f"{case.name}.md"
    assert page.exists(), f"write {page}"
    assert f"engram train {case.name}" in page.read_text("utf-8")


def _short(job: Job, steps: int) -> engram.Plan:
    import dataclasses

    return dataclasses.replace(job.plan, steps=steps, eval_every=0, save_every=0, log_every=1)


CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_")]

__all__ = ["CHECKS", "FIXED", "Case", "find"]
