"""Pictures of what goes on inside: the looks that the run's predictor gave, and what fixed noise became during the training."""

from __future__ import annotations

from engram.app.report.content import Content
from engram.app.report.html import Html, el, join, picture, section
from engram.app.views import read_film, read_views


def looks(run: Content) -> Html | None:
    """The sections; None for a run that has none."""
    return join(filter(None, (_views(run), _film(run)))) or None


def _views(run: Content) -> Html | None:
    found = read_views(run.path)
    if not found:
        return None
    shown = [el("figure", picture(path, title), el("figcaption", el("strong", title))) for title, path in found]
    said = f"The same as PNG and JSON: {run.path.name}/views/. Made again by: engram inspect {run.path}"
    return section("Inside", el("div", *shown, class_="grid"), el("p", said, class_="soft"))


def _film(run: Content) -> Html | None:
    frames = read_film(run.path)
    if len(frames) < 2:
        return None
    shown = [el("figure", picture(path, f"step {step}"), el("figcaption", f"step {step:,}")) for step, path in frames]
    said = "The same noise, turned into pictures by the networks of that step."
    return section("While it learned", el("p", said, class_="soft"), el("div", *shown, class_="grid"))
