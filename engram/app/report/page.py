"""The page: what a run learned, how far it can be trusted, and how to repeat and use it."""

from __future__ import annotations

from typing import Any

from engram.app.report import curves
from engram.app.report.about import data, machine, network, repeat
from engram.app.report.content import Content
from engram.app.report.drawing import svg
from engram.app.report.html import Html, el, figure, join, section
from engram.app.report.inside import inner
from engram.app.report.looks import looks
from engram.app.report.results import outcome
from engram.app.report.style import STYLE
from engram.app.verdict import number, percent, spread

# the browser itself then refuses scripts and outside requests, whatever a class may be called
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(run: Content) -> str:
    """One self-contained HTML document."""
    footer = el("footer", f"Engram {run.info.get('versions', {}).get('engram', '')} · run {run.path.name}")
    parts = (
        _header(run),
        outcome(run),
        inner(run),
        looks(run),
        _training(run),
        network(run),
        data(run),
        machine(run),
        repeat(run),
        footer,
    )
    return document(f"{run.title} | {run.path.name}", join(parts))


def document(title: str, body: Html) -> str:
    """A whole HTML document with our style that asks for nothing from outside."""
    head = join((
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        el("title", title),
        Html(f"<style>{STYLE}</style>"),
    ))  # fmt: skip
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><main>{body}</main></body></html>\n'


def _header(run: Content) -> Html:
    warnings = [n["text"] for n in run.info["data"].get("notes", ()) if n["level"] == "warning"]
    headline = run.result.get("verdict") or "Not measured yet."
    return el(
        "header",
        el("p", run.title, class_="kind"),
        el("h1", headline),
        el("p", run.unfinished, class_="note", role="status") if run.unfinished else None,
        el("p", el("strong", "About the data: "), "; ".join(warnings), class_="note") if warnings else None,
        el("div", *[_tile(*t) for t in headlines(run)], class_="tiles"),
    )


def _tile(name: str, value: str, beside: str) -> Html:
    return el("div", el("span", name), el("b", value), el("span", beside), class_="tile")


def headlines(run: Content) -> list[tuple[str, str, str]]:
    """(name, value, what stands below it) of the figures that matter most."""
    m, found = run.metrics, []
    if run.kind == "classification":
        found.append(("Accuracy", percent(m["accuracy"]["value"]), _interval(m["accuracy"], percent)))
        found.append(("Always guessing", percent(m["baseline_accuracy"]), f"the commonest: {m['baseline_class']}"))
        found.append(("Macro F1", f"{m['macro_f1']['value']:.3f}", _interval(m["macro_f1"], "{:.3f}".format)))
        if m["roc_auc"]:
            beside = _interval(m["roc_auc"], "{:.3f}".format) or "mean over the classes"
            found.append(("ROC-AUC", f"{m['roc_auc']['value']:.3f}", beside))
        found.append(("Log loss", number(m["log_loss"]), "nats; lower is better"))
        found.append(("Calibration error", percent(m["ece"]), "said against observed"))
    elif run.kind == "regression":
        found.append(("Typical error (RMSE)", number(m["rmse"]["value"]), _interval(m["rmse"], number)))
        found.append(("Guessing the mean", number(m["baseline_rmse"]), f"RMSE of always {number(m['baseline_value'])}"))
        found.append(("Mean absolute error", number(m["mae"]["value"]), _interval(m["mae"], number)))
        median = m["median_abs_error"]
        found.append(("Half are within", number(median["value"]), _interval(median, number)))
        if m["r2"]:
            found.append(("Variance explained", percent(m["r2"]["value"]), _interval(m["r2"], percent)))
    elif run.kind == "scores":
        for name, figure in m.items():
            form = percent if run.result["forms"][name] == "percent" else number
            found.append((_title(run.result["words"][name]), form(figure["value"]), _interval(figure, form)))
    found.append(("Parameters", f"{run.info['parameters']:,}", run.info["recipe"].removeprefix("custom:")))
    if run.records:
        seconds = run.result.get("seconds") or max((r.get("seconds") or 0 for r in run.records), default=0)
        last = max(r["step"] for r in run.records)
        found.append(("Training time", duration(seconds), f"{last:,} steps, {last / run.per_epoch:.3g} epochs"))
    return found


def _title(words: str) -> str:
    return words[0].upper() + words[1:]


def _interval(figure: dict[str, Any], form: Any) -> str:
    return "" if figure["low"] is None else f"95 % interval {spread(figure, form)}"


def duration(seconds: float) -> str:
    """'4.6 s', '3 min 20 s', '2 h 05 min'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def _training(run: Content) -> Html | None:
    if not run.steps and not run.evals:
        return None
    chosen = run.result.get("chosen")
    said = "A point on a line is the mean since the point before it."
    if chosen:
        value = "" if chosen["value"] is None else f" (validation {curves.words(chosen['metric'])} {number(chosen['value'])})"
        said += f" The weights that are kept are those of step {chosen['step']:,}, epoch {chosen['epoch']:.3g}{value}."
    parts = []
    if run.series("loss") or run.evals:
        drawn = svg("loss", "Training and validation loss over optimizer steps", lambda ax: curves.loss(ax, run))
        parts.append(figure(drawn, "Loss"))
    for names in curves.metric_groups(run):
        title = ", ".join(curves.words(n) for n in names)
        alt = f"{title} on validation rows over steps"
        drawn = svg(f"metric-{len(parts)}", alt, lambda ax, n=names: curves.metrics(ax, run, n))
        parts.append(figure(drawn, title[0].upper() + title[1:]))
    if run.series("lr"):
        drawn = svg("rate", "Learning rate over steps", lambda ax: curves.rate(ax, run), height=2.6)
        parts.append(figure(drawn, "Learning rate"))
    if run.series("grad_norm"):
        drawn = svg("norm", "Norm of the gradient over steps", lambda ax: curves.norm(ax, run), height=2.6)
        parts.append(figure(drawn, "Gradient norm", "Of all parameters together, before clipping."))
    return section("How training went", el("p", said, class_="soft"), el("div", *parts, class_="grid"))
