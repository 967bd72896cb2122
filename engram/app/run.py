"""Run: a trained network that works without its data. `load(path)` opens one."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from engram.app.machine import choose_device, has_bf16
from engram.app.train import recipe_of, weights_of
from engram.checkpoint.folder import RunFolder
from engram.core.batch import Batch
from engram.core.errors import ConfigError, DataError, RunError
from engram.core.knobs import build, older
from engram.core.predictor import Predictor
from engram.core.recipe import Recipe
from engram.core.spec import Spec
from engram.core.task import Task
from engram.data.decode import ORIENTATION, header
from engram.data.image_spec import ImageSpec
from engram.data.readable import left_out
from engram.inference.pictures import Pictures, Sampled


class Run:
    """What a run folder holds, ready to use. The networks are read on first use.

    run.predict(x)     x: path, array, tensor, image, DataFrame, dict or a list of them
    run.evaluate(x)    the test figures, or those of labelled data of your own
    run.metrics        what was recorded while training
    run.model          the plain nn.Module
    """

    def __init__(self, folder: RunFolder, recipe: type[Recipe] | None = None, device: str = "auto"):
        self.folder = folder
        self.info: dict[str, Any] = folder.info()
        self._class, self._device = recipe, device

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Records of the training: {"kind": "step" | "eval" | ..., "step": ...}, readable while it runs."""
        return self.folder.read_metrics()

    @property
    def result(self) -> dict[str, Any]:
        """The figures on unseen data; {} while the run is not finished."""
        return self.folder.read_result()

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe with the knobs of this run."""
        cls = self._class or recipe_of(self.info["recipe"], self.folder)
        return build(cls, older(cls, self.info["knobs"]), self.info["recipe"])

    @cached_property
    def spec(self) -> Spec:
        """Shapes, names and normalisation as training saw them."""
        values = self.info.get("spec")
        known = {c.__name__: c for c in type(self.recipe).specs}
        if not isinstance(values, dict) or values.get("kind") not in known:
            raise RunError(f"{self.folder.run_json} is damaged or made by a newer version: its spec is of an unknown kind")
        try:
            return known[values["kind"]].from_json(values)
        except (TypeError, ValueError) as error:
            raise RunError(f"{self.folder.run_json} is damaged: its spec does not fit ({error})") from None

    @cached_property
    def task(self) -> Task:
        """Networks and objective with the chosen weights, in eval mode."""
        try:
            task = self.recipe.make_task(self.spec)
        except ValueError as error:  # a layer that refuses its size or name
            raise RunError(f"{self.path} cannot be built by this version: {error}; train it again") from None
        saved = weights_of(self.folder.read_weights())
        live = task.state_dict()
        if live.keys() != saved.keys() or any(live[n].shape != saved[n].shape for n in live):
            raise RunError(
                f"the weights in {self.path} do not fit the networks of its run.json: a version with other networks made it, "
                "or one of the two is damaged; train it again"
            )
        task.load_state_dict(saved)
        return task.to(choose_device(self._device)).eval()

    @property
    def model(self) -> nn.Module:
        """The network as a plain nn.Module: the first one that the task holds."""
        return next(self.task.children())

    @cached_property
    def predictor(self) -> Predictor:
        """The trained network in use, in the number format it was trained in where this machine has it."""
        predictor = self.recipe.make_predictor(self.task, self.spec)
        machine = self.info["machine"]
        device = next(self.task.parameters()).device
        predictor.tune(bf16=machine["precision"] == "bf16" and has_bf16(device), channels_last=machine["channels_last"])
        return predictor

    def predict(self, input: Any = None, **inputs: Any) -> dict[str, list[Any]] | Iterator[dict[str, list[Any]]]:
        """Predictions as plain Python lists, one entry per row, under the names that the predictor gives."""
        if input is not None:
            inputs = {next(iter(self.predictor.takes)): input} | inputs
        return self.predictor(**inputs)

    def stream(self, source: Any, rows: int = 256) -> Iterator[dict[str, Any]]:
        """One dict per row of a file, folder or '-' (standard input), read and predicted `rows` at a time.

        A picture that cannot be read gives {"input", "unreadable": why}. Raises DataError, at the end, when most cannot.
        """
        takes = next(iter(self.predictor.takes))
        total, lost = 0, []
        for names, chunk in self.spec.read(source, rows):
            bad: dict[int, str] = {}
            try:
                out = self.predictor(**{takes: chunk})
            except DataError:
                bad = self.spec.unreadable(chunk) if isinstance(self.spec, ImageSpec) else {}
                if not bad:
                    raise
                good = [raw for place, raw in enumerate(chunk) if place not in bad]
                out = self.predictor(**{takes: good}) if good else {}
            assert isinstance(out, dict)
            answers = itertools.count()
            for place, name in enumerate(names):
                if place in bad:
                    yield {"input": name, "unreadable": bad[place]}
                else:
                    number = next(answers)
                    yield {"input": name} | {key: values[number] for key, values in out.items()}
            total, lost = total + len(names), lost + list(bad.values())
        left_out(lost, total)

    def sample(
        self,
        n: int = 16,
        *,
        seed: int = 0,
        chunk: int = 64,
        image: Any = None,
        mask: Any = None,
        trajectory: bool = False,
        **wishes: Any,
    ) -> Iterator[Sampled]:
        """`n` new pictures in chunks: .arrays uint8 (B, H, W, C) and .images (Pillow); picture i of a seed is always the same.

        `wishes`: label, prompt, negative, steps, guidance, sampler, temperature, top_k, strength, as the run understands them;
        `image` and `mask` (white = make anew) are anything that `predict` takes; the mask has the proportions of the image, or
        those of the run's pictures. Raises ConfigError and DataError at once.
        """
        predictor = self.predictor
        if not isinstance(predictor, Pictures):
            raise ConfigError(f"{self.path} is a {self.info['recipe']} run, which makes no pictures")
        spec: Any = self.spec
        if image is not None:
            wishes["image"] = _only(spec.encode(image)["x"], image)
        if mask is not None:
            grey = dataclasses.replace(spec, mean=(0.0,) * spec.channels, std=(1.0,) * spec.channels)
            wishes["mask"] = _only(grey.encode(mask)["x"], mask).mean(0) > 0.5
            if image is not None and spec.crop != "stretch":  # which fits any proportions alike
                _check_covers(_size(mask), _size(image), (spec.height, spec.width))
        return predictor.sample(n, seed=seed, chunk=chunk, keep_steps=trajectory, **wishes)

    def evaluate(self, source: Any = None) -> dict[str, Any]:
        """Figures with 95 % intervals: of the test split as recorded at the end of training, or of labelled data of your own.

        `source` is a path or DataFrame in the form that the run was trained on. Raises DataError when it has no labels.
        """
        from engram.app.finish import measure

        if source is None:
            if not self.result:
                raise RunError(f"{self.path} is not finished, so it has no test figures; engram resume {self.path}")
            return self.result
        return measure(self.predictor, lambda: self._labelled(source), lambda: self.spec.answered(source), self.spec)

    def _labelled(self, source: Any) -> Iterator[Batch]:
        some = False
        for batch in self.spec.labelled(source):
            some = True
            yield batch
        if not some:
            raise DataError(f"{source} holds no labelled rows")

    def report(self) -> Path:
        """Write report.html and report.png again from what the folder holds; the path of the page."""
        from engram.app.report import write_report

        return write_report(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {self.info['recipe']} on {self.info['data']['title']})"


def _only(x: Any, given: Any) -> Any:
    """The one picture of a batch of one."""
    if len(x) != 1:
        raise DataError(f"one picture was expected, {len(x)} were given")
    return x[0]


def _size(raw: Any) -> tuple[int, int]:
    """Height and width of the one picture in what `ImageSpec.encode` takes."""
    if isinstance(raw, (list, tuple)):
        return _size(raw[0])
    if isinstance(raw, Image.Image):
        turned = raw.getexif().get(ORIENTATION, 1) >= 5
        return (raw.width, raw.height) if turned else (raw.height, raw.width)
    if isinstance(raw, (str, os.PathLike, bytes)):
        told = header(raw)  # type: ignore[arg-type]
        return told.height, told.width
    shape = tuple(raw.shape)
    if isinstance(raw, np.ndarray):  # (H, W), (H, W, C), (1, H, W) or (1, H, W, C)
        return shape[:2] if len(shape) == 2 or (len(shape) == 3 and shape[2] <= 4) else shape[1:3]
    return shape[-2:]


def _check_covers(mask: tuple[int, int], image: tuple[int, int], own: tuple[int, int]) -> None:
    """Raises DataError when a mask has other proportions than the picture and than those of the run, by a pixel or more: each
    is fitted by its own, so it would mark other places than were meant."""
    if not any(abs(mask[0] * w / h - mask[1]) < 1 or abs(mask[1] * h / w - mask[0]) < 1 for h, w in (image, own)):
        sizes = [f"{w} x {h}" for h, w in (mask, image, own)]
        raise DataError(
            f"the mask of {sizes[0]} pixels has other proportions than the picture of {sizes[1]} and than the {sizes[2]} of "
            "this run, so it would not lie where it was drawn; give a mask of the picture's size"
        )


def load(path: str | os.PathLike[str], *, recipe: type[Recipe] | None = None, device: str = "auto") -> Run:
    """Open a run folder. No code in it is run and its data is not needed; a custom recipe's class is passed in.

    Raises RunError when there is no run, it is damaged, or a newer version made it.
    """
    return Run(RunFolder.open(path), recipe, device)
