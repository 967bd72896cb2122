"""The result in one sentence of plain words, and nothing better than the figures bear out."""

from __future__ import annotations

from typing import Any

OVERFIT = 3.0  # validation loss this many times the training loss is called overfitting
LEAST_GAP = 0.1  # ... when it is also this much higher: nats, or standardised squared error


def verdict(result: dict[str, Any], losses: tuple[float, float] | None = None, items: str = "rows") -> str:
    """`result` has kind, split, rows, metrics; `losses` are those of the training and validation rows at the chosen step."""
    if result["kind"] == "none":
        return "Trained, but not measured: this kind of output has no figures on unseen rows."
    which = {"test": "unseen ", "val": "validation "}.get(result["split"], "")
    items = result.get("of", items)
    rows = f"{result['rows']:,} {which}{items.removesuffix('s') if result['rows'] == 1 else items}"
    if result["split"] == "val":
        rows += " (there are no test rows, and these also chose the weights)"
    if result["kind"] == "scores":
        return _scores(result, rows) + _fit(losses) + "."
    say = _classification if result["kind"] == "classification" else _regression
    return say(result["metrics"], rows) + _fit(losses) + "."


def _scores(result: dict[str, Any], rows: str) -> str:
    name = result["headline"]
    found, form = result["metrics"][name], percent if result["forms"][name] == "percent" else number
    interval = "" if found["low"] is None else f" (95 % interval {spread(found, form)})"
    words = result["words"][name]
    beside = f"; {result['beside']}" if result["beside"] else ""
    return f"{words[0].upper()}{words[1:]} {form(found['value'])}{interval} on {rows}{beside}"


def _classification(m: dict[str, Any], rows: str) -> str:
    found, guess = m["accuracy"], m["baseline_accuracy"]
    beside = f"always guessing {m['baseline_class']!r}"
    text = f"Right on {percent(found['value'])} of {rows} (95 % interval {spread(found, percent)})"
    if found["high"] < guess:
        text += f", worse than {beside} ({percent(guess)})"
    elif found["low"] > guess:
        return f"{text}; {beside} is right on {percent(guess)}"
    else:
        text += f", which {beside} ({percent(guess)}) may match"
    classes = sum(row["support"] > 0 for row in m["per_class"])
    balanced, area = m["balanced_accuracy"], m["roc_auc"]
    if area and area["low"] is not None and area["low"] > 0.5:
        return f"{text}; it does tell the classes apart, though (ROC-AUC {area['value']:.3f})"
    if classes > 1 and balanced["low"] > 1 / classes:
        return f"{text}; it does tell the classes apart, though (balanced accuracy {percent(balanced['value'])})"
    return f"{text}: it learned nothing measurable"


def _regression(m: dict[str, Any], rows: str) -> str:
    found, guess = m["rmse"], m["baseline_rmse"]
    beside = f"always guessing the mean is off by {number(guess)}"
    interval = "" if found["low"] is None else f", 95 % interval {spread(found, number)}"
    text = f"Off by {number(found['value'])} on {rows} (RMSE{interval})"
    if found["low"] is None or found["low"] <= guess <= found["high"]:
        return f"{text}; {beside}: it learned nothing measurable"
    if found["low"] > guess:
        return f"{text}; {beside}, which is better: it learned nothing useful"
    explained = f", so it explains {percent(m['r2']['value'])} of the variance" if m["r2"] else ""
    return f"{text}; {beside}{explained}"


def _fit(losses: tuple[float, float] | None) -> str:
    if losses is None:
        return ""
    train, val = losses
    if val > OVERFIT * max(train, 0.0) and val - train > LEAST_GAP:
        return f". It overfits: loss {number(train)} on the training rows, {number(val)} on others"
    return ""


def percent(share: float) -> str:
    """0.9617 -> '96.2 %'; '100 %' and '0 %' only when they are exact."""
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    digits = 1 if 0.0005 <= share <= 0.9995 else 3
    return f"{100 * share:.{digits}f} %"


def number(value: float) -> str:
    """Three significant digits, thousands grouped: 47,300; 1.25; 0.00312."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e7 or size < 1e-4:
        return f"{value:.2e}"
    if size >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def spread(figure: dict[str, Any], form: Any) -> str:
    """'93.6 to 97.7 %': the interval of a figure, the unit said once."""
    low, high = form(figure["low"]), form(figure["high"])
    return f"{low.removesuffix(' %')} to {high}" if high.endswith(" %") else f"{low} to {high}"
