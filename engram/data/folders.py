"""Folders of images: which files are images, and how folders stand for classes and splits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engram.core.errors import DataError
from engram.data.decode import SUFFIXES

LAYOUT = "one folder per class (photos/cat/1.jpg), or these inside train/, val/ and test/"
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*")


@dataclass
class Listing:
    """What a folder holds: file and class of every image, by split ('' when the folder has no splits)."""

    root: Path
    files: dict[str, list[Path]] = field(default_factory=dict)
    labels: dict[str, list[str]] = field(default_factory=dict)
    others: list[Path] = field(default_factory=list)  # files that are no images
    loose: list[Path] = field(default_factory=list)  # images outside the class folders
    ignored: list[str] = field(default_factory=list)  # folders beside train/

    def name(self, path: Path) -> str:
        """The file as the user knows it: relative to the folder, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    def sha256(self) -> str:
        """Of the sorted relative names and sizes of the images: other files of the same names and sizes look the same."""
        digest = hashlib.sha256()
        for path in sorted(p for paths in self.files.values() for p in paths):
            size = path.stat().st_size if path.exists() else -1  # a link to nowhere
            digest.update(f"{self.name(path)}\0{size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def find_images(folder: Path, others: list[Path] | None = None) -> Iterator[Path]:
    """Images below `folder`, sorted by path; hidden files and folders are left out. Other files are added to `others`.

    Links to folders are followed, each folder once.
    """
    seen: set[str] = set()
    for top, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(top)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(n for n in names if not n.startswith(".")):
            path = Path(top, name)
            if _is_image(path):
                yield path
            elif others is not None:
                others.append(path)


def list_folder(source: str | Path) -> Listing:
    """The classes and splits of a folder. Raises DataError that states the layout when it is another one."""
    root = Path(source)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; images to train on need {LAYOUT}")
    root = _unwrapped(root)
    inside = _subfolders(root)
    listing = Listing(root)
    listing.loose = [p for p in _visible(root) if p.is_file() and _is_image(p)]
    splits = [f for f in inside if f.name.lower() in _SPLITS]
    if any(_SPLITS[f.name.lower()] == "train" for f in splits):
        listing.ignored = [f.name for f in inside if f not in splits]
        for folder in splits:
            _add(listing, _SPLITS[folder.name.lower()], folder)
    elif splits and len(splits) == len(inside):
        raise DataError(f"{root} has {', '.join(f.name + '/' for f in splits)} but no train/; images need {LAYOUT}")
    else:
        _add(listing, "", root)
    if not any(listing.files.values()):
        found = f"{len(listing.loose):,} images but no class folders" if listing.loose else "no images"
        raise DataError(f"{root} holds {found}; images to train on need {LAYOUT}")
    for split in ("", "train"):
        if split in listing.files and not listing.files[split]:
            raise DataError(f"{root / split} holds no images in class folders; images to train on need {LAYOUT}")
    return listing


def list_any(source: str | Path) -> Listing:
    """As `list_folder` where there are classes to tell apart; otherwise every image below the folder, all with the label ''."""
    root = Path(source)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give a folder of images")
    try:
        listing = list_folder(root)
        if not listing.loose and len({label for labels in listing.labels.values() for label in labels}) > 1:
            return listing
    except DataError:
        pass
    listing = Listing(root)
    splits = {_SPLITS[f.name.lower()]: f for f in _subfolders(root) if f.name.lower() in _SPLITS}
    splits = splits if "train" in splits else {"": root}
    for split, folder in splits.items():
        listing.files[split] = list(find_images(folder, listing.others))
        listing.labels[split] = [""] * len(listing.files[split])
    if not listing.files.get("train", listing.files.get("")):
        raise DataError(f"{root} holds no images; give a folder with JPEG, PNG, WebP, GIF, BMP or TIFF files")
    return listing


def _add(listing: Listing, split: str, folder: Path) -> None:
    """The images of every class folder in `folder`; a class may have folders inside."""
    files, labels = listing.files.setdefault(split, []), listing.labels.setdefault(split, [])
    if split:
        listing.loose += [p for p in _visible(folder) if p.is_file() and _is_image(p)]
    for kind in _subfolders(folder):
        found = list(find_images(kind, listing.others))
        files += found
        labels += [kind.name] * len(found)


def _unwrapped(root: Path) -> Path:
    """The folder inside, when all that a folder holds is one folder of folders (archives are often packed so)."""
    inside = _visible(root)
    while len(inside) == 1 and inside[0].is_dir() and inside[0].name.lower() not in _SPLITS:
        below = _visible(inside[0])
        if len([p for p in below if p.is_dir()]) < 2 or any(p.is_file() and _is_image(p) for p in below):
            break
        root, inside = inside[0], below
    return root


def _visible(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def _subfolders(folder: Path) -> list[Path]:
    return [p for p in _visible(folder) if p.is_dir()]


def _is_image(path: Path) -> bool:
    """By the ending of the name; by the first bytes when it has none."""
    if path.suffix:
        return path.suffix.lower() in SUFFIXES
    try:
        with open(path, "rb") as file:
            return file.read(4).startswith(_MAGIC)
    except OSError:
        return False
