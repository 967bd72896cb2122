"""What the network does inside for one text: where it looks, what its answer hangs on, how likely each token was."""

from __future__ import annotations

import json
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from engram.app.report.content import Content
from engram.app.report.drawing import BLUE, svg
from engram.app.report.html import Html, el, figure, section, table
from engram.app.verdict import percent

SHOWN = 48  # tokens that have room for their names


def inner(run: Content) -> Html | None:
    """The section, from inside.json; None for a run without it."""
    try:
        found = json.loads((run.path / "inside.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    parts = []
    answer = repr(found["answer"]["text"])
    if found["attention"] is not None:
        alt = f"Attention of layer {found['layer']}: which token looks at which"
        drawn = svg("attention", alt, lambda ax: _map(ax, found), height=4.6)
        said = f"Layer {found['layer']} of {len(found['layers'])}, the mean of its {found['heads']} heads; each row sums to 1."
        parts.append(figure(drawn, "Where each token looks", said))
    if found["saliency"]:
        drawn = svg("saliency", f"How much the answer {answer} hangs on each token", lambda ax: _bars(ax, found), height=4.6)
        parts.append(figure(drawn, f"What {answer} hangs on", "|gradient . embedding| of the answer's log probability."))
    tail = _tokens(found) if found.get("probabilities") else None
    how = f"One text as an example. For another: engram inspect {run.path} TEXT --layer N --head N --png FILE"
    return section("Inside", el("p", how, class_="soft"), el("div", *parts, class_="grid"), tail)


def shown(token: str) -> str:
    """A token with its spaces and line ends visible."""
    return repr(token)[1:-1].replace(" ", "\u2423").replace("$", r"\$")


def _map(ax: Axes, found: dict[str, Any]) -> None:
    rows, columns = found["queries"], found["keys"]
    for y, weights in enumerate(found["attention"]):
        for x, weight in enumerate(weights):
            if weight > 0.01:
                ax.add_patch(Rectangle((x, y), 1, 1, facecolor=BLUE, alpha=min(1.0, weight**0.5), linewidth=0))
    ax.set_xlim(0, len(columns))
    ax.set_ylim(len(rows), 0)
    ax.grid(False)
    ax.set_xlabel("looks at")
    _name(ax.xaxis, columns, 90)
    _name(ax.yaxis, rows, 0)


def _bars(ax: Axes, found: dict[str, Any]) -> None:
    ax.barh(range(len(found["saliency"])), found["saliency"], color=BLUE)
    ax.set_ylim(len(found["saliency"]) - 0.5, -0.5)
    _name(ax.yaxis, found["tokens"], 0, 0.0)
    ax.grid(axis="y", visible=False)


def _name(axis: Any, names: list[str], rotation: int, middle: float = 0.5) -> None:
    if len(names) <= SHOWN:
        axis.set_ticks([i + middle for i in range(len(names))], [shown(n) for n in names], rotation=rotation, fontsize=6.5)


def _tokens(found: dict[str, Any]) -> Html:
    rows = []
    for entry in found["probabilities"][:SHOWN]:
        best = ", ".join(f"{shown(a['token'])} {percent(a['probability'])}" for a in entry["alternatives"][:3])
        rows.append([shown(entry["token"]), percent(entry["probability"]), best] if "token" in entry else ["(next)", "", best])
    return table(("Token", "Probability", "Most probable there"), rows, "How likely the network found each token", numbers=(1,))
