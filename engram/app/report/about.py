"""What the run is made of: layers and their gradients, data, the choices of the machine, how to repeat and use it."""

from __future__ import annotations

import shlex
from typing import Any

from engram.app.report import curves
from engram.app.report.content import Content
from engram.app.report.drawing import svg
from engram.app.report.html import NOTHING, Html, code, el, facts, figure, more, section, table

CLASSES = 40  # whose balance is shown
USE = """import engram

run = engram.load({})
run.predict("FILE")  # also arrays, images, DataFrames
run.model            # the plain nn.Module"""


def network(run: Content) -> Html | None:
    """Layer table and gradient norms per parameter."""
    parts: list[object] = []
    if run.layers:
        total = run.layers[-1]
        said = f"{total['parameters']:,} parameters, {_cost(total['multiply_adds'])} multiply-adds per row."
        rows = [
            [layer["name"].removeprefix("model."), layer["type"], " x ".join(map(str, layer["shape"])) or NOTHING,
             f"{layer['parameters']:,}", _cost(layer["multiply_adds"])]
            for layer in run.layers
        ]  # fmt: skip
        full = table(("Layer", "Type", "Output", "Parameters", "Multiply-adds"), rows, said, numbers=(3, 4))
        parts.append(full if len(rows) <= 24 else more(f"All {len(rows) - 1} layers", full))
        if len(rows) > 24:
            parts.insert(0, el("p", said))
    elif run.no_layers:
        parts.append(el("p", run.no_layers, class_="soft"))
    names, steps, grid = curves.layer_norms(run)
    if names:
        height = min(9.0, 1.1 + 0.155 * min(len(names), 60))
        alt = f"Gradient norm of {len(names)} parameters over steps"
        drawn = svg("layers", alt, lambda ax: curves.heat(ax, names, steps, grid), 7.4, max(height, 2.2))
        said = "A row that stays dark learns little; one that brightens late may be about to diverge. Empty: no gradient."
        whole = figure(drawn, "Gradient norm of each parameter", said)
        parts.append(Html(whole.replace("<figure>", '<figure class="wide">', 1)))
    return section("Inside the network", *parts) if parts else None


def _cost(count: int) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:,}"


def data(run: Content) -> Html:
    """What it was trained on, and what was noticed about it."""
    about = run.info["data"]
    splits = ", ".join(f"{count:,} {name}" for name, count in about["rows"].items())
    pairs: list[tuple[object, object]] = [("Rows", splits)]
    balance: dict[str, Any] = {}
    for name, value in about.get("facts", {}).items():
        if name == "classes" and isinstance(value, dict):
            balance = value
        else:
            pairs.append((_label(name), _value(value)))
    notes = [el("p", n["text"], class_="note" if n["level"] == "warning" else "soft") for n in about.get("notes", ())]
    parts: list[object] = [el("p", about["title"]), el("div", facts(pairs), class_="card"), *notes]
    if balance:
        total = max(sum(balance.values()), 1)
        most = sorted(balance.items(), key=lambda item: -item[1])
        rows = [[name, f"{count:,}", f"{100 * count / total:.1f} %"] for name, count in most[:CLASSES]]
        rest = f"; {len(most) - CLASSES} more are not shown" if len(most) > CLASSES else ""
        full = table(("Class", "Rows", "Share"), rows, f"Classes, commonest first{rest}", numbers=(1, 2))
        parts.append(more(f"The balance of {len(most)} classes", full))
    return section("The data", *parts)


def machine(run: Content) -> Html:
    """What was chosen automatically, and why."""
    m = run.info["machine"]
    pairs = [
        ("Device", m["device"]), ("Number format", m["precision"]), ("Threads", m["threads"]),
        ("Compiled", "yes" if m["compile"] else "no"),
        ("Memory layout", "channels last" if m["channels_last"] else "standard"),
        ("Why", el("ul", *[el("li", why) for why in m["why"]]) if m.get("why") else NOTHING),
    ]  # fmt: skip
    knobs = [[name, _value(value)] for name, value in _flat(run.info["knobs"])]
    return section(
        "What was chosen",
        el("div", facts(pairs), class_="card"),
        more("All knobs of the recipe", table(("Knob", "Value"), knobs, "As the run was made")),
    )


def repeat(run: Content) -> Html:
    """The exact command, versions and data; and how to predict."""
    info, where = run.info, shlex.quote(str(run.path))
    versions = ", ".join(f"{k} {v}" for k, v in info.get("versions", {}).items() if k not in ("system", "processor"))
    pairs = [
        ("Seed", info["seed"]), ("Data sha256", info["data"]["sha256"] or NOTHING), ("Versions", versions),
        ("System", info.get("versions", {}).get("system", NOTHING)),
        ("Processor", info.get("versions", {}).get("processor", NOTHING)),
        ("Begun", info.get("created", NOTHING)), ("Finished", run.result.get("finished", "not yet")),
    ]  # fmt: skip
    same = "The same seed, data, versions and device give the same weights."
    use = USE.format(repr(str(run.path)))
    return section(
        "Repeat it and use it",
        el("h3", "Train it again"), code(info.get("command", "")), el("p", same, class_="soft"),
        el("h3", "Predict"), code(f"engram predict {where} FILE"), code(use),
        el("div", facts(pairs), class_="card"),
    )  # fmt: skip


def _flat(knobs: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in knobs.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return found


def _label(name: str) -> str:
    return (name[:1].upper() + name[1:]).replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_value(v)}" for k, v in value.items()) or NOTHING
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value)) or NOTHING
    return str(value) if value not in (None, "") else NOTHING
