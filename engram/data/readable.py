"""Images that cannot be read among others that can: the others are answered and measured, and these are counted and named."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engram.core.errors import DataError

Frames = Callable[[Any], Iterable[np.ndarray]]


def sift(frames: Frames, raws: Iterable[Any]) -> tuple[list[np.ndarray], list[int], dict[int, str]]:
    """What `frames` decodes of each raw image: the pixels, the place of each in `raws`, and {place: why} of what it refuses."""
    pixels: list[np.ndarray] = []
    places: list[int] = []
    lost: dict[int, str] = {}
    for place, raw in enumerate(raws):
        try:
            found = list(frames(raw))
        except DataError as error:
            lost[place] = str(error)
            continue
        pixels += found
        places += [place] * len(found)
    return pixels, places, lost


def readable(frames: Frames, chunks: Iterable[Sequence[tuple[Any, Any]]]) -> Iterator[tuple[Tensor, list[Any]]]:
    """Chunks of (raw image, what belongs to it) as uint8 (B, C, H, W) and what belongs to each of the images that can be read.

    Warns at the end how many cannot. Raises DataError when most cannot.
    """
    total = 0
    why: list[str] = []
    for chunk in chunks:
        pixels, places, lost = sift(frames, (raw for raw, _ in chunk))
        total, why = total + len(chunk), why + list(lost.values())
        if pixels:
            yield torch.from_numpy(np.stack(pixels)), [chunk[place][1] for place in places]
    if text := left_out(why, total):
        warnings.warn(text, stacklevel=1)  # of this line: two passes over the same images say it once


def left_out(why: Sequence[str], total: int) -> str:
    """What is said of images that cannot be read, '' when all can. Raises DataError when more than half of them cannot."""
    if not why:
        return ""
    count, first = f"{len(why):,} of {total:,} images cannot be read", f"the first: {why[0]}"
    if 2 * len(why) > total:
        raise DataError(why[0] if total == 1 else f"{count}; {first}")
    return f"{count} and are left out; {first}"
