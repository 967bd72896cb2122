"""ImageSpec: what a network that reads images needs to know about them, and raw images of any kind to its input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engram.core.batch import Batch
from engram.core.errors import DataError, did_you_mean
from engram.core.spec import Spec
from engram.data.decode import decode
from engram.data.folders import find_images, list_folder
from engram.data.pixels import Crop, Shape, fit_array, to_uint8
from engram.data.readable import readable, sift

_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF87a", b"GIF89a", b"RIFF", b"II*\0", b"MM\0*")


@dataclass(frozen=True, kw_only=True)
class ImageSpec(Spec):
    """Images of one shape with their classes. Batches: x float32 (B, C, H, W), normalised; y int64 (B,) where known."""

    channels: int  # 1 grey, 3 red green blue
    height: int
    width: int
    mean: tuple[float, ...]  # per channel over the training images, pixels as 0..1
    std: tuple[float, ...]
    classes: tuple[str, ...]
    class_counts: tuple[int, ...] = ()  # training images of each class
    crop: Crop = "crop"  # how other proportions are brought to height x width: see pixels.Shape

    @property
    def shape(self) -> Shape:
        """What decoding needs to know."""
        return Shape(self.channels, self.height, self.width, self.crop)

    def encode(self, raw: Any) -> Batch:
        """{"x": float32 (B, C, H, W)}, normalised, of one image or a list of them, mixed as you like:

        - a path, encoded bytes, or a Pillow image of any size and mode;
        - a NumPy array (H, W), (H, W, C), (B, H, W) or (B, H, W, C), C = 1 to 4; three dimensions whose last is 1 to 4 are one
          image;
        - a torch tensor (H, W), (C, H, W) or (B, C, H, W).

        Arrays: uint8 is 0..255, uint16 its whole range, bool black and white, other integers must lie in 0..255, floats in
        0..1. Every input passes through 8 bits, as the training images did. Raises DataError.
        """
        return {"x": self.normalise(torch.from_numpy(np.stack(list(self._frames(raw)))))}

    def decode_uint8(self, raw: Any) -> Tensor:
        """One image as uint8 (C, H, W), as `encode` sees it before normalising. Raises DataError, also on several images."""
        frames = list(self._frames(raw))
        if len(frames) != 1:
            raise DataError(f"one image was expected, {len(frames)} were given; pass them one by one")
        return torch.from_numpy(frames[0])

    def normalise(self, x: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to float32 less `mean`, over `std`: those of the training images, or of a fixed range."""
        scale = [1 / (255 * s) for s in self.std]
        shift = [-m / s for m, s in zip(self.mean, self.std, strict=True)]
        return x.float().mul_(_per_channel(scale, x)).add_(_per_channel(shift, x))

    def picture(self, x: Tensor) -> Image.Image:
        """The inverse of `encode` for one image, (C, H, W) uint8 or normalised float, as a Pillow image."""
        x = x.detach().cpu()
        if x.is_floating_point():
            x = (x * _per_channel(self.std, x)[0] + _per_channel(self.mean, x)[0]).mul(255).round().clamp(0, 255).byte()
        return Image.fromarray(x[0].numpy() if len(x) == 1 else np.ascontiguousarray(x.permute(1, 2, 0).numpy()))

    def balanced_weights(self) -> tuple[float, ...]:
        """One weight per class, inverse to its training images, with mean 1 over those (0 for a class without any)."""
        total, seen = sum(self.class_counts), sum(c > 0 for c in self.class_counts)
        return tuple(total / (seen * c) if c else 0.0 for c in self.class_counts)

    def read(self, source: Any, rows: int = 256) -> Iterator[tuple[list[str], Any]]:
        """A file, a folder (with all below it, sorted), or '-': standard input holds one image, or lines of paths.

        Chunks are (names, list of paths, bytes or images); nothing is decoded here. Raises DataError when there are no images.
        """
        chunk: list[tuple[str, Any]] = []
        for item in self._items(source):
            chunk.append(item)
            if len(chunk) == rows:
                yield [n for n, _ in chunk], [r for _, r in chunk]
                chunk = []
        if chunk:
            yield [n for n, _ in chunk], [r for _, r in chunk]

    def labelled(self, source: Any, rows: int = 256) -> Iterator[Batch]:
        """A folder per class (of one with splits the test folder, or else val) as batches with "y" int64 (B,).

        Files that cannot be read are left out with a warning that counts them. Raises DataError when a folder is no class of
        the run, and when most files cannot be read.
        """
        if not self.classes:  # a run without classes measures any pictures
            for x, _ in readable(self._frames, ([(raw, None) for raw in chunk] for _, chunk in self.read(source, rows))):
                yield {"x": self.normalise(x)}
            return
        listing = list_folder(source)
        split = next(s for s in ("test", "val", "", "train") if listing.files.get(s))
        number = {name: i for i, name in enumerate(self.classes)}
        for name in dict.fromkeys(listing.labels[split]):
            if name not in number:
                raise DataError(
                    f"{listing.root} has the class folder {name!r}, which the run does not know"
                    f"{did_you_mean(name, self.classes)}; it knows {', '.join(self.classes[:10])}"
                )
        pairs = [(file, number[name]) for file, name in zip(listing.files[split], listing.labels[split], strict=True)]
        for x, labels in readable(self._frames, (pairs[start : start + rows] for start in range(0, len(pairs), rows))):
            yield {"x": self.normalise(x), "y": torch.tensor(labels)}

    def unreadable(self, raws: Sequence[Any]) -> dict[int, str]:
        """{place: why} of those of some images that cannot be read."""
        return sift(self._frames, raws)[2]

    def example(self, batch: int = 2) -> Batch:
        """Zeros: the mean image."""
        x = torch.zeros(batch, self.channels, self.height, self.width)
        return {"x": x, "y": torch.zeros(batch, dtype=torch.int64)} if self.classes else {"x": x}

    def _frames(self, raw: Any) -> Iterator[np.ndarray]:
        """uint8 (C, H, W) of every image in `raw`."""
        if isinstance(raw, (str, os.PathLike)):
            yield decode(Path(raw), self.shape)
        elif isinstance(raw, (bytes, Image.Image)):
            yield decode(raw, self.shape)
        elif isinstance(raw, Tensor):
            for image in _channels_last(raw):
                yield fit_array(image, self.shape)
        elif isinstance(raw, np.ndarray):
            for image in self._split(raw):
                yield fit_array(image, self.shape)
        elif isinstance(raw, (list, tuple)) and raw:
            for one in raw:
                yield from self._frames(one)
        else:
            what = "an empty list" if isinstance(raw, (list, tuple)) else f"a {type(raw).__name__}"
            raise DataError(f"{what} is not an image; give a path, a Pillow image, an array, a tensor, or a list of these")

    def _split(self, array: np.ndarray) -> np.ndarray:
        """(B, H, W, C) uint8 of an array in one of its layouts."""
        shape = array.shape
        if len(shape) == 2:
            array = array[None, :, :, None]
        elif len(shape) == 3 and shape[2] <= 4:
            array = array[None]
        elif len(shape) == 3 and shape[0] == self.channels == 3:
            raise DataError(
                f"an array of shape {shape} may be 3 grey images or one with channels first; pass (H, W, C), or a torch tensor"
            )
        elif len(shape) == 3:
            array = array[..., None]
        return to_uint8(_checked(array, shape, "(H, W), (H, W, C), (B, H, W) or (B, H, W, C)"))

    def _items(self, source: Any) -> Iterator[tuple[str, Any]]:
        if source == "-" and isinstance(source, str):
            yield from _standard_input()
            return
        if not isinstance(source, (str, os.PathLike)):
            raws = source if isinstance(source, (list, tuple)) else [source]
            yield from ((str(r) if isinstance(r, (str, os.PathLike)) else f"image {i}", r) for i, r in enumerate(raws, 1))
            return
        path = Path(source)
        if not path.is_dir():
            yield path.name, path
            return
        empty = True
        for file in find_images(path):
            empty = False
            yield file.relative_to(path).as_posix(), file
        if empty:
            raise DataError(f"{path} holds no images; give a folder with JPEG, PNG, WebP, GIF, BMP or TIFF files")


