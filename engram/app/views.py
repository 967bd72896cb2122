"""Looks inside a run that its predictor gives: PNG and JSON in RUN/views/, and in the report. And the film of a training."""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from engram.app.pictures import captioned, grid, png
from engram.checkpoint.files import reason, write_bytes, write_json
from engram.core.batch import Batch
from engram.core.errors import RunError
from engram.core.predictor import Predictor, View
from engram.inference.pictures import to_uint8

FOLDER, FILM = "views", "film"
SIDE = 5.2  # inches of a drawing
COLOURS = 10


def write_views(folder: Path, predictor: Predictor, batches: Callable[[], Iterable[Batch]]) -> list[View]:
    """RUN/views/NAME.json and NAME.png of every look. Raises RunError when they cannot be written."""
    made = []
    for view in predictor.views(batches):  # each is kept before the next is asked for, which may fail
        try:
            (folder / FOLDER).mkdir(exist_ok=True)
            write_bytes(folder / FOLDER / f"{view.name}.png", draw(view))
        except OSError as error:
            raise RunError(f"cannot write {folder / FOLDER}: {reason(error)}") from None
        write_json(folder / FOLDER / f"{view.name}.json", {"title": view.title, "kind": view.kind} | view.data)
        made.append(view)
    return made


def read_views(folder: Path) -> list[tuple[str, Path]]:
    """(title, PNG) of every look that the folder holds, by name; damaged ones are left out."""
    found = []
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            title = json.loads(path.read_text("utf-8"))["title"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if path.with_suffix(".png").is_file():
            found.append((str(title), path.with_suffix(".png")))
    return found


def write_shown(folder: Path, spec: Any, shown: Tensor, step: int) -> None:
    """What the networks made of fixed noise at this step, as RUN/film/STEP.png. Raises RunError."""
    try:
        (folder / FILM).mkdir(exist_ok=True)
        write_bytes(folder / FILM / f"{step:08d}.png", png(grid(to_uint8(shown, spec).permute(0, 2, 3, 1).numpy())))
    except OSError as error:
        raise RunError(f"cannot write {folder / FILM}: {reason(error)}") from None


def read_film(folder: Path, most: int = 8) -> list[tuple[int, Path]]:
    """(step, PNG) of at most `most` frames, evenly over the training, the last among them."""
    frames = sorted((folder / FILM).glob("*.png"))
    if len(frames) > most:
        frames = [frames[round(i * (len(frames) - 1) / (most - 1))] for i in range(most)]
    return [(int(path.stem), path) for path in frames if path.stem.isdigit()]


def draw(view: View) -> bytes:
    """One look as PNG bytes."""
    if view.kind == "pictures":
        assert view.pictures is not None
        arrays, columns = view.pictures.permute(0, 2, 3, 1).numpy(), int(view.data.get("columns", 0))
        said = [str(c) for c in view.data.get("captions") or ()]
        return png(captioned(arrays, columns, said) if any(said) else grid(arrays, columns))
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from engram.app.report.drawing import look

    with look():
        figure = Figure(figsize=(SIDE, SIDE * (0.6 if view.kind in ("bars", "lines") else 0.9)), dpi=130, layout="constrained")
        ax = figure.add_subplot()
        _DRAWN[view.kind](ax, view.data)
        ax.set_title(textwrap.fill(view.title, 48))
        file = io.BytesIO()
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": "Engram"})
    return file.getvalue()


def _points(ax: Any, data: dict[str, Any]) -> None:
    """A map; one colour per label."""
    from matplotlib import colormaps

    labels = [str(label) for label in data.get("label") or [""] * len(data["x"])]
    names = sorted(set(labels), key=lambda n: (not n.isdigit(), int(n) if n.isdigit() else 0, n))
    for number, name in enumerate(names):
        chosen = [i for i, label in enumerate(labels) if label == name]
        colour = colormaps["tab10"](number % COLOURS)
        ax.scatter([data["x"][i] for i in chosen], [data["y"][i] for i in chosen], s=5, color=colour, label=name, linewidths=0)
    if 1 < len(names) <= 2 * COLOURS:
        ax.legend(markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5))
    ax.set_xlabel(data.get("xlabel", ""))
    ax.set_ylabel(data.get("ylabel", ""))


def _lines(ax: Any, data: dict[str, Any]) -> None:
    for name, values in data["series"].items():
        ax.plot(data["x"], values, label=name)
    if len(data["series"]) > 1:
        ax.legend()
    ax.set_xlabel(data.get("xlabel", ""))
    ax.set_ylabel(data.get("ylabel", ""))


def _bars(ax: Any, data: dict[str, Any]) -> None:
    names = [str(n) for n in data["names"]]
    ax.bar(range(len(names)), data["values"])
    every = max(1, -(-len(names) // 16))
    ax.set_xticks(range(0, len(names), every), names[::every], rotation=0 if max(map(len, names), default=0) < 4 else 45)
    ax.set_ylabel(data.get("ylabel", ""))


def _heat(ax: Any, data: dict[str, Any]) -> None:
    ax.imshow(data["values"], cmap="viridis", aspect="equal")
    ax.grid(False)
    for axis, names in ((ax.xaxis, data.get("columns")), (ax.yaxis, data.get("rows"))):
        tilted = 45 if axis is ax.xaxis and names and max(map(len, map(str, names))) > 3 else 0
        axis.set_ticks(range(len(names)), [str(n) for n in names], rotation=tilted) if names else axis.set_ticks([])


_DRAWN = {"points": _points, "lines": _lines, "bars": _bars, "heat": _heat}

__all__ = ["draw", "read_film", "read_views", "write_shown", "write_views"]
