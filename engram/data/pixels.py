"""Decoded pixels, a Pillow image or an array, brought to one shape and to 8 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from engram.core.errors import DataError

Crop = Literal["crop", "pad", "stretch"]
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


@dataclass(frozen=True)
class Shape:
    """The pixels that a network reads. `crop` says how other proportions are brought to it:

    crop: the shorter side is fitted and the middle kept; pad: the longer side is fitted and the rest filled with the median
    colour of the border; stretch: proportions are changed.
    """

    channels: int  # 1 grey, 3 red green blue
    height: int
    width: int
    crop: Crop = "crop"


def fit(image: Image.Image, shape: Shape, name: str) -> np.ndarray:
    """Crop, convert and resize a loaded image to uint8 (C, H, W). Raises DataError when its mode cannot be converted."""
    (w, h), box = image.size, None
    size = (shape.width, shape.height)
    if shape.crop == "crop":
        per_pixel = min(w / shape.width, h / shape.height)
        left, top = (w - per_pixel * shape.width) / 2, (h - per_pixel * shape.height) / 2
        outer = (math.floor(left), math.floor(top), math.ceil(w - left), math.ceil(h - top))
        image = image.crop(outer) if outer != (0, 0, w, h) else image  # before anything that costs per pixel
        left, top = left - outer[0], top - outer[1]
        box = (left, top, image.width - left, image.height - top)
    elif shape.crop == "pad":
        per_pixel = max(w / shape.width, h / shape.height)
        size = (max(1, round(w / per_pixel)), max(1, round(h / per_pixel)))
    try:
        image = _colours(image, shape.channels, name)
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR, box=box)
    except (OSError, ValueError) as error:
        raise DataError(f"{name} has colours that cannot be converted ({error}); save it as RGB") from None
    pixels = np.asarray(image).reshape(size[1], size[0], shape.channels)
    if size != (shape.width, shape.height):
        pixels = _padded(pixels, shape)
    return pixels.transpose(2, 0, 1).copy()


def _colours(image: Image.Image, channels: int, name: str) -> Image.Image:
    """As 8-bit grey or RGB; 16-bit and float pixels are scaled, transparent ones laid on white."""
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(f"{name} has pixels of {values.min()}..{values.max()}; integer images must fit 16 bits, 0..65535")
        image = Image.fromarray(to_uint8(values.astype(np.uint16)))
    elif image.mode == "F":
        image = Image.fromarray(to_uint8(np.asarray(image)))
    elif image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    wanted = "L" if channels == 1 else "RGB"
    if image.mode not in ("1", "L", "RGB", wanted):
        image = image.convert("RGB")
    return image if image.mode == wanted else image.convert(wanted)


def _padded(pixels: np.ndarray, shape: Shape) -> np.ndarray:
    """Centred on a canvas in the median colour of the border."""
    h, w, c = pixels.shape
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    canvas = np.empty((shape.height, shape.width, c), np.uint8)
    canvas[:] = np.median(border, axis=0).astype(np.uint8)
    top, left = (shape.height - h) // 2, (shape.width - w) // 2
    canvas[top : top + h, left : left + w] = pixels
    return canvas


def fit_array(pixels: np.ndarray, shape: Shape) -> np.ndarray:
    """uint8 (H, W, C) pixels, C = 1 to 4 (grey, grey + alpha, RGB, RGBA), as uint8 (C, H, W)."""
    channels = pixels.shape[2]
    if pixels.shape[:2] == (shape.height, shape.width) and channels == shape.channels:
        return pixels.transpose(2, 0, 1).copy()
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if channels == 1 else pixels))
    return fit(image, shape, "the array")


def to_uint8(array: np.ndarray) -> np.ndarray:
    """Numbers as 0..255: uint8 as it is, bool 0 or 255, uint16 over its whole range, other integers must lie in 0..255.

    Floats must lie in 0..1: whether 16.0 is white or nearly black cannot be known, so other ranges raise DataError.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return np.rint(array / 257).astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise DataError(f"an image array must hold numbers, this one holds {array.dtype}")
    if not array.size:
        return array.astype(np.uint8)
    low, high = array.min(), array.max()
    if array.dtype.kind != "f":
        if low < 0 or high > 255:
            raise DataError(f"integer images must be in 0..255, this one has {low}..{high}; scale it to uint8")
        return array.astype(np.uint8)
    if not (low >= 0 and high <= 1):  # also when NaN
        raise DataError(
            f"float images must be in 0..1, this one has {low:g}..{high:g}; divide by its full scale (255 or 16), or pass uint8"
        )
    return np.rint(array * 255).astype(np.uint8)
