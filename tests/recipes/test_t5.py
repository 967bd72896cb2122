"""t5: the data says what is learned, and pairs go on from the weights and the vocabulary of a run that filled gaps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import engram
from engram.app.train import make_recipe, prepare
from engram.core.errors import ConfigError
from engram.data.pair_spec import PairSpec
from engram.data.span_spec import SpanSpec
from engram.inference.fill import GapFiller
from engram.inference.translate import Translator

SIZE = {"layers": 1, "heads": 2, "width": 32, "threads": 1, "precision": "fp32", "seed": 3, "progress": False}
SUBJECTS = ("cat", "dog", "bird", "fish", "horse")
ROWS = [
    {"article": f"The {a} sat on the {b} all day long. It was quiet.", "summary": f"{a} on {b}"}
    for a in SUBJECTS
    for b in ("mat", "hill", "roof", "chair", "road", "wall")
]


def test_gaps_then_pairs(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"{r['article']} {r['summary']}." for r in ROWS * 3), "utf-8")
    gaps = engram.train(
        "t5", data=str(text), vocab="bpe", vocab_size=400, context=32, steps=20, batch=8, out=tmp_path / "gaps", **SIZE
    )
    assert isinstance(gaps.spec, SpanSpec)
    assert isinstance(gaps.predictor, GapFiller)
    assert gaps.predict("The <x0> sat on the <x1>")["gaps"][0]  # type: ignore[index]
    knobs = {"data": ROWS, "source": "article", "target": "summary", "context": 48, "start_from": str(gaps.path), "batch": 8}
    job = prepare(*make_recipe("t5", {k: v for k, v in {**knobs, **SIZE}.items() if k != "progress"}))
    assert isinstance(job.data.spec, PairSpec)
    assert job.data.spec.vocabulary.to_json() == gaps.spec.vocabulary.to_json()
    pairs = engram.train("t5", steps=3, out=tmp_path / "pairs", **{"optim.lr": 1e-9}, **knobs, **SIZE)
    assert isinstance(pairs.predictor, Translator)
    before, after = gaps.task.state_dict(), pairs.task.state_dict()
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)  # it did start from there
    assert pairs.result["headline"] == "rouge1"
    assert "first three sentences reach ROUGE-1" in pairs.result["beside"]


@pytest.mark.parametrize(
    ("knobs", "spec"),
    [
        ({"data": "pydoc"}, SpanSpec),
        ({"data": [{"source": f"a {n}", "target": f"b {n}"} for n in range(40)]}, PairSpec),
        ({"data": [{"source": f"a b {n} c d", "target": f"b {n}"} for n in range(40)], "learn": "gaps"}, SpanSpec),
    ],
)
def test_the_data_says_what_is_learned(knobs: dict, spec: type) -> None:
    recipe = make_recipe("t5", {**knobs, "context": 16, "vocab": "char", "layers": 1, "heads": 2, "width": 16})[1]
    assert isinstance(recipe.make_data().spec, spec)


def test_what_is_no_text_to_text_is_refused() -> None:
    recipe = make_recipe("t5", {"data": "pydoc_topics"})[1]
    with pytest.raises(ConfigError, match=r"labelled.*learn=gaps"):
        recipe.make_data()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="divide"):
        prepare(*make_recipe("t5", {"width": 30, "heads": 4, "context": 16, "vocab": "char"}))
