"""Images of any kind to 8-bit pixels of one shape. Pillow and NumPy only, so that decoding workers start without torch."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin

from engram.core.errors import DataError
from engram.data.pixels import Shape, fit

Raw = str | Path | bytes | Image.Image

MAX_PIXELS = 1 << 26  # decoded at once: 67 million, 256 MiB at 4 bytes each
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".tga", ".ico"),
)
ORIENTATION = 0x0112  # the EXIF tag: how the camera was held
_GREY = ("1", "L", "LA", "La", "I", "F")
# What Pillow's decoders raise on damaged files; its own Image.open expects about the same list.
_DAMAGED = (
    *(OSError, SyntaxError, ValueError, IndexError, KeyError, TypeError, EOFError, OverflowError, struct.error, zlib.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)


@dataclass(frozen=True)
class Header:
    """What an image file says about itself, after turning it upright."""

    height: int
    width: int
    mode: str  # Pillow's: L, RGB, P, I;16 ...

    @property
    def grey(self) -> bool:
        """Whether it has no colours."""
        return self.mode in _GREY or self.mode.startswith("I;16")


def header(path: str | Path) -> Header:
    """Size and mode of an image file without decoding it. Raises DataError when it is not an image or too large."""
    with _Opened(path) as (image, name):
        try:
            exif = Image.Image.getexif(image)  # of PNG files the method decodes the pixels first
            turned = exif.get(ORIENTATION, 1) >= 5
        except _DAMAGED as error:
            raise _unreadable(name, error) from None
        width, height = image.size
        return Header(width, height, image.mode) if turned else Header(height, width, image.mode)


def decode(raw: Raw, shape: Shape) -> np.ndarray:
    """One image as uint8 (C, H, W): turned upright by its EXIF tag, transparent parts on white, 16 bits scaled to 8.

    Resizing is bilinear with antialiasing. Of an animation the first frame is taken. Raises DataError that names the file when
    it is missing, damaged, not an image, or needs more than MAX_PIXELS at once (JPEG is reduced while decoding, so it may have
    eight times as many).
    """
    if isinstance(raw, Image.Image):
        return fit(_loaded(raw, "the image"), shape, "the image")
    with _Opened(raw) as (image, name):
        if isinstance(image, JpegImagePlugin.JpegImageFile) and shape.crop == "crop":
            side = 2 * max(shape.height, shape.width)  # twice what is needed, so that antialiasing still has the last word
            image.draft(None, (side, side))
        return fit(_loaded(image, name), shape, name)


def decode_files(files: Sequence[str], shape: Shape) -> np.ndarray:
    """Several image files as uint8 (B, C, H, W), in order; the work of one task of a decoding process."""
    out = np.empty((len(files), shape.channels, shape.height, shape.width), np.uint8)
    for row, file in enumerate(files):
        out[row] = decode(file, shape)
    return out


class _Opened:
    """A path or bytes as an image whose header is read; closes the file."""

    def __init__(self, raw: str | Path | bytes):
        self.raw, self.name = raw, "the image" if isinstance(raw, bytes) else str(raw)

    def __enter__(self) -> tuple[Image.Image, str]:
        try:
            self.file = io.BytesIO(self.raw) if isinstance(self.raw, bytes) else open(self.raw, "rb")
        except (OSError, ValueError) as error:
            why = "is a folder, not an image" if isinstance(error, IsADirectoryError) else "cannot be opened"
            reason = error.strerror if isinstance(error, OSError) else error
            raise DataError(f"{self.name} {why} ({reason})") from None
        try:
            return self._header(), self.name
        except BaseException:
            self.file.close()
            raise

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def _header(self) -> Image.Image:
        start = self.file.read(16)
        if not start:
            raise DataError(f"{self.name} is empty (0 bytes); delete it or get it again")
        self.file.seek(0)
        try:
            # Image.open refuses large JPEGs before they can be reduced, so they are opened directly and measured here.
            jpeg = start.startswith(b"\xff\xd8\xff")
            image = JpegImagePlugin.JpegImageFile(self.file) if jpeg else Image.open(self.file)
        except Image.UnidentifiedImageError:
            raise DataError(f"{self.name} is not an image that can be read; give JPEG, PNG, WebP, GIF, BMP or TIFF") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise DataError(f"{self.name} has too many pixels (at most {MAX_PIXELS:,}); make it smaller") from None
        except _DAMAGED as error:
            raise _unreadable(self.name, error) from None
        # A progressive JPEG holds all its coefficients in memory however small it is decoded.
        limit = MAX_PIXELS * 8 if jpeg and "progressive" not in image.info else MAX_PIXELS
        if image.width * image.height > limit:
            raise DataError(f"{self.name} has {image.width:,} x {image.height:,} pixels (at most {limit:,}); make it smaller")
        return image


def _unreadable(name: str, error: Exception) -> DataError:
    reason = str(error).partition("\n")[0] or type(error).__name__
    return DataError(f"{name} cannot be read as an image, it is damaged or cut short ({reason}); get it again or delete it")


def _loaded(image: Image.Image, name: str) -> Image.Image:
    """Decoded and upright."""
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{name} has {image.width:,} x {image.height:,} pixels (at most {MAX_PIXELS:,}); make it smaller")
    if not image.width or not image.height:
        raise DataError(f"{name} has no pixels ({image.width} x {image.height})")
    try:
        image.load()
        turn = _TURNS.get(image.getexif().get(ORIENTATION, 1))
    except _DAMAGED as error:
        raise _unreadable(name, error) from None
    return image if turn is None else image.transpose(turn)


_TURNS: dict[Any, Image.Transpose] = {  # EXIF orientation -> what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
