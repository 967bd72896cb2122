"""Pictures with captions in the user's folder: a .txt beside each picture, or one table with file names and captions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engram.core.data import Note
from engram.core.errors import DataError
from engram.data.caption_spec import words
from engram.data.folders import find_images
from engram.data.text_decode import read_text
from engram.data.text_tables import Table, column, read_table

LAYOUT = (
    "a folder of pictures, each with a .txt of the same name beside it, or with captions.csv or captions.jsonl "
    "(columns file_name and caption)"
)
TABLES = tuple(f"{stem}{end}" for stem in ("captions", "metadata") for end in (".csv", ".tsv", ".jsonl", ".json", ".parquet"))
_FILE = ("file_name", "filename", "file", "image", "path", "image_path", "picture", "name", "id")
_CAPTION = ("caption", "text", "prompt", "description", "captions", "sentence", "title")
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Captioned:
    """Pairs (picture, caption) by split, '' when the folder has no splits. A picture with several captions is there often."""

    root: Path
    rows: dict[str, list[tuple[Path, str]]]
    notes: list[Note] = field(default_factory=list)
    sha256: str = ""  # of the names, sizes and captions


def read_captioned(source: Any) -> Captioned:
    """The captioned pictures of a folder, or of a table whose file names are relative to its own folder.

    Folders train/, val/ and test/ are splits. Raises DataError when there are fewer than two pictures, when captions and
    pictures do not match (with the first names of either side), and when captions are empty.
    """
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path} does not exist; captioned pictures are {LAYOUT}")
    root = path if path.is_dir() else path.parent
    images = list(find_images(root))
    tables = [path] if path.is_file() else [p for p in _candidates(root) if p.is_file()]
    if len(images) < 2 and not (path.is_file() and not images):  # a table may name pictures of other folders
        what = "no pictures" if not images else f"one picture only ({images[0].name})"
        raise DataError(f"{root} has {what}, and a network needs many; captioned pictures are {LAYOUT}")
    said, notes = _from_tables(tables, root) if tables else _from_sidecars(images, root)
    have = {_key(p, root): p for p in images}
    have |= {key: Path(key) for key in said if key not in have and Path(key).is_absolute() and Path(key).is_file()}
    _match(said, have, root, tables)
    rows: dict[str, list[tuple[Path, str]]] = {}
    splits = {p.name.lower() for p in root.iterdir() if p.is_dir()} & _SPLITS.keys()
    given = any(_SPLITS[s] == "train" for s in splits)
    digest = hashlib.sha256()
    for key in sorted(said):
        split = _SPLITS.get(key.split("/")[0].lower(), "train") if given and "/" in key else "train" if given else ""
        rows.setdefault(split, []).extend((have[key], text) for text in said[key])
        digest.update(repr((key, have[key].stat().st_size, said[key])).encode("utf-8", "surrogateescape"))
    if several := sum(len(texts) > 1 for texts in said.values()):
        notes.append(Note("info", f"{several:,} pictures have several captions: each caption is a row of its own"))
    return Captioned(root, rows, notes, digest.hexdigest())


def _candidates(root: Path) -> list[Path]:
    """The caption tables of the folder, else those of its splits."""
    here = [root / name for name in TABLES if (root / name).is_file()][:1]
    below = [p / name for p in sorted(root.iterdir()) if p.is_dir() and p.name.lower() in _SPLITS for name in TABLES]
    return here or below


def _from_tables(tables: Sequence[Path], root: Path) -> tuple[dict[str, list[str]], list[Note]]:
    said: dict[str, list[str]] = {}
    notes: list[Note] = []
    for path in tables:
        table = read_table(path)
        notes += table.notes
        file, caption = column(table, "file_name", "", _FILE), column(table, "caption", "", _CAPTION)
        if not file or not caption:
            raise DataError(
                f"{path.name} has the columns {', '.join(table.columns)[:200]}; name the one of the "
                "files file_name and that of the captions caption"
            )
        for number, record in enumerate(table.records):
            name, texts = record.get(file), record.get(caption)
            if not isinstance(name, str) or not name.strip():
                raise DataError(f"{table.where(number)} names no file in {file!r}; give the name of its picture")
            key = _key(path.parent / name.strip(), root)
            for text in texts if isinstance(texts, list) else [texts]:
                said.setdefault(key, []).append(_text(text, f"{table.where(number)} ({name.strip()})", table))
    return said, notes


def _from_sidecars(images: Sequence[Path], root: Path) -> tuple[dict[str, list[str]], list[Note]]:
    said: dict[str, list[str]] = {}
    stems = {_key(p.with_suffix(""), root): _key(p, root) for p in images}
    texts = sorted(p for p in root.rglob("*.txt") if not any(part.startswith(".") for part in p.relative_to(root).parts))
    if not texts:
        raise DataError(f"{root} has no captions; captioned pictures are {LAYOUT}")
    for path in texts:
        stem = _key(path.with_suffix(""), root)
        name = _key(path, root)
        if path.stat().st_size == 0:
            raise DataError(f"the caption {name} is empty; write what the picture shows, or move it and its picture out")
        if stem in stems or path.stem.lower() not in ("readme", "license", "licence"):
            said[stems.get(stem, f"{stem}.*")] = [_text(read_text(path)[0], name, None)]
    return said, []


def _text(text: Any, where: str, table: Table | None) -> str:
    """The caption in one line. Raises DataError when it holds no word."""
    if not isinstance(text, str) or not words(text):
        what = "the caption of " if table else "the caption "
        raise DataError(f"{what}{where} is empty; write what the picture shows, or remove it")
    return " ".join(text.split())


def _match(said: dict[str, list[str]], have: dict[str, Path], root: Path, tables: Sequence[Path]) -> None:
    where = " and ".join(t.name for t in tables[:2]) or "the .txt files"
    if lost := [key for key in said if key not in have]:
        raise DataError(
            f"{len(lost):,} of the {len(said):,} captions of {where} have no picture in {root}: {_some(lost)}; "
            "mend the names or add the pictures"
        )
    if silent := [key for key in have if key not in said]:
        raise DataError(
            f"{len(silent):,} of the {len(have):,} pictures in {root} have no caption in {where}: {_some(silent)}; "
            "add their captions or move them out"
        )


def _key(path: Path, root: Path) -> str:
    """The name relative to the folder, with forward slashes; the whole path, without "..", for what lies elsewhere."""
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        linked = path.is_relative_to(root) and ".." not in path.relative_to(root).parts
        return (path if linked else path.resolve()).as_posix()  # a link in the folder is a picture of its own


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
