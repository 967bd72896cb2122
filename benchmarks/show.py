"""From rounds to medians, ranges and ratios, and the table a terminal shows. Uses nothing but the standard library."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any


def summarise(rounds: Sequence[dict[str, Any]], reference: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Seconds per unit as median, best and worst; ratios to the reference; figures as mean and spread.

    `ratio` is the median of the ratios round by round, which a machine that changes its speed between rounds disturbs least;
    `ratio_best` compares the best round of each. Spread is the sample standard deviation.
    """
    if not rounds:
        return {}
    each = [r["seconds"] / r["units"] for r in rounds]
    theirs = [r["seconds"] / r["units"] for r in reference]
    summary: dict[str, Any] = {"median": statistics.median(each), "best": min(each), "worst": max(each)}
    if len(theirs) == len(each):
        summary["ratio"] = statistics.median(a / b for a, b in zip(each, theirs, strict=True))
        summary["ratio_best"] = min(each) / min(theirs)
    summary["setup"] = statistics.median(r.get("setup", 0.0) for r in rounds)
    summary["cpu"] = statistics.median(r["cpu"] / r["units"] for r in rounds)
    shares = [r["foreign"] for r in rounds if r.get("foreign") is not None]
    summary["foreign"] = max(shares) if shares else None
    figures: dict[str, Any] = {}
    for key in rounds[0].get("figures", {}):
        values = [r["figures"][key] for r in rounds]
        figures[key] = {"mean": statistics.fmean(values), "spread": statistics.stdev(values) if len(values) > 1 else 0.0}
    return summary | {"figures": figures}


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, system."""
    cores = len(os.sched_getaffinity(0)) if platform.system() == "Linux" else os.cpu_count()
    return {"processor": processor(), "cores": cores, "system": platform.platform()}


def processor() -> str:
    """The processor's model name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


HEADS = (
    "contender", "median", "range", "ratio", "of bests", "cpu", "setup", "first", "figures", "others", "threads",
    "precision, allocator",
)  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """Times per unit in the order of the rounds.

    ratio: median of the ratios round by round; of bests: best round by best round; setup: before the clock starts, per round;
    first: setup and run of the warm-up, compiling included; others: share of the cores that other processes used, at most.
    """
    rows = [HEADS, *(cells(row) for row in result["contenders"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    lines = [
        f"{result['name']}: {result['about']}",
        f"time per {result['unit']}, ratio to {result['reference']}, {result['rounds']} rounds",
        f"{result['machine']['processor']}, {result['machine']['cores']} cores; Python {result['python']}; {result['order']}",
        "",
    ]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append("")
    for row in result["contenders"]:
        if "error" in row:
            lines.append(f"{row['name']} FAILED: {row['error'].strip().splitlines()[-1]}")
        elif row.get("versions") or row.get("note"):
            made = ", ".join(f"{k} {v}" for k, v in row.get("versions", {}).items())
            lines.append(f"{row['name']}: {'; '.join(text for text in (made, row.get('note', '')) if text)}")
    return "\n".join(lines)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    s = row.get("summary")
    if not s:
        return (row["name"], "failed", *([""] * (len(HEADS) - 2)))
    figures = "  ".join(figure(name, value) for name, value in s["figures"].items())
    first = row["first"]["seconds"] + row["first"].get("setup", 0.0)
    return (
        row["name"] + (" + neighbour" if row.get("neighbour") else ""),
        duration(s["median"]),
        f"{duration(s['best'])}..{duration(s['worst'])}",
        f"{s['ratio']:.2f}" if "ratio" in s else "",
        f"{s['ratio_best']:.2f}" if "ratio_best" in s else "",
        duration(s["cpu"]),
        duration(s["setup"]),
        duration(first),
        figures,
        "" if s["foreign"] is None else f"{s['foreign']:.0%}",
        str(row.get("threads", "")),
        ", ".join(row[k] for k in ("precision", "allocator") if row.get(k)),
    )


def figure(name: str, value: dict[str, float]) -> str:
    """'accuracy 0.98 ± 0.001'."""
    return f"{name} {value['mean']:.4g}" + (f" ± {value['spread']:.2g}" if value["spread"] else "")


def duration(seconds: float) -> str:
    """Seconds in a fitting unit, three digits."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"
