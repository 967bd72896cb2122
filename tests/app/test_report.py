"""The report from hand-made run folders: complete, self-contained, escaped, and there for runs that failed too."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from engram.app.report import write_report
from engram.app.report.classes import order, shown_classes
from engram.app.report.curves import running_mean
from engram.app.report.drawing import short
from engram.app.report.html import Html, el, table
from engram.checkpoint.folder import RunFolder

MakeRun = Callable[..., RunFolder]
VOID = {"meta", "img", "br"}
EVIL = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$\\frac{a}{b}$", "日本 & <b>")
NOTES = (
    {"level": "warning", "text": "<u>9 rows</u> are in two splits"},
    {"level": "info", "text": "an id column was left out"},
)


class Reader(HTMLParser):
    """Every tag with its attributes, and the text that is seen; complains about tags that do not close."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def read(folder: RunFolder) -> Reader:
    reader = Reader(write_report(folder).read_text("utf-8"))
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def shared(make_run: MakeRun) -> tuple[Reader, str]:
    """The report of a finished run, read and as text, for all tests that only look at it."""
    folder = make_run(classes=EVIL, notes=NOTES)
    return read(folder), folder.html.read_text("utf-8")


def headings(folder: RunFolder) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", folder.html.read_text("utf-8"))


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_finished_run(make_run: MakeRun, kind: str) -> None:
    pictures = kind == "classification"
    folder = make_run(kind=kind, pictures=pictures)
    page = read(folder)
    result = folder.read_result()["metrics"]
    if kind == "classification":
        assert f"{100 * result['accuracy']['value']:.1f} %" in page.text
        assert headings(folder)[:2] == ["Examples", "Where it is wrong, and how sure"]
    else:
        assert "Variance explained" in page.text
        assert headings(folder)[:2] == ["How far off it is", "Examples"]
        assert "predicted minus true price" in page.text
    assert headings(folder)[2:] == [
        "How training went", "Inside the network", "The data", "What was chosen", "Repeat it and use it"
    ]  # fmt: skip
    assert "Right on <most> rows." in page.text
    assert "step 30, epoch 3 (validation loss 0.5)" in page.text
    assert "engram train hand.py seed=0" in page.text
    assert "ab" * 32 in page.text
    assert "not finished" not in page.text
    assert len([t for t, _ in page.tags if t == "img"]) == (8 if pictures else 0)
    with Image.open(folder.png) as poster:
        assert poster.width == 1600
        assert np.asarray(poster.convert("L")).std() > 10


def test_nothing_is_fetched_from_outside(shared: tuple[Reader, str]) -> None:
    page, text = shared
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed"}
        for name, value in attributes.items():
            if name in {"src", "href", "xlink:href", "action", "srcset", "data"}:
                assert value is not None
                assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value[:60])
            assert not name.startswith("on")
    assert not re.search(r"@import|url\((?!#)", text)


def test_names_from_the_data_stay_text(shared: tuple[Reader, str]) -> None:
    page, _ = shared
    assert {t for t, _ in page.tags}.isdisjoint({"script", "u", "i"})
    assert all(name in page.text for name in EVIL)
    assert "<u>9 rows</u>" in page.text
    assert all(attributes.get("src", "data:") != "x" for _, attributes in page.tags)


def test_every_picture_and_drawing_has_words_and_every_heading_a_scope(shared: tuple[Reader, str]) -> None:
    page, _ = shared
    assert all(a.get("alt") for t, a in page.tags if t == "img")
    drawings = [a for t, a in page.tags if t == "svg"]
    assert len(drawings) >= 6
    assert all(a.get("role") == "img" and a.get("aria-label") for a in drawings)
    assert all(a.get("scope") in ("col", "row") for t, a in page.tags if t == "th")


def test_ids_are_unique_and_references_resolve(shared: tuple[Reader, str]) -> None:
    page, _ = shared
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    used = {value[1:] for _, a in page.tags for name, value in a.items() if name == "href" and value and value[0] == "#"}
    used |= {m for _, a in page.tags for v in a.values() if v for m in re.findall(r"url\(#(.*?)\)", v)}
    assert used
    assert used <= set(ids)


