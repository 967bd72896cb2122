"""A first look at image files: what cannot be read, which shape suits the rest, and their pixels, fingerprints and moments."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from engram.core.errors import DataError
from engram.data.decode import Header, decode, header
from engram.data.pixels import Shape

NATIVE, DEFAULT = 32, 64  # sides up to 32 pixels are kept as they are; the default for larger ones
A = TypeVar("A")
B = TypeVar("B")


@dataclass
class Survey:
    """Row i of every array is `files[i]`, a file that could be decoded."""

    shape: Shape
    rows: np.ndarray  # (n,) their numbers among the files that were asked for
    files: list[Path]
    hashes: list[bytes]  # of the decoded pixels
    moments: np.ndarray  # (n, C, 2) int64, see `moments`
    pixels: np.ndarray | None  # (n, C, H, W) uint8 when they fit the budget
    bytes: int  # of all pixels
    facts: dict[str, object]  # sizes and modes of the files
    unreadable: list[tuple[Path, str]]
    note: str  # how the shape was chosen


def survey(files: Sequence[Path], *, size: int, channels: int, budget: int) -> Survey:
    """Read every header, choose the shape, then decode every file once; pixels are kept when they fit `budget` bytes.

    Raises DataError when more than half of the files cannot be read.
    """
    headers = parallel(_try(header), files)
    _check_most(files, headers)
    known = [h for h in headers if isinstance(h, Header)]
    shape, note = choose_shape(known, size, channels)
    each = shape.channels * shape.height * shape.width
    total = each * len(known)
    rows = [row for row, head in enumerate(headers) if isinstance(head, Header)]
    pixels = np.empty((len(rows), shape.channels, shape.height, shape.width), np.uint8) if total <= budget else None

    def work(place: int) -> tuple[bytes, np.ndarray]:
        image = decode(files[rows[place]], shape)
        if pixels is not None:
            pixels[place] = image
        return hashlib.blake2b(image.tobytes(), digest_size=16).digest(), moments(image[None])

    seen = parallel(_try(work), range(len(rows)))
    results: list[object] = list(headers)
    for place, row in enumerate(rows):
        results[row] = seen[place]
    _check_most(files, results)
    good = [(place, s) for place, s in enumerate(seen) if not isinstance(s, DataError)]
    places = np.array([place for place, _ in good], np.int64)
    if pixels is not None and len(good) < len(rows):
        pixels = pixels[places]
    kept = np.array(rows, np.int64)[places]
    sizes = Counter(f"{h.width}x{h.height}" for h in known)
    return Survey(
        shape=shape,
        rows=kept,
        files=[files[row] for row in kept],
        hashes=[s[0] for _, s in good],
        moments=np.stack([s[1] for _, s in good]),
        pixels=pixels,
        bytes=each * len(good),
        facts={"sizes": dict(sizes.most_common(10)), "modes": dict(Counter(h.mode for h in known))},
        unreadable=[(files[row], str(r)) for row, r in enumerate(results) if isinstance(r, DataError)],
        note=note,
    )


def choose_shape(headers: Sequence[Header], size: int, channels: int) -> tuple[Shape, str]:
    """The shape that a network reads, and the reason. `size` and `channels` are the user's wishes, 0 for none.

    Images of one small size stay as they are. Otherwise squares of the median shorter side: native up to 32 pixels, else a
    multiple of 8, at most 64.
    """
    sizes = {(h.height, h.width) for h in headers}
    side = int(np.median([min(h.height, h.width) for h in headers]))
    height, width = next(iter(sizes))
    same = f"all are {width}x{height}" if len(sizes) == 1 else ""
    if size:
        height = width = size
    elif not (same and max(height, width) <= NATIVE):
        height = width = max(side, 8) if side <= NATIVE else min(DEFAULT, side // 8 * 8)
    channels = channels or (1 if all(h.grey for h in headers) else 3)
    # Small grey pictures are drawings and letters, where a cut-off edge changes the meaning.
    crop = "pad" if channels == 1 and max(height, width) <= NATIVE else "crop"
    if same and (height, width) in sizes:
        return Shape(channels, height, width, crop), f"all images are {width}x{height} and stay so"
    more = "" if size or side <= DEFAULT else "; size=128 or size=224 shows finer detail and costs 4 or 12 times as much"
    return Shape(
        channels, height, width, crop
    ), f"images are read at {width}x{height} ({same or f'median shorter side {side}'}){more}"


def moments(pixels: np.ndarray) -> np.ndarray:
    """(C, 2) int64: sums of the values and of their squares per channel of uint8 (B, C, H, W); exact, so that they add up."""
    value = np.arange(256, dtype=np.int64)
    counts = np.stack([np.bincount(pixels[:, c].reshape(-1), minlength=256) for c in range(pixels.shape[1])])
    return np.stack([counts @ value, counts @ value**2], 1)


def mean_std(total: np.ndarray, count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of pixels as 0..1, from `moments` of `count` pixels; std 1 where all equal."""
    mean, square = total[:, 0] / (255 * count), total[:, 1] / (255**2 * count)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(std < 1e-4, 1.0, std).tolist())


def parallel(work: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """Results in order, over all cores: Pillow decodes without holding Python's lock."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(work, items))


def _try(work: Callable[[A], B]) -> Callable[[A], B | DataError]:
    def tried(item: A) -> B | DataError:
        try:
            return work(item)
        except DataError as error:
            return error

    return tried


def _check_most(files: Sequence[Path], results: Sequence[object]) -> None:
    bad = [r for r in results if isinstance(r, DataError)]
    if 2 * len(bad) > len(files):
        raise DataError(f"{len(bad):,} of {len(files):,} images cannot be read; the first: {bad[0]}")
