"""After the last step: the test split is touched here, once, and what it shows is written into the run folder."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from engram.app.collect import Example, collect
from engram.app.layers import RECIPE_ERRORS, write_layers
from engram.app.scores import figures_of, write_examples
from engram.app.verdict import verdict
from engram.app.views import write_views
from engram.checkpoint.files import reason, write_json, write_tensors
from engram.checkpoint.folder import RunFolder
from engram.core.batch import Batch
from engram.core.data import Data
from engram.core.errors import DataError, EngramError, RunError
from engram.core.predictor import Predictor, Scores
from engram.core.spec import Spec
from engram.data.image_spec import ImageSpec
from engram.inference.pictures import Pictures

if TYPE_CHECKING:
    from engram.app.train import Job

LONGEST = 2000  # characters of an example's text
LARGEST = 512  # pixels: longer sides of examples are scaled down to this


def finish(job: Job, folder: RunFolder, predictor: Predictor, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Measure on the test split (the validation split when there is none), and write result.json, predictions and samples.

    The result: kind, split, rows, metrics, verdict, chosen {step, epoch, metric, value}, seconds, finished. It is written
    before the looks inside: one that fails costs a line to `say`, and no result.
    """
    split = next((s for s in ("test", "val") if job.data.size(s)), "")
    found = collect(predictor, job.data.batches(split) if split else ())
    result: dict[str, Any] = {"kind": found.kind, "split": split, "rows": found.rows, "metrics": found.metrics()}
    scores = predictor.scores(encoded_rows(job.data, split), raw_rows(job.data, split)) if split else None
    if scores:
        add_figures(result, scores)
    records = folder.read_metrics()
    chosen = chosen_step(records, job.plan.watch, job.data.steps_per_epoch)
    result["verdict"] = verdict(result, losses_at(records, chosen["step"]), items(job.data.spec))
    result["chosen"] = chosen
    if isinstance(predictor, Pictures):
        result["verbs"] = sorted(predictor.verbs)
    result["seconds"] = training_seconds(records)
    result["finished"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    if found.kind != "none":
        facts = {"split": split, "sha256": job.data.summary.sha256}
        write_tensors(folder.predictions, found.snapshot(facts))
        write_samples(folder.path / "samples", job.data, split, found.random(), found.worst())
    elif scores:
        write_examples(folder.path / "samples", scores)
    write_layers(folder, job.recipe, job.data.spec)
    write_json(folder.result, result)
    try:
        write_views(folder.path, predictor, lambda: job.data.batches(split) if split else ())
    except (EngramError, OSError, MemoryError, *RECIPE_ERRORS) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        say(f"warning: the looks inside are not complete ({why}); engram inspect {folder.path} makes them again")
    return result


def measure(
    predictor: Predictor, batches: Callable[[], Iterable[Batch]], rows: Callable[[], Iterable[list[Any]]], spec: Spec
) -> dict[str, Any]:
    """Figures on labelled data of the user's own: kind, split 'given', rows, metrics, verdict. Raises DataError if empty."""
    found = collect(predictor, batches())
    result: dict[str, Any] = {"kind": found.kind, "split": "given", "rows": found.rows, "metrics": found.metrics()}
    scores = predictor.scores(batches(), rows())
    if scores is not None and len(scores.parts):
        add_figures(result, scores)
    elif found.kind == "none":
        raise DataError("nothing to measure: the data holds no labelled rows, or this run's outputs have no figures")
    return result | {"verdict": verdict(result, items=items(spec))}


def add_figures(result: dict[str, Any], scores: Scores) -> None:
    """A predictor's own figures: the result itself, or beside those of classes and numbers."""
    own = figures_of(scores)
    if result["kind"] == "none":
        result |= own
    else:
        result["metrics"] |= own["metrics"]


def encoded_rows(data: Data, split: str) -> Iterator[Batch]:
    """The batches of a split, not asked for before they are needed."""
    yield from data.batches(split)


def raw_rows(data: Data, split: str, at_once: int = 64) -> Iterator[list[Any]]:
    """The raw rows of a split, some at a time."""
    for first in range(0, data.size(split), at_once):
        yield data.raw(split, list(range(first, min(first + at_once, data.size(split)))))


def items(spec: Spec) -> str:
    """What the rows are called."""
    return "images" if isinstance(spec, ImageSpec) else "rows"


def chosen_step(records: list[dict[str, Any]], watch: str, steps_per_epoch: int) -> dict[str, Any]:
    """Whose weights the run keeps: those of the best evaluation, or of the last step when nothing was evaluated."""
    evals = [r for r in records if r["kind"] == "eval"]
    best = [r for r in evals if r.get("best")]
    step = best[-1]["step"] if best else records[-1]["step"] if records else 0
    value = best[-1]["metrics"].get(watch) if best else None
    return {"step": step, "epoch": round(step / max(steps_per_epoch, 1), 3), "metric": watch, "value": value}


def losses_at(records: list[dict[str, Any]], step: int) -> tuple[float, float] | None:
    """Loss of the training rows (mean of the last few records up to `step`) and of the validation rows at `step`."""
    val = next((r["metrics"].get("loss") for r in records if r["kind"] == "eval" and r["step"] == step), None)
    steps = [r for r in records if r["kind"] == "step" and r["step"] <= step]
    train = [v for r in steps[-10:] if (v := next((r[k] for k in r if k.endswith("/loss")), None)) is not None]
    return (math.fsum(train) / len(train), val) if train and val is not None else None


def training_seconds(records: list[dict[str, Any]]) -> float:
    """Seconds in the loop; the clock of a resumed run starts anew, so the pieces are added up."""
    total = last = 0.0
    for record in records:
        seconds = record.get("seconds")
        if seconds is None:
            continue
        if seconds < last:
            total += last
        last = seconds
    return round(total + last, 3)


def write_samples(folder: Path, data: Data, split: str, random: list[Example], worst: list[Example]) -> None:
    """samples/examples.json {"random": [...], "worst": [...]}; pictures beside it as PNG, rows of tables inside it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        said = {
            group: [_sample(folder, f"{group}-{i:02d}", e, data, split) for i, e in enumerate(examples)]
            for group, examples in (("random", random), ("worst", worst))
        }
    except OSError as error:
        raise RunError(f"cannot write {folder}: {reason(error)}") from None
    write_json(folder / "examples.json", said)


def _sample(folder: Path, name: str, example: Example, data: Data, split: str) -> dict[str, Any]:
    entry = asdict(example) | {"name": data.names(split, [example.row])[0]}
    try:
        (raw,) = data.raw(split, [example.row])
    except LookupError:
        return entry
    if isinstance(raw, Image.Image):
        picture = raw if raw.mode in ("L", "RGB", "RGBA", "1") else raw.convert("RGB")
        if max(picture.size) > LARGEST:
            picture = picture.copy()
            picture.thumbnail((LARGEST, LARGEST))
        picture.save(folder / f"{name}.png")
        entry["picture"] = f"{name}.png"
    elif isinstance(raw, dict):
        entry["input"] = {str(k): _plain(v) for k, v in raw.items()}
    elif isinstance(raw, str):
        entry["input"] = {"text": raw[:LONGEST]}
    return entry


def _plain(value: Any) -> Any:
    """A cell as a JSON value: numpy numbers as Python's, missing as None, everything else as text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    text = str(value)
    return None if text in ("NaT", "<NA>") else text


def read_samples(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What `write_samples` wrote; empty lists when the run has none."""
    path = folder / "examples.json"
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {"random": [], "worst": []}
