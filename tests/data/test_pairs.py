"""Pairs of texts: what a batch holds, what is left out or cut, vocabularies, and what is said of bad input."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
import torch

from engram.core.errors import ConfigError, DataError
from engram.core.spec import Spec
from engram.data.pair_spec import PairSpec
from engram.data.pairs import pairs
from engram.data.vocabulary import END, START

ROWS = [{"source": f"a{i} b", "target": f"x y{i} " * (1 + i % 3)} for i in range(60)]


def make(**knobs: object) -> tuple[PairSpec, object]:
    given = {"data": ROWS, "batch": 8, "context": 16, "vocab": "word", **knobs}
    data = pairs(given.pop("data"), **given)  # type: ignore[arg-type]
    assert isinstance(data.spec, PairSpec)
    return data.spec, data


def test_batches_hold_both_sides_with_their_lengths() -> None:
    spec, data = make()
    seen = 0
    for batch in islice(data.batches("train"), data.steps_per_epoch):  # type: ignore[attr-defined]
        assert {n: t.dtype for n, t in batch.items()} == dict.fromkeys(
            ("source", "source_lengths", "target", "target_lengths"), torch.int64
        )
        for side in ("source", "target"):
            places = torch.arange(batch[side].shape[1])
            assert ((batch[side] != 0) == (places < batch[f"{side}_lengths"][:, None])).all()
            ends = batch[side].gather(1, batch[f"{side}_lengths"][:, None] - 1)
            assert (ends == END).all()
        assert (batch["target"][:, 0] == START).all()
        assert batch["target_lengths"].max() == batch["target"].shape[1]
        for source, target in zip(batch["source"], batch["target"], strict=True):
            number = spec.decode(source[source != 0].tolist()).split()[0][1:]
            assert f"y{number}" in spec.decode(target.tolist())
        seen += len(batch["source"])
    assert seen == data.size("train") == 48  # type: ignore[attr-defined]


def test_raw_rows_stand_beside_their_batch() -> None:
    spec, data = make()
    rows = data.raw("test", range(data.size("test")))  # type: ignore[attr-defined]
    found = torch.cat([b["source"] for b in data.batches("test")])  # type: ignore[attr-defined]
    assert [spec.source_ids(row["source"]) for row in rows] == [[i for i in r if i] for r in found.tolist()]


def test_long_pairs_are_left_out_of_training_and_cut_elsewhere() -> None:
    rows = [{"source": "w " * (3 if i % 4 else 30), "target": f"t{i}"} for i in range(80)]
    spec, data = make(data=rows, context=10)
    assert all(len(r["source"].split()) == 3 for r in data.raw("train", range(data.size("train"))))  # type: ignore[attr-defined]
    left = [n.text for n in data.summary.notes if "left out" in n.text]  # type: ignore[attr-defined]
    cut = [n.text for n in data.summary.notes if "were cut" in n.text or "was cut" in n.text]  # type: ignore[attr-defined]
    dropped = 64 - data.size("train")  # type: ignore[attr-defined]
    assert dropped > 0
    assert f"{dropped} pairs of 64" in left[0]
    assert cut
    assert data.size("val") + data.size("test") == 16
    assert all(b["source"].shape[1] <= 10 for s in ("val", "test") for b in data.batches(s))  # type: ignore[attr-defined]
    assert spec.too_long("w " * 30) == 30 - 9
    assert spec.too_long("w w") == 0
    _, kept = make(data=rows, context=10, long="cut")
    assert kept.size("train") == 64  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="raise context"):
        make(data=rows, context=2)


def test_each_side_has_its_own_limit() -> None:
    rows = [{"source": "w " * 20, "target": f"t{i} u"} for i in range(20)]
    spec, data = make(data=rows, context=32, target_context=3)
    assert data.size("train") == 16
    assert spec.target_context == 3
    assert spec.target_ids("t1 u t2 t3") == [*spec.target_ids("t1 u")[:-1], END]


def test_vocabularies_shared_and_apart() -> None:
    shared, _ = make()
    assert shared.shared
    assert shared.vocabulary is shared.target_vocabulary
    apart, _ = make(shared=False)
    assert "x" in apart.target_vocabulary.pieces
    assert "x" not in apart.vocabulary.pieces
    assert apart.decode(apart.target_ids("x y1")) == "x y1"


def test_the_spec_survives_json() -> None:
    for knobs in ({}, {"shared": False}, {"vocab": "bpe", "vocab_size": 300}):
        spec, _ = make(**knobs)
        again = type(spec).from_json(json.loads(json.dumps(spec.to_json())))
        assert again.encode("a1 b")["source"].tolist() == spec.encode("a1 b")["source"].tolist()
        assert again.target_ids("x y1") == spec.target_ids("x y1")


def test_vocabularies_of_a_run(tmp_path: Path) -> None:
    for knobs in ({}, {"shared": False}):
        spec, _ = make(**knobs)
        (tmp_path / "run.json").write_text(json.dumps({"spec": spec.to_json()}))
        other = [{"source": f"new{i} a1", "target": "x"} for i in range(20)]
        again, _ = make(data=other, start_from=str(tmp_path), **knobs)
        assert again.vocab == Spec.from_json.__func__(PairSpec, spec.to_json()).vocab or again.encode("a1")  # type: ignore[attr-defined]
        assert again.source_ids("a1 b") == spec.source_ids("a1 b")
        assert again.target_ids("x y1") == spec.target_ids("x y1")
    with pytest.raises(ConfigError, match="set shared=false"):
        make(start_from=str(tmp_path))


def test_own_files(tmp_path: Path) -> None:
    sides = [[f"s{i} s" for i in range(30)], [f"t{i}" for i in range(30)]]
    (tmp_path / "a.en").write_text("\n".join(sides[0]) + "\n")
    (tmp_path / "a.de").write_text("\n".join(sides[1]) + "\n")
    spec, data = make(data=f"{tmp_path}/a.en,{tmp_path}/a.de")
    assert data.size("train") == 24
    assert spec.columns == ("en", "de")
    (tmp_path / "t.csv").write_text("from,to\n" + "\n".join(f"{a},{b}" for a, b in zip(*sides, strict=True)))
    spec, data = make(data=f"{tmp_path}/t.csv", source="from", target="to")
    assert data.raw("val", [0])[0]["target"][0] == "t"
    assert spec.columns == ("from", "to")
    assert spec.source_of({"from": "s1", "to": "t1"}) == "s1"
    assert spec.references({"from": "s1", "to": "t1"}) == ["t1"]
    batches = list(spec.labelled(f"{tmp_path}/t.csv", rows=20))
    assert [len(b["source"]) for b in batches] == [20, 10]
    assert torch.equal(batches[0]["source"], next(spec.labelled(f"{tmp_path}/a.en,{tmp_path}/a.de", rows=20))["source"])


def test_bad_input_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("one\ntwo\nthree\n")
    (tmp_path / "a.de").write_text("eins\nzwei\n")
    (tmp_path / "t.csv").write_text("from,to\na,b\n")
    spec, _ = make()
    for call, words in (
        (lambda: make(data=f"{tmp_path}/a.en,{tmp_path}/a.de"), "3 lines|has 3|2"),
        (lambda: make(data=f"{tmp_path}/t.csv", source="form", target="to"), "did you mean from"),
        (lambda: make(data=f"{tmp_path}/a.en,{tmp_path}/b.de"), "b.de"),
        (lambda: spec.encode("  "), "source is empty"),
        (lambda: spec.encode([]), "empty list"),
        (lambda: spec.encode(3.5), "got float"),
        (lambda: spec.encode({"sorce": "a"}), "no source"),
        (lambda: list(spec.labelled(f"{tmp_path}/a.en")), "needs its target"),
        (lambda: list(spec.read(object())), "DataFrame"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_references_are_one_or_several() -> None:
    spec, _ = make()
    assert spec.references({"source": "a", "target": "x", "references": ["x", "y"]}) == ["x", "y"]
    assert spec.references({"source": "a", "target": "x"}) == ["x"]
