"""The answer of `train --dry-run` for people."""

from __future__ import annotations

from typing import Any

from engram.app.cli.output import typed

_MOST_COLUMNS = 40  # of a table; more are counted


def in_words(found: dict[str, Any]) -> str:
    """The same for people: a few aligned lines, the layers, then every knob ('*' marks those that differ from the default)."""
    memory, seconds, data = found["memory"], found["seconds"], found["data"]
    machine = found["machine"]
    parts = ", ".join(f"{name} {_bytes(size)}" for name, size in memory.items() if name != "total" and size)
    split = ", ".join(f"{name} {count:,}" for name, count in data["rows"].items())
    lines = [f"picked    {line}" for line in found["why"]]
    lines += [f"data      {data['title']}", f"rows      {split}", *_table(data["facts"])]
    lines += [f"{note['level']:<9} {note['text']}" for note in data["notes"]]
    lines += [
        f"network   {found['recipe']}, {found['parameters']:,} parameters",
        f"machine   {machine['device']}; {'; '.join(machine['why'])}",
        f"steps     {found['steps']:,} ({found['steps_per_epoch']:,} per epoch), {found['evaluations']:,} evaluations",
        f"memory    about {_bytes(memory['total'])}: {parts}",
        f"time      about {_duration(seconds['total'])} ({seconds['step'] * 1e3:.3g} ms per step)",
        "",
    ]
    rows = [("LAYER", "TYPE", "OUTPUT", "PARAMETERS", "MULTIPLY-ADDS")]
    for layer in found["layers"]:
        shape = "x".join(map(str, layer["shape"]))
        rows.append((layer["name"], layer["type"], shape, f"{layer['parameters']:,}", f"{layer['multiply_adds']:,}"))
    lines += _aligned(rows)
    lines += ["", "KNOBS"]
    lines += [f"{'*' if key in found['changed'] else ' '} {key}={typed(value)}" for key, value in found["knobs"].items()]
    return "\n".join(lines)


def _table(facts: dict[str, Any]) -> list[str]:
    """How a table is written, and one line per input column; nothing for other data."""
    lines = [f"format    {facts['format']}"] if facts.get("format") else []
    columns = [column for column in facts.get("columns", ()) if isinstance(column, dict)]
    shown = columns[:_MOST_COLUMNS]
    width = max((len(column["name"]) for column in shown), default=0)
    for column in shown:
        missing = f"{column['missing']:,} missing" if column["missing"] else "none missing"
        lines.append(f"column    {column['name']:<{width}}  {column['kind']:<8}  {missing}, {column['distinct']:,} different")
    if more := len(columns) - len(shown):
        lines.append(f"          and {more:,} more columns")
    return lines


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = "<<<>>"
    cells = [[f"{c:{side}{w}}" for c, side, w in zip(row, sides, widths, strict=True)] for row in rows]
    return ["  ".join(row) for row in cells]


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
