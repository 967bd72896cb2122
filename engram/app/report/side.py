"""The page that compares runs: one table, and their curves over one another."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from engram.app.compare import rows_of
from engram.app.report.curves import log_scale, words
from engram.app.report.drawing import SERIES, short, svg
from engram.app.report.html import Html, el, figure, join, section, table
from engram.app.report.page import document
from engram.checkpoint.folder import RunFolder

DASHES = ("-", "--", "-.", ":")


def comparison_page(folders: list[RunFolder], found: dict[str, Any]) -> str:
    """One self-contained HTML document; `found` is what `compare` gives."""
    head, rows = rows_of(found)
    rows = [[words(what), *values] for what, *values in rows]
    curves = _curves(folders)
    title = f"{len(folders)} runs compared"
    parts = [
        el("header", el("p", title, class_="kind"), el("h1", found["pairs"][0]["sentence"])),
        el("ul", *[el("li", pair["sentence"]) for pair in found["pairs"][1:]]) if len(found["pairs"]) > 1 else None,
        section("Side by side", table(head, rows, "Knobs that differ, and figures on unseen rows with 95 % intervals")),
        section("How training went", el("div", *curves, class_="grid")) if curves else None,
    ]
    return document(title, join(parts))


def _curves(folders: list[RunFolder]) -> list[Html]:
    """A figure for each metric that at least one run recorded on its validation rows."""
    evals = {
        folder.path.name: [(r, folder.info()["plan"]["steps_per_epoch"]) for r in folder.read_metrics() if r["kind"] == "eval"]
        for folder in folders
    }
    names = dict.fromkeys(name for records in evals.values() for r, _ in records for name in r.get("metrics", {}))
    drawn = []
    for name in names:
        lines = {
            run: [(r["step"] / max(per, 1), r["metrics"][name]) for r, per in records if r["metrics"].get(name) is not None]
            for run, records in evals.items()
        }

        def draw(ax: Axes, lines: dict[str, list[tuple[float, float]]] = lines, name: str = name) -> None:
            for place, (run, points) in enumerate(lines.items()):
                if points:
                    x, y = zip(*points, strict=True)
                    colour, dash = SERIES[place % len(SERIES)], DASHES[place // len(SERIES) % len(DASHES)]
                    ax.plot(x, y, dash, color=colour, marker="o", markersize=3.5, label=short(run, 24))
            values = [y for points in lines.values() for _, y in points]
            if name == "loss" and min(values) > 0 and max(values) > 30 * min(values):
                log_scale(ax)
            ax.set(xlabel="epochs", ylabel=f"validation {words(name)}")
            ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            ax.legend()

        said = words(name)
        art = svg(f"side-{len(drawn)}", f"{said} on validation rows over epochs", draw)
        drawn.append(figure(art, said[0].upper() + said[1:]))
    return drawn
