"""Recurrent recipes on tags and on text pass the checks of recipes; vectors, out-of-scope texts and files end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_checks import CHECKS, FIXED, Case

import engram
from engram.app.train import Job, make_recipe, prepare
from engram.core.errors import DataError
from engram.recipes import find

TAGS = {"data": "pydoc_code", "batch": 16, "epochs": 2, "spelling": 6, "letters": 6}
TEXT = {"data": "pydoc", "vocab": "char", "context": 16, "batch": 16, "steps": 40, "tied": False}
GRAMS = {"grams": 4096}
KINDS = {("lstm", "tags"): TAGS, ("gru", "text"): TEXT, ("textcnn", "grams"): GRAMS, ("gru", "grams"): GRAMS}


@dataclass
class Other(Case):
    """A case with other knobs than the recipe's tiny ones."""

    own: dict[str, Any]

    @property
    def knobs(self) -> dict[str, Any]:
        return {**self.cls.tiny, **FIXED, **self.own}

    def job(self, **knobs: Any) -> Job:
        return prepare(*make_recipe(self.name, {**self.knobs, **knobs}))


@pytest.fixture(scope="module", params=list(KINDS), ids=lambda k: "-".join(k))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Other:
    name = request.param[0]
    folder = tmp_path_factory.mktemp("-".join(request.param))
    cls = find(name)
    run = engram.train(name, out=folder / "run", progress=False, **{**cls.tiny, **FIXED, **KINDS[request.param]})
    return Other(name, cls, run, folder, KINDS[request.param])


@pytest.mark.parametrize("check", [c for c in CHECKS if "docs" not in c.__name__], ids=lambda c: c.__name__)
def test_other_data(case: Other, check: Callable[[Case], None]) -> None:
    check(case)


def rows(labels: tuple[str, ...] = ("cat", "dog")) -> list[dict[str, str]]:
    return [{"text": f"{a} {b} {a}", "label": b} for a in "abcdefghij" for b in labels]


def write(path: Path, found: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@pytest.mark.parametrize("name", ["textcnn", "gru"])
@pytest.mark.parametrize("freeze", [False, True])
def test_a_run_with_vectors_needs_their_file_no_more(tmp_path: Path, name: str, freeze: bool) -> None:
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("cat 1 0 0 2\ndog 0 1 3 0\nunseen 0 0 1 1\n")
    data = write(tmp_path / "rows.jsonl", rows())
    knobs = {"data": data, "vectors": str(vectors), "freeze": freeze, "epochs": 3, "embed": 9, **FIXED}
    run = engram.train(name, out=tmp_path / "run", progress=False, report=False, **knobs)
    table = run.model.get_parameter("embed.weight")
    assert table.shape[1] == 4
    at = run.spec.vocabulary.encode("cat unseen")  # type: ignore[attr-defined]
    given = torch.tensor([[1.0, 0, 0, 2], [0, 0, 1, 1]])
    assert torch.equal(table[at[1]], given[1]) or not freeze  # no training text holds it
    assert torch.equal(table[at[0]], given[0]) == freeze
    said = run.predict(["a cat", "unseen dog"])
    vectors.unlink()
    data.unlink()
    again = engram.load(tmp_path / "run")
    assert again.predict(["a cat", "unseen dog"]) == said
    with pytest.raises(DataError, match="no file"):
        engram.train(name, progress=False, **{**knobs, "data": rows()})


@pytest.mark.parametrize("hold_out", [False, True])
def test_out_of_scope_end_to_end(tmp_path: Path, hold_out: bool) -> None:
    data = [r | {"text": f"{r['text']} {n}"} for n in range(4) for r in rows()]
    data += [{"text": f"{a} zebra {b}", "label": "oos"} for a in "abcdefghij" for b in "klm"]
    run = engram.train(
        "textcnn", out=tmp_path / "run", data=write(tmp_path / "rows.jsonl", data), progress=False, epochs=12, embed=8,
        channels=8, hold_out=hold_out, dropout=0.0, **{"optim.lr": 1e-2}, **FIXED,
    )  # fmt: skip
    metrics = run.result["metrics"]
    for name in ("in_scope_accuracy", "out_of_scope_recall", "closed_accuracy"):
        assert set(metrics[name]) == {"value", "low", "high"}
        assert metrics[name]["value"] > 0.6, (name, metrics[name])
    assert metrics["per_class"][-1]["class"] == "oos"
    said = engram.load(run.path).predict("b zebra k")
    assert isinstance(said, dict)
    assert said["label"] == ["oos"]
    assert said["out_of_scope"] == [said["probabilities"][0]["oos"]]
    again = run.evaluate(write(tmp_path / "again.jsonl", data))
    assert again["metrics"]["in_scope_accuracy"]["value"] > 0.6
    if hold_out:
        assert 0 < float(run.task.get_buffer("threshold")) < 1


def test_streams_keep_their_order_and_equal_single_texts(tmp_path: Path) -> None:
    run = engram.train("gru", out=tmp_path / "run", data=rows(), progress=False, epochs=2, width=8, **FIXED)
    texts = ["a cat", "dog and much else besides that", "b", "cat dog cat", "c d e f g"]
    write(tmp_path / "t.jsonl", [{"text": t} for t in texts])
    found = list(run.stream(tmp_path / "t.jsonl", rows=2))
    assert [f["input"] for f in found] == [f"t.jsonl:{n}" for n in range(1, 6)]
    for one, text in zip(found, texts, strict=True):
        alone = run.predict(text)
        assert isinstance(alone, dict)
        assert one["label"] == alone["label"][0]
        assert one["probability"] == pytest.approx(alone["probability"][0], abs=1e-5)


def test_a_folder_of_text_is_learned_as_text(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.txt").write_text("the cat sat on the mat. " * 20)
    run = engram.train(
        "rnn", out=tmp_path / "run", data=tmp_path, progress=False, report=False, steps=5, width=8, context=8, **FIXED
    )
    out = run.predict("the cat", tokens=3)
    assert isinstance(out, dict)
    assert run.result["metrics"]["perplexity"]["value"] > 1
    assert type(run.spec).__name__ == "LanguageSpec"


@pytest.mark.parametrize(
    ("name", "knobs", "wanted"),
    [
        ("gru", TEXT | {"grams": 4096}, "this run learns text; without effect: grams (for labels)"),
        ("lstm", TAGS | {"pool": "mean"}, "this run learns tags; without effect: pool (for labels)"),
        ("bert", {"crf": True}, "this run learns gaps; without effect: crf (for tags)"),
        ("t5", {"beams": 2, "learn": "gaps"}, "this run learns gaps; without effect: beams (for pairs)"),
    ],
)
def test_knobs_without_effect_are_told(name: str, knobs: dict[str, Any], wanted: str) -> None:
    notes = prepare(*make_recipe(name, {**find(name).tiny, **FIXED, **knobs})).data.summary.notes
    assert [n.text for n in notes if n.level == "warning"] == [wanted]


def test_held_out_text_may_have_characters_of_its_own(tmp_path: Path) -> None:
    """A run on characters is measured to the end although its vocabulary cannot read the validation text as a prompt."""
    (tmp_path / "a.txt").write_text("caf\u00e9\n")  # the line's end is held out
    knobs = {"vocab": "char", "context": 16, "width": 16, "batch": 16, "steps": 2, "device": "cpu", "threads": 1}
    run = engram.train("gru", data=tmp_path / "a.txt", out=tmp_path / "run", progress=False, **knobs)
    assert "loss" in str(run.metrics)
    assert (run.path / "report.html").exists()
