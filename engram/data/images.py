"""Images with classes: the built-in sets, or the user's own folder with a folder per class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from engram.core.batch import Batch
from engram.core.data import Data, Note, Summary
from engram.core.errors import ConfigError, DataError, did_you_mean
from engram.data.augment import DRAWS, Augment
from engram.data.decode import decode_files
from engram.data.folders import Listing, list_any, list_folder
from engram.data.idx import read_idx
from engram.data.image_notes import class_names, folder_notes, image_summary
from engram.data.image_spec import ImageSpec
from engram.data.memory import MemoryData, plain
from engram.data.order import Draws
from engram.data.pixels import Shape, fit_array
from engram.data.sources import BUILT_IN, locate
from engram.data.split import split_rows
from engram.data.stream import StreamData
from engram.data.survey import mean_std, moments, survey

Scale = Literal["standard", "unit", "signed"]
FLOATS = 512 << 20  # bytes up to which images that are not augmented are kept as prepared float32
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@dataclass(frozen=True)
class Prepare:
    """uint8 batches to what the network reads: augmented (training only), then normalised."""

    spec: ImageSpec
    augment: Augment

    def __call__(self, batch: Batch, draws: Draws | None) -> Batch:
        """x uint8 (B, C, H, W) to float32; other entries as they are."""
        x = batch["x"]
        if draws is not None and self.augment:
            x = self.augment(x, draws.uniform(DRAWS))
        return batch | {"x": self.spec.normalise(x)}


def images(
    source: Any,
    *,
    batch: int,
    seed: int = 0,
    size: int = 0,
    channels: int = 0,
    augment: Augment | None = None,
    budget: int = 2 << 30,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    scale: Scale = "standard",
    labels: bool = True,
) -> Data:
    """digits, mnist, fashion_mnist, or a folder: one per class, or these inside train/, val/ and test/.

    Batches: x float32 (B, C, H, W), y int64 (B,). `size`: side in pixels, `channels`: 1 or 3; 0 chooses from the images.
    Own folders whose pixels exceed `budget` bytes are decoded by worker processes while training; all else is kept in memory.
    `scale`: what the network reads: mean 0 and deviation 1, "unit" 0..1, or "signed" -1..1. `labels`: False takes any folder of
    images; without classes `spec.classes` is () and batches have no y.
    Splits that the source does not have are cut from its training images by `fractions` (train, val, test), class by class.
    Raises DataError when the images cannot be read or would teach nothing, ConfigError on a knob.
    """
    if channels not in (0, 1, 3):
        raise ConfigError(f"channels={channels} must be 1 (grey), 3 (colour) or 0 (as the images are)")
    if size < 0 or batch < 1:
        raise ConfigError(f"size={size} must be at least 0 and batch={batch} at least 1")
    augment = augment or Augment()
    name = str(source)
    if name in BUILT_IN and BUILT_IN[name].kind == "image":
        return _built_in(name, batch, seed, size, channels, augment, fractions, scale)
    if not isinstance(source, (str, os.PathLike)) or not os.path.exists(source):
        if name in BUILT_IN and BUILT_IN[name].kind == "captioned":
            raise DataError(f"{name} are pictures with captions: engram train latent_diffusion data={name}, or image_gpt")
        known = [n for n, s in BUILT_IN.items() if s.kind == "image"]
        near = did_you_mean(name, known)
        raise DataError(f"{name[:200]!r} is no folder and no built-in set of images{near}; there are {', '.join(known)}")
    listing = list_folder(name) if labels else list_any(name)
    least = 2 if labels else 1
    return _folder(listing, batch, seed, size, channels, augment, budget, fractions, scale, least)


def _built_in(
    name: str, batch: int, seed: int, size: int, channels: int, augment: Augment, fractions: Sequence[float], scale: Scale
) -> Data:
    if name == "digits":
        from sklearn.datasets import load_digits

        loaded: Any = load_digits()
        pixels = np.rint(loaded.images * (255 / 16)).astype(np.uint8)  # given as 0..16
        labels, tests = loaded.target.astype(np.int64), 0
    else:
        files = locate(name)
        parts = [_idx_pair(files, part) for part in ("train", "t10k")]
        pixels, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
        tests = len(parts[1][0])
    sha256 = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    height, width = (size, size) if size else pixels.shape[1:]
    shape = Shape(channels or 1, height, width, "pad")
    if shape.channels == 1 and (height, width) == pixels.shape[1:]:
        pixels = pixels[:, None]
    else:
        pixels = np.stack([fit_array(image[:, :, None], shape) for image in pixels])
    train = np.arange(len(labels) - tests)
    given = {"train": train, "test": np.arange(len(train), len(labels))} if tests else {"": train}
    rows = _split(labels, given, fractions, seed)
    classes = _CLOTHES if name == "fashion_mnist" else tuple("0123456789")
    spec = _spec(shape, classes, labels[rows["train"]], moments(pixels[rows["train"]]), scale)
    notes = (Note("info", "the test split is the official one"),) if tests else ()
    return _memory(spec, image_summary(name, spec, rows, labels, sha256, notes), pixels, labels, rows, batch, seed, augment)


def _idx_pair(files: dict[str, Path], part: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = (read_idx(files[f"{part}-{kind}-ubyte.gz"], d) for kind, d in (("images-idx3", 3), ("labels-idx1", 1)))
    if len(images) != len(labels) or not len(images) or labels.max() > 9:
        raise DataError(f"{part} has {len(images):,} images and {len(labels):,} labels of 0 to 9; get the files again")
    return images, labels.astype(np.int64)


def _folder(
    listing: Listing,
    batch: int,
    seed: int,
    size: int,
    channels: int,
    augment: Augment,
    budget: int,
    fractions: Sequence[float],
    scale: Scale,
    least: int,
) -> Data:
    files = [path for paths in listing.files.values() for path in paths]
    names = np.array([label for labels in listing.labels.values() for label in labels], dtype=object)
    belongs = np.array([split for split, paths in listing.files.items() for _ in paths], dtype=object)
    seen = survey(files, size=size, channels=channels, budget=budget)
    names, belongs = names[seen.rows], belongs[seen.rows]
    known = any(names)
    classes, notes = class_names(listing, names, belongs, least) if known else ((), [])
    labels = np.array([classes.index(name) if known else 0 for name in names], np.int64)
    given = {split: np.flatnonzero(belongs == split) for split in listing.files}
    rows = _split(labels, given, fractions, seed)
    notes += folder_notes(listing, seen, rows, labels)
    total = seen.moments[rows["train"]].sum(0)
    spec = _spec(seen.shape, classes, labels[rows["train"]], total, scale)
    summary = image_summary(listing.root.resolve().name, spec, rows, labels, listing.sha256(), notes)
    summary.facts.update(seen.facts)
    summary.facts["unreadable"] = [listing.name(path) for path, _ in seen.unreadable[:100]]
    called = {split: [listing.name(seen.files[r]) for r in index] for split, index in rows.items()}
    if seen.pixels is not None:
        return _memory(spec, summary, seen.pixels, labels, rows, batch, seed, augment, called)
    summary.facts["held"] = f"decoded while training ({seen.bytes:,} bytes exceed budget={budget:,})"
    paths = {split: [str(seen.files[r]) for r in index] for split, index in rows.items()}
    return StreamData(
        spec,
        summary,
        paths,
        {split: torch.from_numpy(labels[index]) for split, index in rows.items()} if known else None,
        load=partial(decode_files, shape=seen.shape),
        batch=batch,
        seed=seed,
        transform=Prepare(spec, augment),
        raw=lambda split, wanted: [spec.picture(spec.decode_uint8(paths[split][r])) for r in wanted],
        names=lambda split, wanted: [called[split][r] for r in wanted],
    )


def _memory(
    spec: ImageSpec,
    summary: Summary,
    pixels: np.ndarray,
    labels: np.ndarray,
    rows: dict[str, np.ndarray],
    batch: int,
    seed: int,
    augment: Augment,
    called: dict[str, list[str]] | None = None,
) -> MemoryData:
    """One copy per split; as float32 when nothing else is to be done to them and they are few."""
    prepared = not augment and 4 * pixels.nbytes < FLOATS
    summary.facts["held"] = f"in memory as {'float32' if prepared else 'uint8'}"
    splits: dict[str, Batch] = {}
    for split, index in rows.items():
        x = torch.from_numpy(pixels[index])
        splits[split] = {"x": spec.normalise(x) if prepared else x}
        if spec.classes:
            splits[split]["y"] = torch.from_numpy(labels[index])

    def raw(split: str, wanted: list[int]) -> list[Image.Image]:
        return [spec.picture(data.splits[split]["x"][r]) for r in wanted]

    data = MemoryData(
        spec,
        summary,
        splits,
        batch=batch,
        seed=seed,
        transform=plain if prepared else Prepare(spec, augment),
        raw=raw,
        names=(lambda split, wanted: [called[split][r] for r in wanted]) if called else None,
    )
    return data


def _split(labels: np.ndarray, given: dict[str, np.ndarray], fractions: Sequence[float], seed: int) -> dict[str, np.ndarray]:
    """Rows of each split; what the source does not give is cut from its training rows. Splits without rows are left out."""
    whole = given.get("", np.empty(0, np.int64))
    if len(whole):
        cut = split_rows(len(whole), labels[whole], fractions, seed)
        return {split: whole[index] for split, index in cut.items() if len(index)}
    rows = {split: index for split, index in given.items() if len(index)}
    if "val" not in rows and fractions[1]:
        train = rows["train"]
        cut = split_rows(len(train), labels[train], (1 - fractions[1], fractions[1], 0.0), seed)
        rows |= {split: train[index] for split, index in cut.items() if len(index)}
    return {split: rows[split] for split in ("train", "val", "test") if split in rows}


def _spec(shape: Shape, classes: tuple[str, ...], train: np.ndarray, total: np.ndarray, scale: Scale) -> ImageSpec:
    mean, std = mean_std(total, len(train) * shape.height * shape.width)
    if scale != "standard":
        mean, std = ((value,) * shape.channels for value in ((0.0, 1.0) if scale == "unit" else (0.5, 0.5)))
    counts = np.bincount(train, minlength=len(classes)).tolist() if classes else ()
    return ImageSpec(
        channels=shape.channels,
        height=shape.height,
        width=shape.width,
        mean=mean,
        std=std,
        classes=classes,
        class_counts=tuple(counts),
        crop=shape.crop,
    )
