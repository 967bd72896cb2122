"""How good a run's pictures are: samples beside the test pictures of its data, through the eyes of a judge.

Everything is measured twice, on samples and on as many real training pictures: what real pictures reach is the mark to aim at,
since all these figures also depend on how many pictures there are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engram.app.judge import MOST, Judge, gather, learn, plain_data, right
from engram.app.run import Run
from engram.checkpoint.files import write_json
from engram.core.batch import fold
from engram.core.data import Data
from engram.core.errors import ConfigError, DataError, EngramError
from engram.core.predictor import Predictor
from engram.inference.pictures import Pictures
from engram.insight.fidelity import density_coverage, fid, kid, modes, precision_recall
from engram.insight.intervals import wilson

LEAST = 20  # pictures: below, no figure means anything
Say = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """Pictures uint8 (N, C, H, W), and the class (N,) that was asked of each; -1 where none was asked."""

    x: Tensor
    asked: Tensor


def fidelity(
    run: Run,
    judge: Callable[[Data], Judge],
    *,
    n: int = 1000,
    train_on: int = 0,
    seed: int = 0,
    chunk: int = 64,
    say: Say = lambda _: None,
    **wishes: Any,
) -> dict[str, Any]:
    """FID, KID, precision, recall, density, coverage and classes of `n` samples, as JSON values; written to fidelity.json.

    `train_on` > 0: also a classifier trained on so many samples only, tested on real pictures. `wishes` go to `run.sample`.
    Raises DataError when the data of the run cannot be had or is too little, ConfigError on what the run does not understand.
    """
    if n < LEAST or (train_on and train_on < LEAST):
        raise ConfigError(f"n={n} and train_on_samples={train_on} must be at least {LEAST}: fewer pictures measure nothing")
    predictor = sampler(run, wishes)
    data = data_of(run)
    split = "test" if data.size("test") else "val"
    begun = time.perf_counter()
    real, labels = gather(data, split, MOST)
    if len(real) < LEAST:
        raise DataError(f"the {split} split has {len(real)} pictures, too few to measure samples; give the run more data")
    seeing = judge(data)
    say(f"drawing {max(n, train_on):,} pictures")
    made = draw(run, predictor, data, max(n, train_on), seed, chunk, wishes)
    train, train_labels = gather(data, "train", max(n, train_on))
    parts = [seeing.see(x) for x in (real, made.x, train)]
    (of_real, _), (of_made, guessed), (of_train, _) = parts
    result: dict[str, Any] = {
        "n": n, "seed": seed, "wishes": wishes, "split": split, "real": len(real), "judge": seeing.about,
        "samples": figures(of_real, of_made[:n]), "training": figures(of_real, of_train[:n]),
    }  # fmt: skip
    if guessed is not None:
        result["modes"] = _modes(seeing, parts[0][1], guessed[:n])
        result["asked"] = _asked(seeing, predictor, made.asked[:n], guessed[:n])
    if train_on:
        say(f"training a classifier on {train_on:,} samples, and one on as many real pictures")
        result["train_on_samples"] = train_on_samples(
            data, made, guessed, seeing, (real, labels), (train, train_labels), train_on
        )
    result["seconds"] = round(time.perf_counter() - begun, 1)
    write_json(run.path / "fidelity.json", result)
    return result


def figures(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Of features (N, D) and (M, D). The figures by neighbours take as many of each, the real ones drawn with a fixed seed."""
    mean, deviation = kid(real, fake, subsets=50)
    few = real[torch.randperm(len(real), generator=torch.Generator().manual_seed(0))[: len(fake)]]
    precision, recall = precision_recall(few, fake[: len(few)])
    density, coverage = density_coverage(few, fake[: len(few)])
    return {
        "fid": fid(real, fake), "kid": mean, "kid_std": deviation, "precision": precision, "recall": recall,
        "density": density, "coverage": coverage,
    }  # fmt: skip


def draw(run: Run, predictor: Pictures, data: Data, n: int, seed: int, chunk: int, wishes: dict[str, Any]) -> Made:
    """`n` samples; of a run that takes a class, classes as often as in training, in mixed order."""
    spec: Any = data.spec
    if "label" in wishes or not spec.classes or not takes_class(predictor, spec.classes[0]):
        label = wishes.get("label")
        known = list(spec.classes).index(label) if label in spec.classes else -1
        x = _pictures(run, n, seed, chunk, wishes)
        return Made(x, torch.full((n,), known))
    counts = torch.tensor(spec.class_counts or [1] * len(spec.classes)).double()
    ends = (counts.cumsum(0) / counts.sum() * n).round().long()
    sizes = ends.diff(prepend=torch.zeros(1, dtype=torch.int64))
    x = torch.cat(
        [
            _pictures(run, size, fold(seed, "class", i), chunk, wishes | {"label": name})
            for i, (name, size) in enumerate(zip(spec.classes, sizes.tolist(), strict=True))
            if size
        ]
    )
    mixed = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return Made(x[mixed], torch.arange(len(sizes)).repeat_interleave(sizes)[mixed])


