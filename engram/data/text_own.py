"""Files of built-in sets that nobody may hand on, or whose sha256 is not pinned: the user's own copy, where it lies."""

from __future__ import annotations

from pathlib import Path

from engram.core.errors import DataError
from engram.data.sources import cache_folder, find, folders


def home(name: str) -> Path:
    """The folder of a set: the first that exists, else where it would be downloaded to."""
    return next(iter(folders(name)), cache_folder() / name)


def own_file(name: str, file: str) -> Path | None:
    """A file of the user's own beside those of a set."""
    return next((f / file for f in folders(name) if (f / file).is_file()), None)


def own_folder(name: str, archive: str, inside: str) -> Path:
    """The folder that holds `inside`, directly or in the folder that the archive unpacks to. Raises DataError."""
    roots = [r for f in folders(name) for r in (f, f / archive)]
    root = next((r for r in roots if (r / inside).is_dir()), None)
    if root is None:
        raise DataError(needed(name))
    return root


def needed(name: str) -> str:
    """What to say when a set that has to be the user's own copy is not there."""
    return (
        f"{name} is not on this machine and has to be your own copy: put {find(name).own} into {cache_folder() / name}, "
        f"or into {name}/ in the folder that ENGRAM_DATA names"
    )
