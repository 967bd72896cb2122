"""Matplotlib without pyplot: figures as inline SVG whose colours follow the page, or drawn into the poster."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from engram.app.report.html import Html

INK, SOFT, LINE, PAPER = "#1b1f24", "#5b6470", "#d8dde3", "#ffffff"
BLUE, RED, GREEN, PURPLE = "#0072b2", "#c04f00", "#00795a", "#a8558a"  # Okabe and Ito, darkened for text on white
SERIES = (BLUE, RED, GREEN, PURPLE)
_VARIABLES = {
    INK: "--ink", SOFT: "--soft", LINE: "--line", PAPER: "--paper",
    BLUE: "--blue", RED: "--red", GREEN: "--green", PURPLE: "--purple",
}  # fmt: skip
_LOOK: Any = {
    "font.size": 9.5, "font.family": "sans-serif", "text.parse_math": False, "svg.fonttype": "none",
    "text.color": INK, "axes.labelcolor": SOFT, "axes.labelsize": 9.5, "axes.titlesize": 11, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.edgecolor": LINE, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "axes.unicode_minus": True, "grid.color": LINE, "grid.linewidth": 0.6,
    "xtick.color": LINE, "ytick.color": LINE, "xtick.labelcolor": SOFT, "ytick.labelcolor": SOFT, "xtick.labelsize": 9,
    "ytick.labelsize": 9, "legend.frameon": False, "legend.fontsize": 9.5, "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round", "figure.facecolor": PAPER, "axes.facecolor": "none", "savefig.facecolor": PAPER,
}  # fmt: skip


@contextmanager
def look() -> Iterator[None]:
    """Our settings for matplotlib, for the time of one drawing; names in scripts that the font lacks are no reason to warn."""
    quiet = logging.getLogger("matplotlib.font_manager")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with matplotlib.rc_context(_LOOK), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            yield
    finally:
        quiet.setLevel(level)


def svg(name: str, alt: str, draw: Callable[[Axes], None], width: float = 5.2, height: float = 3.2) -> Html:
    """What `draw` puts on an Axes, as inline SVG of width x height inches. `name` keeps ids apart; `alt` is read aloud."""
    with look():
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        with matplotlib.rc_context({"svg.hashsalt": name}):
            file = io.StringIO()
            FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(file.getvalue(), name, alt)


def _inline(text: str, name: str, alt: str) -> Html:
    """Only the <svg> element: scalable, ids made unique, colours as variables of the page, background left to the page."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None  # matplotlib always writes one
    body = re.sub(r'<g id="patch_1">.*?</g>', "", body, count=1, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(xlink:href="|url\()#', rf"\g<1>#{name}-", body)
    body = body.replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    return Html(f'<svg {box[0]} role="img" aria-label="{escape(alt)}">{body}')


def short(text: str, length: int = 18) -> str:
    """A name that fits beside an axis: its start and its end, which may be what tells it from others."""
    text = " ".join(str(text).split())
    end = length // 3
    return text if len(text) <= length else f"{text[: length - end - 1].rstrip()}…{text[-end:].lstrip()}"
