"""Texts pick their recipe by what they are, and tables stay tables."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from engram.app.pick import pick
from engram.app.pick_text import FORM_OF
from engram.core.errors import ConfigError, DataError
from engram.data.sources import BUILT_IN
from engram.data.texts import read_texts

REVIEWS = "review,stars\n" + "\n".join(
    f'"a film, number {n}, about nothing much",{"good" if n % 2 else "bad"}' for n in range(12)
)


@pytest.mark.parametrize(
    ("name", "text", "recipe"),
    [
        ("reviews.csv", REVIEWS, "textcnn"),
        ("scores.csv", "review,score\n" + "\n".join(f"a film about nothing at all,{n}.5" for n in range(9)), "mlp"),
        ("houses.csv", "note,rooms,price\n" + "\n".join(f"a house near the old river,{n},{n}" for n in range(9)), "mlp"),
        ("people.csv", "name,city\nAda,London\nBob,Paris\n", "mlp"),
        ("names.conll", "Ada B-person\n\n", "lstm"),
        ("novel.txt", "It was a dark, stormy night.\nThe rain fell, in torrents, on us.\nThen it stopped.\n", "gpt"),
        ("table.txt", "a;b\n1;2\n3;4\n", "mlp"),
        ("chat.jsonl", '{"messages": [{"role": "user", "content": "hi"}]}\n', "chat"),
        ("tags.jsonl", '{"words": ["Ada"], "tags": ["B-person"]}\n', "lstm"),
        ("intents.jsonl", '{"text": "turn the light on please", "intent": "on"}\n' * 4, "textcnn"),
    ],
)
def test_files(tmp_path: Path, name: str, text: str, recipe: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    picked, knobs, why = pick(str(path), {})
    assert (picked, knobs) == (recipe, {"data": str(path)})
    assert name in why[0]
    assert why[0].endswith(f"training {recipe}")


def test_columns_with_unusual_names_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mails.csv"
    path.write_text(REVIEWS.replace("review,stars", "was_uns_geschrieben_wurde,ordner"))
    knobs = {"data": str(path), "text": "was_uns_geschrieben_wurde", "label": "ordner"}
    assert pick(str(path), {})[:2] == ("textcnn", knobs)
    rows = read_texts(str(path), "labelled", text=knobs["text"], label=knobs["label"])
    assert rows.form == "labelled"


def test_a_target_asks_for_a_table(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text(REVIEWS)
    assert pick(str(path), {"target": "stars"})[0] == "mlp"


def test_a_data_frame_of_texts() -> None:
    frame = pd.DataFrame({"text": ["a film about nothing at all"] * 6, "label": ["x", "y"] * 3})
    assert pick(frame, {})[0] == "textcnn"
    assert pick(frame.assign(stars=range(6)), {})[0] == "mlp"


def test_folders(tmp_path: Path) -> None:
    for label in ("good", "bad"):
        (tmp_path / "films" / label).mkdir(parents=True)
        (tmp_path / "films" / label / "1.txt").write_text("words")
    assert pick(str(tmp_path / "films"), {})[0] == "textcnn"
    assert pick(str(tmp_path / "films" / "good"), {})[0] == "gpt"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        pick(str(tmp_path / "empty"), {})


@pytest.mark.parametrize(
    ("name", "recipe"), [("sst2", "textcnn"), ("clinc150", "textcnn"), ("wnut17", "lstm"), ("pydoc", "gpt")]
)
def test_built_in_texts(name: str, recipe: str) -> None:
    picked, knobs, why = pick(name, {})
    assert (picked, knobs) == (recipe, {"data": name})
    assert f"{name} is a built-in set of texts" in why[0]


def test_every_built_in_text_has_its_form() -> None:
    sets = {name for name, source in BUILT_IN.items() if source.kind == "text"}
    assert sets == set(FORM_OF)
    for name in sets:
        if name.startswith("pydoc") or Path(os.environ.get("ENGRAM_DATA", "/nowhere"), name).is_dir():
            assert read_texts(name).form == FORM_OF[name]


def test_data_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="given twice: sst2 and data=imdb"):
        pick("sst2", {"data": "imdb"})
