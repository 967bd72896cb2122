"""Every recipe that reads words starts from pre-trained vectors: what the table holds, what freezing keeps, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_checks import FIXED
from torch import Tensor

import engram
from engram.app.cli import main
from engram.app.train import make_recipe, prepare
from engram.core.errors import ConfigError

TEXTS = [f"the {a} sat on the {b} and the {a} saw a {c}" for a in ("cat", "dog", "cow") for b in ("mat", "log") for c in "xyz"]
WORDS = {"cat": [3, 1, 0, 0, 2, 0], "dog": [3, 0, 1, 0, 2, 1], "mat": [0, 4, 0, 1, 0, 1], "unseen": [1, 1, 1, 0, 0, 5]}
TALK = ("user", "assistant")
LINES = {
    "text": [{"text": t} for t in TEXTS],
    "labels": [{"text": t, "label": t.split()[1]} for t in TEXTS],
    "pairs": [{"source": t, "target": t.upper().lower()} for t in TEXTS],
    "talks": [{"messages": [{"role": r, "content": t} for r in TALK]} for t in TEXTS],
    "questions": [
        {"question": "who sat ?", "context": t, "answers": [{"text": t.split()[1], "start": 4}]} for t in TEXTS
    ],
}  # fmt: skip
SMALL = {"layers": 1, "width": 6, "context": 16, "dropout": 0.0, "batch": 4, "steps": 4, "evals": 1, "optim.lr": 0.01}
HEADS = {"heads": 3, "vocab": "word"}
# recipe and data: (knobs, tables that start with the vectors, whether the file's other words join the vocabulary)
CASES: dict[tuple[str, str], tuple[dict[str, Any], tuple[str, ...], bool]] = {
    ("bert", "text"): ({"heads": 3, "learn": "gaps"}, ("encoder.tokens",), False),
    ("bert", "labels"): ({"heads": 3}, ("encoder.tokens",), True),
    ("bert", "tags"): ({"heads": 3}, ("encoder.tokens",), True),
    ("bert", "questions"): ({"heads": 3}, ("encoder.tokens",), True),
    ("gpt", "text"): ({"heads": 3}, ("tokens",), False),
    ("chat", "talks"): ({"heads": 3}, ("tokens",), False),
    ("t5", "text"): ({"heads": 3, "sentinels": 8}, ("tokens",), False),
    ("t5", "pairs"): ({"heads": 3}, ("tokens",), False),
    ("transformer", "pairs"): (HEADS, ("target",), False),
    ("seq2seq", "pairs"): ({"vocab": "word"}, ("source", "target"), False),
    ("sentence", "pairs"): (HEADS, ("encoder.tokens",), True),
    ("rnn", "text"): ({}, ("embed",), False),
    ("lstm", "text"): ({"learn": "text"}, ("embed",), False),
    ("gru", "text"): ({"tied": False}, ("embed",), False),
}
TAKES_THEIRS = ("rnn", "lstm", "gru", "seq2seq")  # their table need not be as wide as the state


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, rows in LINES.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = ["".join(f"{w} {'B-X' if w in WORDS else 'O'}\n" for w in t.split()) for t in TEXTS]
    (tmp_path / "tags.conll").write_text("\n".join(lines))
    (tmp_path / "text.txt").write_text("\n".join(TEXTS))
    (tmp_path / "vectors.txt").write_text("".join(f"{w} {' '.join(map(str, v))}\n" for w, v in WORDS.items()))
    return tmp_path


def knobs_of(files: Path, case: tuple[str, str], **more: Any) -> dict[str, Any]:
    data = {"tags": "tags.conll", "text": "text.txt"}.get(case[1], f"{case[1]}.jsonl")
    given = {"data": str(files / data), "vectors": str(files / "vectors.txt")}
    return {**SMALL, **CASES[case][0], **FIXED, **given, **more}


def tables(task: Any, case: tuple[str, str]) -> dict[str, Tensor]:
    return {name: task.get_parameter(f"model.{name}.weight").detach().clone() for name in CASES[case][1]}


@pytest.mark.parametrize("case", CASES, ids="-".join)
@pytest.mark.parametrize("freeze", [False, True])
def test_vectors_in_every_text_recipe(files: Path, case: tuple[str, str], freeze: bool) -> None:
    knobs = knobs_of(files, case, freeze=freeze)
    job = prepare(*make_recipe(case[0], knobs))
    spec: Any = job.data.spec
    assert ("unseen" in spec.vocabulary.pieces) == CASES[case][2]
    plain = type(spec).from_json(json.loads(json.dumps(spec.to_json())))
    assert (plain.vector_width, plain.vectors) == (6, None)
    torch.manual_seed(knobs["seed"])
    usual = tables(job.recipe.make_task(plain), case)
    before = tables(job.task, case)
    for name, table in before.items():
        for word, vector in WORDS.items():
            if word in spec.vocabulary.pieces:
                row = table[spec.vocabulary.encode_words([word])[0]]
                assert torch.cosine_similarity(row, torch.tensor(vector).float(), dim=0) > 1 - 1e-5
        assert float(table.std()) == pytest.approx(float(usual[name].std()), rel=1e-4)

    raw = job.data.raw("train", [0, 1])
    run = engram.train(case[0], out=files / "run", progress=False, report=False, **knobs)
    after = {name: t for name, t in run.task.state_dict().items() if name not in {f"model.{n}.weight" for n in before}}
    assert all(torch.equal(t, tables(run.task, case)[name]) == freeze for name, t in before.items())
    start = job.task.state_dict()
    assert any(not torch.equal(t, start[name]) for name, t in after.items())

    said = engram.load(files / "run").predict(raw)
    for file in files.glob("*.*"):
        file.unlink()
    again = engram.load(files / "run")
    assert again.predict(raw) == said
    assert all(torch.equal(t, run.task.state_dict()[name]) for name, t in again.task.state_dict().items())


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_what_does_not_fit_is_refused_in_one_line(
    files: Path, case: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)

    def said(**more: Any) -> str:
        flags = [f"{key}={value}" for key, value in knobs_of(files, case, **more).items()]
        assert main(["train", case[0], *flags]) == 2
        line = capsys.readouterr().err.strip()
        assert "\n" not in line
        return line

    assert said(vocab="char").endswith("vectors= are of words, and vocab=char has none; set vocab=word")
    if case[0] not in TAKES_THEIRS:
        assert said(width=8, heads=4).endswith("these vectors have 6 numbers a word; set width=6 heads=3")
        assert said(width=8, heads=1).endswith("these vectors have 6 numbers a word; set width=6")
    with pytest.raises(ConfigError, match="brings a token table of its own"):
        engram.train(case[0], progress=False, **knobs_of(files, case, start_from=str(files)))


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_a_run_from_before_there_were_vectors_still_loads(files: Path, case: tuple[str, str]) -> None:
    knobs = knobs_of(files, case, vectors="", vocab="word", steps=1)
    run = engram.train(case[0], out=files / "run", progress=False, report=False, **knobs)
    raw = prepare(*make_recipe(case[0], knobs)).data.raw("train", [0])
    info = json.loads(run.folder.run_json.read_text())
    assert info["spec"].pop("vector_width") == 0
    for name in ("vectors", "freeze"):
        del info["knobs"][name]
    run.folder.run_json.write_text(json.dumps(info))
    assert engram.load(run.path).predict(raw) == run.predict(raw)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_freezing_without_vectors_is_an_error(files: Path, case: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"there are none: set vectors="):
        prepare(*make_recipe(case[0], knobs_of(files, case, vectors="", vocab="word", freeze=True)))


@pytest.mark.parametrize("case", [("bert", "labels"), ("lstm", "text"), ("t5", "pairs")], ids="-".join)
def test_a_run_that_goes_on_with_vectors_may_freeze_them(files: Path, case: tuple[str, str]) -> None:
    """They are in its weights, of their own width, which no knob need repeat."""
    knobs = knobs_of(files, case, steps=1, width=8 if case[0] in TAKES_THEIRS else 6)
    run = engram.train(case[0], out=files / "run", progress=False, report=False, **knobs)
    job = prepare(*make_recipe(case[0], knobs | {"vectors": "", "start_from": str(run.path), "freeze": True}))
    for name in CASES[case][1]:
        table = job.task.get_parameter(f"model.{name}.weight")
        assert torch.equal(table, run.task.get_parameter(f"model.{name}.weight"))
        assert not table.requires_grad


def test_rotary_heads_are_even(files: Path) -> None:
    with pytest.raises(ConfigError, match=r"set width=6 heads=3$"):  # six heads of one number could not turn
        prepare(*make_recipe("gpt", knobs_of(files, ("gpt", "text"), width=12, heads=6)))
    with pytest.raises(ConfigError, match=r"a word; set heads=3$"):
        prepare(*make_recipe("gpt", knobs_of(files, ("gpt", "text"), heads=2)))
    (files / "vectors.txt").write_text("cat 1 2 3 4 5\ndog 2 1 3 0 5\n")
    with pytest.raises(ConfigError, match=r"set width=5 heads=5 positions=learned$"):
        prepare(*make_recipe("gpt", knobs_of(files, ("gpt", "text"), heads=4)))


@pytest.mark.parametrize("case", [("transformer", "pairs"), ("seq2seq", "pairs")], ids="-".join)
def test_with_two_vocabularies_the_vectors_are_of_the_source(files: Path, case: tuple[str, str]) -> None:
    job = prepare(*make_recipe(case[0], knobs_of(files, case, shared=False, freeze=True)))
    source, target = (job.task.get_parameter(f"model.{side}.weight") for side in ("source", "target"))
    row = source[job.data.spec.vocabulary.encode("cat")[0]]  # type: ignore[attr-defined]
    assert torch.cosine_similarity(row, torch.tensor(WORDS["cat"]).float(), dim=0) > 1 - 1e-5
    assert (source.requires_grad, target.requires_grad) == (False, True)


@pytest.mark.parametrize("name", TAKES_THEIRS)
def test_a_table_of_another_width_than_the_state(files: Path, name: str) -> None:
    case = (name, "pairs" if name == "seq2seq" else "text")
    job = prepare(*make_recipe(name, knobs_of(files, case, width=8, embed=5)))
    assert all(table.shape[1] == 6 for table in tables(job.task, case).values())