def _per_channel(values: Any, like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device).view(1, -1, 1, 1)


def _channels_last(tensor: Tensor) -> np.ndarray:
    """(B, H, W, C) uint8 of a tensor (H, W), (C, H, W) or (B, C, H, W)."""
    tensor = tensor.detach().cpu()
    shape = tuple(tensor.shape)
    tensor = tensor.float() if tensor.is_floating_point() else tensor  # NumPy has no bfloat16
    array = tensor.numpy()
    array = array[None, None] if len(shape) == 2 else array[None] if len(shape) == 3 else array
    if array.ndim == 4:
        array = array.transpose(0, 2, 3, 1)
    return to_uint8(_checked(array, shape, "(H, W), (C, H, W) or (B, C, H, W)"))


def _checked(array: np.ndarray, given: tuple[int, ...], wanted: str) -> np.ndarray:
    if array.ndim != 4 or not 1 <= array.shape[3] <= 4 or 0 in array.shape:
        raise DataError(f"an array of shape {given} is not images; they are {wanted} with 1 to 4 channels C")
    return array


def _standard_input() -> Iterator[tuple[str, Any]]:
    """The image on standard input, or the paths, one per line."""
    first = sys.stdin.buffer.readline()
    if first.startswith(_STARTS) or (first.startswith((b"BM", b"P")) and b"\0" in first):
        yield "standard input", first + sys.stdin.buffer.read()
        return
    line, any_path = first, False
    while line:
        if b"\0" in line:
            raise DataError("standard input is neither an image nor lines of paths; pipe in JPEG, PNG, WebP, GIF or TIFF")
        if name := os.fsdecode(line.rstrip(b"\r\n")):
            any_path = True
            yield name, Path(name)
        line = sys.stdin.buffer.readline()
    if not any_path:
        raise DataError("standard input is empty; pipe in one image, or lines of paths")
