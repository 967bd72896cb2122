"""What the run does with unseen rows: examples, the worst mistakes, confusion or residuals, calibration."""

from __future__ import annotations

from typing import Any

import numpy as np

from engram.app.report import classes, numbers
from engram.app.report.content import Content
from engram.app.report.drawing import svg
from engram.app.report.html import NOTHING, Html, el, figure, join, more, picture, section, table
from engram.app.verdict import number, percent

COLUMNS = 12  # of a table row that are shown
MOST_CLASSES = 20  # whose figures are not folded away


def outcome(run: Content) -> Html | None:
    """Sections on the figures of unseen rows; None for a run without any."""
    if run.kind == "classification":
        return join(filter(None, (_examples(run), _classes(run))))
    if run.kind == "regression":
        return join(filter(None, (_residuals(run), _examples(run))))
    return _texts(run) if run.kind == "scores" else None


def _texts(run: Content) -> Html | None:
    """What was given, what was wanted and what the network gave, as text."""
    samples = run.samples.get("random", [])
    if not samples:
        return None
    wanted = any(s["target"] for s in samples)
    rows = [[s["input"]["text"], *([s["target"]] if wanted else []), s["prediction"]] for s in samples]
    said = "Rows that training never saw" if run.result["split"] == "test" else "Validation rows"
    head = ("Given", "Wanted", "The network's") if wanted else ("Given", "The network's")
    return section("Examples", el("div", table(head, rows, f"{said}, from the beginning."), class_="texts"))


def _examples(run: Content) -> Html | None:
    random, worst = run.samples.get("random", []), run.samples.get("worst", [])
    if not random:
        return None
    show = _faces if any("picture" in s for s in random) else _rows
    said = "Rows of the split that training never saw" if run.result["split"] == "test" else "Validation rows"
    parts: list[object] = [el("h3", "Drawn at random"), show(run, random, f"{said}, drawn at random.")]
    if worst:
        title = "The worst mistakes" if run.kind == "classification" else "The largest errors"
        parts += [el("h3", title), show(run, worst, f"{said}: those with the highest loss, worst first.")]
    else:
        parts.append(el("p", "There is no mistake among the unseen rows."))
    return section("Examples", *parts)


def _faces(run: Content, samples: list[dict[str, Any]], caption: str) -> Html:
    items = []
    for s in samples:
        path = run.path / "samples" / str(s.get("picture", ""))
        face = picture(path, f"{s['name']}: true {_said(s['target'])}") if path.is_file() else None
        items.append(el("li", face, *_judged(s), title=s["name"]))
    return el("ul", *items, class_="faces", aria_label=caption)


def _judged(s: dict[str, Any]) -> list[Html]:
    sure = "" if s["probability"] is None else f" {percent(s['probability'])}"
    if s["prediction"] == s["target"]:
        return [el("span", f"✓ {_said(s['target'])}", class_="right"), Html("<br>"), el("span", f"sure{sure}")]
    said = [el("span", f"✗ {_said(s['prediction'])}", class_="wrong"), el("span", sure), Html("<br>")]
    return [*said, el("span", f"true: {_said(s['target'])}")]


def _rows(run: Content, samples: list[dict[str, Any]], caption: str) -> Html:
    columns = list(samples[0].get("input", {}))[:COLUMNS]
    rows = []
    for s in samples:
        given = [_cell(s.get("input", {}).get(c)) for c in columns]
        if run.kind == "classification":
            right = s["prediction"] == s["target"]
            mark = el("span", f"{'✓' if right else '✗'} {_said(s['prediction'])}", class_="right" if right else "wrong")
            rows.append([s["name"], s["target"], mark, percent(s["probability"]), *given])
        else:
            true, said = s["target"], s["prediction"]
            rows.append([s["name"], number(true), number(said), number(said - true), *given])
    head = ["Row", "True", "Predicted", "Probability" if run.kind == "classification" else "Off by", *columns]
    left_out = len(samples[0].get("input", {})) - len(columns)
    caption += f" {left_out} more columns are not shown." if left_out > 0 else ""
    return table(head, rows, caption, numbers=(3,) if run.kind == "classification" else (1, 2, 3))


