"""HTML from Python values: text is escaped unless it is Html already, so no name in the data can become a tag."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

NOTHING = "-"  # where there is no value


class Html(str):
    """Text that is markup already."""


def el(tag: str, *children: object, **attributes: str | int | None) -> Html:
    """<tag attribute="...">children</tag>; `class_` writes class, `data_x` data-x; children that are None are left out."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{given}>{join(children)}</{tag}>")


def join(children: Iterable[object]) -> Html:
    """Children one after another, each escaped unless it is Html."""
    return Html("".join(c if isinstance(c, Html) else escape(str(c)) for c in children if c is not None))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], caption: str, *, numbers: Iterable[int] = ()) -> Html:
    """A table that scrolls sideways where it does not fit; the first cell of a row is its heading; `numbers` align right."""
    right = set(numbers)

    def cell(i: int, value: object, tag: str, **more: str) -> Html:
        return el(tag, value, class_="n" if i in right else None, **more)

    top = el("tr", *[cell(i, h, "th", scope="col") for i, h in enumerate(head)])
    body = [el("tr", *[cell(i, v, "td") if i else cell(i, v, "th", scope="row") for i, v in enumerate(row)]) for row in rows]
    inner = el("table", el("caption", caption), el("thead", top), el("tbody", *body))
    return el("div", inner, class_="scroll", tabindex=0, role="region", aria_label=caption)


def facts(pairs: Iterable[tuple[object, object]]) -> Html:
    """Names with their values, one below the other."""
    return el("dl", *[join((el("dt", name), el("dd", value))) for name, value in pairs])


def figure(svg: Html, title: str, caption: str = "") -> Html:
    """A figure under its title."""
    return el("figure", el("h3", title), svg, el("figcaption", caption) if caption else None)


def section(title: str, *children: object) -> Html:
    """A part of the page."""
    return el("section", el("h2", title), *children)


def more(title: str, *children: object) -> Html:
    """What is folded away until asked for."""
    return el("details", el("summary", title), *children)


def code(text: str) -> Html:
    """Commands to copy."""
    return el("pre", el("code", text), tabindex=0)


def picture(path: Path, alt: str) -> Html:
    """A PNG file inside the page, enlarged without smoothing."""
    data = base64.b64encode(path.read_bytes()).decode()
    return Html(f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}">')