def test_drawings_follow_the_colours_of_the_page(shared: tuple[Reader, str]) -> None:
    _, text = shared
    body = text.partition("<body>")[2]
    assert "var(--ink)" in body
    assert "#1b1f24" not in body
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("steps", [0, 25])
def test_an_unfinished_run_says_so_first(make_run: MakeRun, steps: int) -> None:
    folder = make_run(finished=False, steps=steps)
    page = read(folder)
    start = page.text[:900]
    said = "has not made a step yet" if steps == 0 else f"step {steps} of 40 was the last on record"
    assert said in start
    assert f"engram resume {folder.path}" in start
    with Image.open(folder.png) as poster:
        assert poster.width == 1600


def test_a_run_that_was_interrupted_and_one_without_its_test_figures(make_run: MakeRun) -> None:
    cases = (("interrupted", "was stopped at step 25 of 40"), ("done", "figures on unseen rows are missing"))
    for reason, said in cases:
        folder = make_run(finished=False, steps=25)
        log = folder.log()
        log.write("stop", 25, seconds=2.5, reason=reason, best_step=20)
        log.close()
        assert said in read(folder).text[:900]


def test_torn_lines_and_values_that_are_not_finite(make_run: MakeRun) -> None:
    folder = make_run(finished=False, steps=10)
    log = folder.log()
    log.write("step", 11, seconds=1.1, **{"train/loss": float("nan")}, layers={"model.first.weight": float("inf")})
    log.close()
    with folder.metrics.open("a") as file:
        file.write('{"kind": "step", "st')
    assert "step 11 of 40" in read(folder).text


def test_missing_and_damaged_parts(make_run: MakeRun) -> None:
    gone = make_run("gone", kind="regression")
    gone.predictions.unlink()
    (gone.path / "samples" / "random-0.png").unlink()
    assert "predictions are not in the run folder" in read(gone).text
    damaged = make_run("damaged", kind="regression")
    damaged.predictions.write_bytes(damaged.predictions.read_bytes()[:-9])
    (damaged.path / "layers.json").write_text("{")
    text = read(damaged).text
    assert "is damaged" in text
    assert "The layers are not shown: " in text
    (damaged.path / "samples" / "examples.json").unlink()
    read(damaged)
    assert "Examples" not in headings(damaged)


def test_two_classes_and_many(make_run: MakeRun) -> None:
    assert "ROC-AUC" in read(make_run("two", classes=("no", "yes"))).text
    many = make_run("many", classes=tuple(f"kind of thing {i}" for i in range(150)), rows=900)
    text = read(many).text
    assert "The 20 classes with most mistakes, of 150." in text
    assert "Figures of all 150 classes" in text
    assert many.html.stat().st_size < 1_500_000
    more = make_run("more", classes=tuple(f"c{i}" for i in range(210)), rows=900)
    assert "Confusion matrix" not in read(more).text


def test_warnings_about_the_data_stand_at_the_top(shared: tuple[Reader, str]) -> None:
    page, _ = shared
    assert page.text.index("are in two splits") < page.text.index("Accuracy")
    assert page.text.index("an id column was left out") > page.text.index("The data")


def test_confused_classes_stand_side_by_side() -> None:
    counts = np.diag([10, 10, 10, 10, 10])
    counts[0, 3], counts[3, 0], counts[1, 4] = 4, 3, 2
    assert order(counts).tolist()[:2] == [0, 3]
    places = {c: i for i, c in enumerate(order(counts).tolist())}
    assert abs(places[1] - places[4]) == 1
    many = np.diag(np.full(40, 5))
    many[37, 12] = 9
    assert {37, 12} <= set(shown_classes(many).tolist())
    assert len(shown_classes(many)) == 20


def test_html_escapes_what_is_not_html() -> None:
    assert el("p", "<", Html("<br>"), None, class_='"') == '<p class="&quot;">&lt;<br></p>'
    made = table(("<a>", "n"), [("<r>", 1)], "<c>", numbers=(1,))
    assert Reader(made).text == "<c><a>n<r>1"
    assert '<th scope="row">' in made


def test_the_running_mean_keeps_the_ends() -> None:
    values = np.arange(30.0) ** 2
    mean = running_mean(values)
    assert (mean[0], mean[-1]) == (0.0, 29.0**2)
    assert mean[15] == pytest.approx(values[11:20].mean())
    assert running_mean(np.ones(5)).tolist() == [1.0] * 5


def test_names_are_shortened_in_the_middle() -> None:
    assert short("kind of thing 127", 14) == "kind of t…127"
    assert short("kind of thing 127", 14) != short("kind of thing 128", 14)
    assert short("cat", 14) == "cat"
