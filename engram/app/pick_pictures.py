"""Which recipe suits a folder of pictures: with classes, with captions, or with neither. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram.core.errors import DataError

if TYPE_CHECKING:
    from engram.data.decode import Header

SMALL = 64  # pixels: up to this side a small network sees the whole image
SAMPLED = 8  # images whose size is looked at
CAPTIONS = ("captions", "metadata")  # tables of captions, see data/captioned.py


def of_pictures(path: Path, given: str, knobs: dict[str, Any]) -> tuple[str, str] | None:
    """(recipe, what was found and why) for a folder that holds pictures; None for one that holds none."""
    from engram.data.folders import find_images

    headers = list(_some_headers(path))
    if not headers and next(find_images(path), None) is None:
        return None
    # When none can be read, the recipe that reads them all says so.
    about = f"about {headers[0].width}x{headers[0].height}" if headers else "those looked at cannot be read"
    if _captioned(path):
        return "latent_diffusion", f"{given} is a folder of pictures with captions ({about}; it learns to draw what words say)"
    if not _classes(path):
        others = "ddpm or gan draw sharper ones, conv_autoencoder noise=gaussian cleans; for classes use a folder per class"
        return (
            "vae",
            f"{given} is a folder of pictures without classes ({about}; it learns to code them and draw new ones; {others})",
        )
    asked = str(knobs.get("size", 0))
    sides = sorted(min(h.height, h.width) for h in headers) or [SMALL]
    side = int(asked) if asked.isdigit() and int(asked) else sides[len(sides) // 2]
    recipe = "cnn" if side <= SMALL else "resnet"
    small = "small images need a small network" if recipe == "cnn" else "larger images need a deeper network"
    how = f"{side} pixels as asked" if asked.isdigit() and int(asked) else about
    return recipe, f"{given} is a folder of images ({how}; {small})"


def _classes(path: Path) -> bool:
    """Whether there are folders of at least two classes to tell apart."""
    from engram.data.folders import list_folder

    try:
        listing = list_folder(path)
    except DataError:
        return False
    return bool(len({label for labels in listing.labels.values() for label in labels}) > 1)


def _captioned(path: Path) -> bool:
    """Whether a table of captions is there, or a text beside the first picture."""
    from engram.data.folders import find_images

    if any(p.stem.lower() in CAPTIONS for p in (*path.iterdir(), *path.glob("train/*")) if p.is_file()):
        return True
    first = next(find_images(path), None)
    return first is not None and first.with_suffix(".txt").is_file()


def _some_headers(root: Path) -> Iterator[Header]:
    """Of the first readable image below each of the first folders, so that one class does not speak for all."""
    inside = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(inside) <= 3:  # train/, val/ and test/, or a folder around all
        inside = [q for p in inside for q in sorted(p.iterdir()) if q.is_dir() and not q.name.startswith(".")] or inside
    found = [head for folder in inside[:SAMPLED] if (head := _first_header(folder))]
    loose = None if found else _first_header(root)
    yield from found or ([loose] if loose else [])


def _first_header(folder: Path) -> Header | None:
    """Of the first image below `folder` that can be read; the others are counted and named when the folder is read."""
    from engram.data.decode import header
    from engram.data.folders import find_images

    for image in find_images(folder):
        try:
            return header(image)
        except DataError:
            continue
    return None
