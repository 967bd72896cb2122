"""Alignments for people: of a text and what a run makes of it, as data and as a heat map."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from engram.app.run import Run
from engram.core.errors import ConfigError, RunError
from engram.data.pair_spec import PairSpec
from engram.data.vocabulary import END, START
from engram.inference.translate import Translator
from engram.insight.alignment import Alignment, alignment


def translator_of(run: Run) -> tuple[Translator, PairSpec]:
    """Predictor and Spec of a run that goes from text to text. Raises ConfigError for any other."""
    predictor, spec = run.predictor, run.spec
    if not isinstance(predictor, Translator) or not isinstance(spec, PairSpec):
        raise ConfigError(
            f"{run.path} is a run of {run.info['recipe']}, which does not go from text to text; engram predict uses it"
        )
    return predictor, spec


def align(
    run: Run, text: str, target: str | None = None, *, beams: int | None = None, penalty: float | None = None
) -> Alignment:
    """Where the run looks in `text` for each piece of its own translation, or of `target`. Raises DataError, ConfigError."""
    predictor, spec = translator_of(run)
    if target is None:
        ids = [START, *predictor.search([text], beams, penalty)[0][0].ids, END]
    else:
        ids = spec.target_ids(target)
    source = spec.source_ids(text)
    pieces = [spec.vocabulary.piece(i) for i in source], [spec.target_vocabulary.piece(i) for i in ids[1:]]
    try:
        return alignment(predictor.model, source, ids, pieces)
    except ValueError as error:
        raise ConfigError(f"{run.path}: {error}") from None


def draw(found: Alignment, path: str | os.PathLike[str], layer: int | None = None, head: int | None = None) -> None:
    """A PNG: a row for each target piece, a column for each source piece, dark where the weight is large.

    `layer` and `head` count from 1; None takes the mean of all. Raises ConfigError and RunError.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from engram.app.report.drawing import look

    try:
        weights = found.mean(layer and layer - 1, head and head - 1)
    except IndexError:
        layers, heads = found.weights.shape[:2]
        raise ConfigError(f"there is no layer={layer} head={head}: this run has {layers} and {heads} of them") from None
    wide, high = len(found.source), len(found.target)
    with look():
        figure = Figure(figsize=(min(2.0 + 0.32 * wide, 24), min(1.6 + 0.26 * high, 24)), layout="constrained", dpi=150)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        shown = axes.imshow(weights.numpy(), cmap="Blues", vmin=0, vmax=max(float(weights.max()), 1e-6), aspect="auto")
        axes.grid(visible=False)
        axes.set_xticks(range(wide), [_shown(p) for p in found.source], rotation=90)
        axes.set_yticks(range(high), [_shown(p) for p in found.target])
        axes.set_xlabel("read in the source")
        axes.set_ylabel("written")
        figure.colorbar(shown, ax=axes, label="attention weight")
        try:
            figure.savefig(Path(path), format="png", metadata={"Software": None})
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}") from None


def _shown(piece: str) -> str:
    """Spaces and line breaks made visible where a piece is nothing else."""
    return piece.strip() or repr(piece)[1:-1].replace(" ", "␣")


__all__: list[Any] = ["align", "draw", "translator_of"]
