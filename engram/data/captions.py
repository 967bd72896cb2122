"""Pictures with captions: the built-in sets of shapes and of digits by name, or the user's own folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engram.core.batch import Batch
from engram.core.data import Data, Note
from engram.core.errors import ConfigError, DataError, did_you_mean
from engram.data import shapes
from engram.data.caption_fit import Scale, caption_summary, fit_spec
from engram.data.caption_spec import CaptionSpec
from engram.data.captioned import Captioned, read_captioned
from engram.data.decode import decode_files
from engram.data.digit_names import SAYINGS, digit_caption
from engram.data.images import images
from engram.data.memory import MemoryData
from engram.data.order import Draws
from engram.data.pixels import Shape
from engram.data.sources import BUILT_IN
from engram.data.split import split_rows
from engram.data.stream import StreamData
from engram.data.survey import moments, survey

SHAPES_ROWS = {"train": 12_000, "val": 960, "test": 960}
_DIGITS = {"digit_names": "digits", "mnist_names": "mnist"}


@dataclass(frozen=True)
class Ready:
    """uint8 pictures to what the network reads; `tokens` and `lengths` of all rows replace their numbers "y" where given."""

    spec: CaptionSpec
    text: dict[str, Tensor] | None = None

    def __call__(self, batch: Batch, draws: Draws | None) -> Batch:
        """x uint8 (B, C, H, W) to float32."""
        x = self.spec.normalise(batch["x"])
        if self.text is None:
            return batch | {"x": x}
        return {"x": x} | {name: t.to(x.device)[batch["y"]] for name, t in self.text.items()}


def captions(
    source: Any,
    *,
    batch: int,
    seed: int = 0,
    size: int = 0,
    channels: int = 0,
    scale: Scale = "signed",
    rows: int = 0,
    budget: int = 2 << 30,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> Data:
    """shapes, digit_names, mnist_names, a folder with a .txt beside each picture or a table of captions, or such a table.

    Batches: x float32 (B, C, H, W), tokens int64 (B, longest) padded with 0, lengths int64 (B,). `scale`: pixels as -1..1
    ("signed"), 0..1 ("unit"), or with mean 0 and deviation 1. `rows`: training rows of a built-in set, 0 for all. The other
    arguments are those of `images`. Raises DataError when pictures and captions do not match, ConfigError on a knob.
    """
    if channels not in (0, 1, 3):
        raise ConfigError(f"channels={channels} must be 1 (grey), 3 (colour) or 0 (as the images are)")
    if size < 0 or batch < 1 or rows < 0:
        raise ConfigError(f"size={size} and rows={rows} must be at least 0 and batch={batch} at least 1")
    name = str(source)
    if name == "shapes":
        return _shapes(batch, seed, size or shapes.SIDE, scale, rows)
    if name in _DIGITS:
        return _digits(name, batch, seed, size, scale, rows, fractions)
    if not isinstance(source, (str, os.PathLike)) or not os.path.exists(source):
        known = [n for n, s in BUILT_IN.items() if s.kind == "captioned"]
        near = did_you_mean(name, known)
        raise DataError(
            f"{name[:200]!r} is no folder and no built-in set of captioned pictures{near}; there are {', '.join(known)}"
        )
    return _folder(read_captioned(source), batch, seed, size, channels, scale, budget, fractions)


def _shapes(batch: int, seed: int, side: int, scale: Scale, rows: int) -> Data:
    if side < 8:
        raise ConfigError(f"size={side} is too small for shapes to be seen; use 16 or more")
    count = dict.fromkeys(SHAPES_ROWS, max(rows // 12, 16)) | {"train": rows} if rows else SHAPES_ROWS
    drawn = {split: shapes.draw(split, n, seed, side) for split, n in count.items()}
    notes = (Note("info", "no combination of shape, colour and place of the test split is in training"),)
    said = {split: d.captions for split, d in drawn.items()}
    return _memory("shapes", {s: d.pixels for s, d in drawn.items()}, said, batch, seed, scale, notes)


def _digits(name: str, batch: int, seed: int, size: int, scale: Scale, rows: int, fractions: Sequence[float]) -> Data:
    held = images(_DIGITS[name], batch=1, seed=seed, size=size, fractions=fractions)
    assert isinstance(held, MemoryData)
    rng = np.random.default_rng(seed)
    pixels: dict[str, np.ndarray] = {}
    said: dict[str, list[str]] = {}
    for split, have in held.splits.items():
        x, y = have["x"], have["y"].tolist()
        if x.is_floating_point():
            mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (held.spec.mean, held.spec.std))  # type: ignore[attr-defined]
            x = (x * std + mean).mul_(255).round_().clamp_(0, 255).byte()
        keep = min(rows, len(y)) if rows and split == "train" else len(y)
        pixels[split] = x[:keep].numpy()
        said[split] = [digit_caption(d, int(n)) for d, n in zip(y[:keep], rng.integers(len(SAYINGS), size=keep), strict=True)]
    return _memory(name, pixels, said, batch, seed, scale, tuple(n for n in held.summary.notes if "split" in n.text))


def _memory(
    name: str,
    pixels: dict[str, np.ndarray],
    said: dict[str, list[str]],
    batch: int,
    seed: int,
    scale: Scale,
    notes: tuple[Note, ...],
    digest: str = "",
    called: dict[str, list[str]] | None = None,
) -> MemoryData:
    """Pictures uint8 (N, C, H, W) and captions by split as Data."""
    depth, height, width = pixels["train"].shape[1:]
    shape = Shape(depth, height, width, "pad" if name in BUILT_IN else "crop")
    known = name if name in BUILT_IN else ""
    total = moments(pixels["train"]) if scale == "standard" else np.zeros((shape.channels, 2))
    spec, more = fit_spec(shape, said, total, len(pixels["train"]), scale, known)
    if not digest:
        content = hashlib.sha256()
        for split, x in pixels.items():
            content.update(x.tobytes() + "\n".join(said[split]).encode())
        digest = content.hexdigest()
    summary = caption_summary(name, spec, said, (*notes, *more), digest)
    summary.facts["held"] = "in memory as uint8"
    splits = {s: {"x": torch.from_numpy(x), **spec.encode_captions(said[s])} for s, x in pixels.items()}

    def raw(split: str, wanted: list[int]) -> list[dict[str, Any]]:
        return [{"image": spec.picture(splits[split]["x"][r]), "caption": said[split][r]} for r in wanted]

    names = (lambda split, wanted: [called[split][r] for r in wanted]) if called else None
    return MemoryData(spec, summary, splits, batch=batch, seed=seed, transform=Ready(spec), raw=raw, names=names)


def _folder(
    found: Captioned,
    batch: int,
    seed: int,
    size: int,
    channels: int,
    scale: Scale,
    budget: int,
    fractions: Sequence[float],
) -> Data:
    files = list(dict.fromkeys(path for pairs in found.rows.values() for path, _ in pairs))
    seen = survey(files, size=size, channels=channels, budget=budget)
    number = {path: row for row, path in enumerate(seen.files)}
    belongs = {path: split for split, pairs in found.rows.items() for path, _ in pairs}
    parts = _cut(seen.files, [belongs[p] for p in seen.files], fractions, seed)
    said: dict[str, list[str]] = {split: [] for split in ("train", "val", "test") if split in parts.values()}
    paths: dict[str, list[str]] = {split: [] for split in said}
    for path, text in (pair for pairs in found.rows.values() for pair in pairs):
        if path in number:
            said[parts[path]].append(text)
            paths[parts[path]].append(str(path))
    notes = [*found.notes, Note("info", seen.note)]
    if bad := seen.unreadable:
        shown = ", ".join(p.name for p, _ in bad[:5])
        notes.append(Note("warning", f"{len(bad):,} of {len(files):,} images cannot be read and are left out: {shown}"))
    name = found.root.resolve().name
    called = {s: [os.path.relpath(p, found.root) for p in listed] for s, listed in paths.items()}
    if seen.pixels is not None:
        held = {s: seen.pixels[[number[Path(p)] for p in listed]] for s, listed in paths.items()}
        return _memory(name, held, said, batch, seed, scale, tuple(notes), found.sha256, called)
    of_train = [number[Path(p)] for p in paths["train"]]
    spec, more = fit_spec(seen.shape, said, seen.moments[of_train].sum(0), len(of_train), scale, "")
    summary = caption_summary(name, spec, said, (*notes, *more), found.sha256)
    summary.facts["held"] = f"decoded while training ({seen.bytes:,} bytes exceed budget={budget:,})"
    starts = dict(zip(said, np.cumsum([0, *map(len, said.values())]).tolist(), strict=False))
    text = spec.encode_captions(t for listed in said.values() for t in listed)
    return StreamData(
        spec,
        summary,
        paths,
        {s: torch.arange(starts[s], starts[s] + len(listed)) for s, listed in said.items()},
        load=partial(decode_files, shape=seen.shape),
        batch=batch,
        seed=seed,
        transform=Ready(spec, text),
        raw=lambda split, wanted: [
            {"image": spec.picture(spec.decode_uint8(paths[split][r])), "caption": said[split][r]} for r in wanted
        ],
        names=lambda split, wanted: [called[split][r] for r in wanted],
    )


def _cut(files: list[Path], belongs: list[str], fractions: Sequence[float], seed: int) -> dict[Path, str]:
    """Split of every picture; what the source does not give is cut from its training pictures."""
    parts = dict(zip(files, belongs, strict=True))
    free = [f for f, split in parts.items() if split in ("", "train")]
    if "" in belongs:
        cut = split_rows(len(free), None, fractions, seed)
    elif "val" not in belongs and fractions[1]:
        cut = split_rows(len(free), None, (1 - fractions[1], fractions[1], 0.0), seed)
    else:
        return parts
    return parts | {free[r]: split for split, index in cut.items() for r in index.tolist()}
