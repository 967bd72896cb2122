"""Corpora and conversations as training data; prompts as a run takes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engram.core.errors import ConfigError, DataError, EngramError, RunError
from engram.data.chat import ChatTemplate, manual
from engram.data.corpus import corpus, vocabulary_of
from engram.data.language_spec import LanguageSpec
from engram.data.vocabulary import END, START, Vocabulary

TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho ho"}]


def test_a_text_file_becomes_windows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcdefghij " * 60)
    data = corpus(tmp_path / "a.txt", batch=4, context=16)
    batch = next(data.batches("train"))
    assert batch["tokens"].shape == (4, 16)
    assert "documents" not in batch  # one document needs no borders
    assert isinstance(data.spec, LanguageSpec)
    vocabulary = data.spec.vocabulary
    assert vocabulary.kind == "char"
    whole = "".join(vocabulary.decode(data.splits[s].tolist()) for s in ("train", "val"))
    assert whole == "abcdefghij " * 60  # nothing is lost
    again = LanguageSpec.from_json(json.loads(json.dumps(data.spec.to_json())))
    assert again.vocabulary.encode("abc") == vocabulary.encode("abc")


def test_several_documents_are_kept_apart(tmp_path: Path) -> None:
    for n in range(30):
        (tmp_path / f"{n:02d}.txt").write_text(f"text number {n} says this and that\n")
    data = corpus(tmp_path, batch=2, context=64)
    batch = next(data.batches("train"))
    assert batch["documents"].unique().numel() > 1
    begins = batch["tokens"] == START
    step = batch["documents"].diff(dim=1) != 0
    assert torch.equal(step, begins[:, 1:])


def test_only_replies_are_trained() -> None:
    v = Vocabulary("byte")
    ids, own = ChatTemplate().encode(v, TALK)
    assert v.decode(ids, specials=True) == "<s><user>hi</s><assistant>ho ho</s>"
    trained = [i for i, mine in zip(ids, own, strict=True) if mine]
    assert v.decode(trained) == "ho ho"
    assert trained[-1] == END
    assert ChatTemplate().prompt(v, TALK[:1])[-1] == v.special("<assistant>")


def test_conversations_are_packed_with_their_targets(tmp_path: Path) -> None:
    path = tmp_path / "talks.jsonl"
    path.write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}."}]}) + "\n"
            for n in range(40)
        )
    )
    data = corpus(path, batch=2, context=32, chat=True, vocab="byte")
    v = data.spec.vocabulary  # type: ignore[attr-defined]
    batch = next(data.batches("train"))
    said = v.decode([t for t in batch["targets"].flatten().tolist() if t >= 0])
    assert "q" not in said
    assert "a" in said
    assert data.raw("val", [0])[0][-1]["role"] == "user"


def test_the_manual_gives_conversations() -> None:
    talks = manual()
    assert len(talks) > 100
    assert len({t["messages"][1]["content"] for t in talks}) == len(talks)


def test_prompts_of_every_form(tmp_path: Path) -> None:
    spec = LanguageSpec(vocab=Vocabulary("byte").to_json(), context=8)
    (tmp_path / "p.txt").write_text("from a file")
    texts = spec.prompts(["one", tmp_path / "p.txt", {"prompt": "two"}])
    assert texts == ["one", "from a file", "two"]
    batch = spec.encode(["a", "abc"])
    assert batch["lengths"].tolist() == [2, 4]
    assert batch["tokens"][0, 2:].tolist() == [0, 0]
    (tmp_path / "p.jsonl").write_text('{"prompt": "x"}\n{"text": "y"}\n')
    assert [c for _, c in spec.read(tmp_path / "p.jsonl")] == [["x", "y"]]
    assert [c for _, c in spec.read("just some words")] == [["just some words"]]


BAD = [
    ("", "prompt is empty"), (3.5, "takes text"), ([], "empty list"), (TALK, "not trained on conversations"),
    ({"x": 1}, "has x"), (Path("no/such.txt"), "there is no file"), (b"ab", "takes text"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "said"), BAD)
def test_bad_prompts(raw, said) -> None:
    spec = LanguageSpec(vocab=Vocabulary("byte").to_json(), context=8)
    with pytest.raises(DataError, match=said):
        spec.encode(raw)


def test_bad_messages() -> None:
    for talk, said in (
        ([{"role": "me", "content": "x"}], "role 'me'"),
        ([{"content": "x"}], "message 1"),
        ([], "at least one"),
    ):
        with pytest.raises(DataError, match=said):
            ChatTemplate().encode(Vocabulary("byte"), talk)


def test_the_vocabulary_of_a_run_is_kept(tmp_path: Path) -> None:
    v = Vocabulary.train("char", ["abc xyz"])
    (tmp_path / "run.json").write_text(json.dumps({"spec": {"vocab": v.to_json()}}))
    (tmp_path / "t.txt").write_text("abc " * 50 + "qqq " * 50)
    data = corpus(tmp_path / "t.txt", batch=2, context=8, start_from=str(tmp_path))
    assert data.spec.vocabulary.pieces == v.pieces  # type: ignore[attr-defined]
    assert any("not in the vocabulary" in n.text for n in data.summary.notes)
    with pytest.raises(RunError, match="not a run"):
        vocabulary_of(str(tmp_path / "nothing"))
    (tmp_path / "run.json").write_text(json.dumps({"spec": {}}))
    with pytest.raises(ConfigError, match="no vocabulary"):
        vocabulary_of(str(tmp_path))


def test_too_little_text_and_wrong_files(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    for name in ("empty.txt", "binary.txt"):
        with pytest.raises(EngramError):
            corpus(tmp_path / name, batch=2, context=8)
    (tmp_path / "a.txt").write_text("hello there " * 40)
    with pytest.raises(ConfigError, match="vocab_size"):
        corpus(tmp_path / "a.txt", batch=2, context=8, vocab="bpe", vocab_size=100)
