"""Pictures for people: grids, films and folders of what a run has made."""

from __future__ import annotations

import contextlib
import io
import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engram.checkpoint.files import reason, write_bytes
from engram.core.errors import ConfigError, RunError
from engram.inference.pictures import Sampled

READABLE = 64  # pixels: smaller pictures are shown enlarged by a whole number
GAP = 2
MOST = 1024  # pictures in one grid
FRAMES = 12  # steps of a film that has to fit on one page
ROWS = 4  # pictures of such a film
BESIDE = 255  # the grid's background


def grid(arrays: np.ndarray, columns: int = 0) -> Image.Image:
    """uint8 (B, H, W, C) as one picture, row by row; `columns` 0 makes it about square."""
    count, height, width, channels = arrays.shape
    columns = min(columns or int(np.ceil(np.sqrt(count))), count)
    rows = -(-count // columns)
    scale = max(1, -(-READABLE // max(height, width)))
    if scale > 1:
        arrays = arrays.repeat(scale, 1).repeat(scale, 2)
        height, width = height * scale, width * scale
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), BESIDE, np.uint8)
    for number, array in enumerate(arrays):
        top, left = number // columns * (height + GAP), number % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = array
    return Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet)


def captioned(arrays: np.ndarray, columns: int, captions: Sequence[str]) -> Image.Image:
    """A grid with a caption below each picture, wrapped to its width; captions beyond the pictures are left out."""
    height, width = arrays.shape[1:3]
    scale = max(1, -(-READABLE // max(height, width)))
    wide, high = max(width * scale, 84), height * scale  # wide enough for a word
    wrapped = [textwrap.wrap(text, wide // 6)[:4] for text in captions[: len(arrays)]]
    lines = max(map(len, wrapped), default=0)
    columns = min(columns or len(arrays), len(arrays))
    rows = -(-len(arrays) // columns)
    cell_w, cell_h = wide + 6, high + 12 * lines + 8
    sheet = Image.new("RGB", (columns * cell_w, rows * cell_h), (BESIDE,) * 3)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for number, array in enumerate(arrays):
        left, top = number % columns * cell_w, number // columns * cell_h
        face = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
        sheet.paste(face.resize((width * scale, high), Image.Resampling.NEAREST).convert("RGB"), (left, top))
        for line, words in enumerate(wrapped[number] if number < len(wrapped) else ()):
            pen.text((left, top + high + 1 + 12 * line), words, fill=(0, 0, 0), font=font)
    return sheet


def png(image: Image.Image) -> bytes:
    """The picture as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def write_image(image: Image.Image, target: Path, **how: Any) -> None:
    """The picture in the format of the file's ending, whole or not there. Raises OSError, RunError."""
    file = io.BytesIO()
    image.save(file, Image.registered_extensions()[target.suffix.lower()], **how)
    write_bytes(target, file.getvalue())


def write_samples(chunks: Iterator[Sampled], n: int, target: Path) -> tuple[Path, Sampled]:
    """One grid (.png, .jpg, .webp), an array (.npy, uint8 (n, H, W, C)), or a folder of PNG files; and the first chunk.

    A file is there only when it is whole. Raises ConfigError on another ending, RunError when it cannot be written.
    """
    ending = "" if target.is_dir() else target.suffix.lower()
    if ending not in ("", ".png", ".jpg", ".jpeg", ".webp", ".npy"):
        raise ConfigError(f"{target}: pictures are written as .png, .jpg, .webp (one grid), .npy, or into a folder")
    if ending not in ("", ".npy") and n > MOST:
        raise ConfigError(f"a grid holds at most {MOST:,} pictures; for n={n:,} name a folder or a .npy file")
    first: Sampled | None = None
    kept: list[np.ndarray] = []
    held: Any = None
    beside = target.parent / f"{target.name}.tmp"  # of "." too, which has no name
    try:
        (target if not ending else target.parent).mkdir(parents=True, exist_ok=True)
        for chunk in chunks:
            first = first or chunk
            if ending == ".npy":
                if held is None:
                    held = np.lib.format.open_memmap(beside, "w+", np.uint8, (n, *chunk.arrays.shape[1:]))
                held[chunk.first : chunk.first + len(chunk.arrays)] = chunk.arrays
            elif ending:
                kept.append(chunk.arrays)
            else:
                for number, image in enumerate(chunk.images, chunk.first):
                    image.save(target / f"{number:06d}.png")
        if held is not None:
            held.flush()
            os.replace(beside, target)
        if kept:
            write_image(grid(np.concatenate(kept)), target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {reason(error)}") from None
    finally:
        if held is not None:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
    assert first is not None
    return target, first


def check_film(target: Path) -> None:
    """Raises ConfigError when the file is of a kind that holds no film."""
    if target.suffix.lower() not in (".gif", ".png"):
        raise ConfigError(f"{target}: a film is written as .gif or .png")


def write_film(sampled: Sampled, target: Path) -> None:
    """How pictures come to be: a moving .gif of the whole chunk, or one .png page (steps across; below, the clean guesses).

    Raises ConfigError when the run keeps no steps or the file is of another kind.
    """
    if not sampled.steps:
        raise ConfigError("this run makes its pictures in one go: there is no film of the steps")
    check_film(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix.lower() == ".png":
            write_bytes(target, png(film_page(sampled.steps, sampled.guesses)))
            return
        frames = [grid(step).convert("P") for step in sampled.steps]
        last = [1500 if i == len(frames) - 1 else 100 for i in range(len(frames))]  # milliseconds
        write_image(frames[0], target, save_all=True, append_images=frames[1:], duration=last, loop=0)
    except OSError as error:
        raise RunError(f"cannot write {target}: {reason(error)}") from None


def film_page(steps: Sequence[np.ndarray], guesses: Sequence[np.ndarray] = (), rows: int = ROWS) -> Image.Image:
    """Steps from left to right, one row per picture; with guesses, below each row what was expected to come out."""
    places = np.unique(np.linspace(0, len(steps) - 1, min(FRAMES, len(steps))).round().astype(int))
    lines = []
    for row in range(min(rows, len(steps[0]))):
        lines.append(np.stack([steps[p][row] for p in places]))
        if guesses:
            lines.append(np.stack([guesses[min(p, len(guesses) - 1)][row] for p in places]))
    return grid(np.concatenate(lines), len(places))