def _cell(value: Any) -> str:
    """A cell of the data, as precise as people write it."""
    if value is None:
        return NOTHING
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _said(value: Any) -> str:
    if value is None:
        return NOTHING
    return number(value) if isinstance(value, float) else str(value)


def _classes(run: Content) -> Html:
    m = run.metrics
    count, drawn, tables = len(m["classes"]), [], []
    if m["confusion"] is not None:
        size = len(classes.shown_classes(np.asarray(m["confusion"])))
        inches = 2.6 + 0.16 * size
        alt = "Confusion matrix, true classes down, predicted across"
        art = svg("confusion", alt, lambda ax: classes.matrix(ax, m), height=inches)
        said = "Rows are true classes, columns predictions; the depth of a colour is the share of the true class."
        if size < count:
            said += f" The {size} classes with most mistakes, of {count}."
        drawn.append(figure(art, "Confusion matrix", said + " Classes that are confused stand side by side."))
    support = {c["class"]: c["support"] for c in m["per_class"]}
    pairs = [[c["true"], c["predicted"], f"{c['rows']:,}", percent(c["rows"] / support[c["true"]])] for c in m["confused"][:12]]
    if pairs:
        head = ("True", "Predicted", "Rows", "Of the class")
        tables.append(table(head, pairs, "The commonest mistakes", numbers=(2, 3)))
    ordered = sorted(m["per_class"], key=lambda c: (c["f1"] is None, c["f1"]))
    per_class = [
        [c["class"], _share(c["precision"]), _share(c["recall"]), _share(c["f1"]), f"{c['support']:,}"] for c in ordered
    ]
    head = ("Class", "Precision", "Recall", "F1", "Rows")
    full = table(head, per_class, "Every class, hardest first", numbers=(1, 2, 3, 4))
    tables.append(full if count <= MOST_CLASSES else more(f"Figures of all {count} classes", full))
    drawn.append(_calibration(m))
    return section("Where it is wrong, and how sure", el("div", *drawn, class_="grid"), el("div", *tables, class_="grid"))


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def _calibration(m: dict[str, Any]) -> Html:
    error = percent(m["ece"])
    alt = f"Reliability diagram; calibration error {error}"
    drawn = svg("reliability", alt, lambda ax: classes.reliability(ax, m), height=4.1)
    said = (
        f"When the network says 80 %, it should be right 8 times in 10. On average it is {error} away from that (expected "
        f"calibration error over {len(m['reliability'])} filled bins of 15). A dot's area is its share of the rows, "
        f"a bar its 95 % interval. "
        f"Brier score {number(m['brier'])}."
    )
    return figure(drawn, "Can its probabilities be believed?", said)


def _residuals(run: Content) -> Html:
    if run.predictions is None:
        return el("p", run.no_predictions or "The predictions are not in the run folder, so residuals are not shown.")
    values, targets = (run.predictions.tensors[n].double().numpy() for n in ("values", "targets"))
    given = (values, targets, run.target)
    one = svg("against", "Predicted against true values", lambda ax: numbers.against(ax, *given), height=3.8)
    two = svg("residuals", "Histogram of errors", lambda ax: numbers.residuals(ax, *given), height=3.8)
    few = f" {numbers.DOTS:,} of {len(values):,} rows, drawn at random." if len(values) > numbers.DOTS else ""
    drawn = el(
        "div",
        figure(one, "Predicted against true", f"On the dashed line the prediction is right.{few}"),
        figure(two, "Errors", "The outermost bars hold the 1 % of rows that lie beyond them."),
        class_="grid",
    )
    return section("How far off it is", drawn)