def train_on_samples(
    data: Data,
    made: Made,
    guessed: Tensor | None,
    judge: Judge,
    real: tuple[Tensor, Tensor | None],
    train: tuple[Tensor, Tensor | None],
    rows: int,
) -> dict[str, Any]:
    """Accuracy on the real test pictures of the same classifier, trained on samples only and on as many real pictures only.

    Samples that were not asked by class get the class that the judge sees. Raises DataError for data without classes.
    """
    spec: Any = data.spec
    x_test, y_test = real
    x, y = train
    labels, by = made.asked, "the class that was asked"
    if bool((labels < 0).any()):
        if guessed is None:
            raise DataError("a classifier needs classes, and neither the run nor its judge knows any")
        names = [list(spec.classes).index(c) if c in spec.classes else -1 for c in judge.classes]
        labels, by = torch.tensor(names)[guessed], "the judge"
    if y is None or y_test is None or bool((labels < 0).any()):
        raise DataError("a classifier needs classes, and the data of this run has none, or others than the judge")
    found: dict[str, Any] = {"rows": rows, "labels": by, "tested": len(x_test)}
    for name, (some, of) in {"samples": (made.x, labels), "training": (x, y)}.items():
        some, of = some[:rows], of[:rows]
        hits = right(learn(some, of, len(spec.classes)), x_test, y_test)
        low, high = wilson(hits, len(x_test))
        found[name] = {"value": hits / len(x_test), "low": low, "high": high, "rows": len(some)}
    return found


def sampler(run: Run, wishes: dict[str, Any]) -> Pictures:
    """The predictor of a run that makes pictures. Raises ConfigError for any other, and on wishes it does not understand."""
    predictor: Predictor = run.predictor
    if not isinstance(predictor, Pictures) or "sample" not in predictor.verbs:
        raise ConfigError(f"{run.path} is a {run.info['recipe']} run, which makes no new pictures; fidelity measures those")
    predictor.ask(**wishes)
    return predictor


def takes_class(predictor: Pictures, name: str) -> bool:
    """Whether samples can be asked by class: a network that could learn classes may not have been told them."""
    try:
        predictor.ask(label=name)
    except EngramError:
        return False
    return True


def data_of(run: Run) -> Data:
    """The data that the run was trained on, not augmented. Raises DataError that says that it is needed here."""
    try:
        return plain_data(run.recipe)
    except EngramError as error:
        raise DataError(f"samples are measured beside the data of {run.path}, which cannot be read: {error}") from None


def _pictures(run: Run, n: int, seed: int, chunk: int, wishes: dict[str, Any]) -> Tensor:
    """uint8 (n, C, H, W)."""
    arrays = [part.arrays for part in run.sample(n, seed=seed, chunk=chunk, **wishes)]
    return torch.from_numpy(np.concatenate(arrays)).permute(0, 3, 1, 2).contiguous()


def _modes(judge: Judge, of_real: Tensor | None, of_made: Tensor) -> dict[str, Any]:
    """Which classes there are among the samples."""
    assert of_real is not None
    count = len(judge.classes)
    shares = torch.bincount(of_real, minlength=count).double() / len(of_real)
    found = modes(of_made, shares)
    rows = zip(judge.classes, shares.tolist(), found.shares, strict=True)
    return {
        "coverage": found.coverage, "entropy": found.entropy, "even": math.log(count),
        "classes": [{"class": name, "real": real, "samples": made} for name, real, made in rows],
    }  # fmt: skip


def _asked(judge: Judge, predictor: Pictures, asked: Tensor, guessed: Tensor) -> dict[str, Any] | None:
    """How often the judge sees the class that was asked; None when none was."""
    spec: Any = predictor.spec
    if bool((asked < 0).any()) or not set(spec.classes) <= set(judge.classes):
        return None
    place = torch.tensor([judge.classes.index(name) for name in spec.classes])
    hits = int((place[asked] == guessed).sum())
    low, high = wilson(hits, len(asked))
    return {"value": hits / len(asked), "low": low, "high": high}
