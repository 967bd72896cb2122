"""Folders of texts: a corpus of files, a folder per class, files or folders per split, parallel files per split."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from engram.core.data import Note
from engram.core.errors import DataError, did_you_mean
from engram.data.text_decode import read_text
from engram.data.text_files import COLUMNS, KNOWN, PLAIN, TABLES, parallel, read_file
from engram.data.text_rows import LAYOUT, Row, Texts, sha256_of_files
from engram.data.text_tables import Names

SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_UNLABELLED = ("unsup", "unlabelled", "unlabeled")


def read_folder(root: Path, form: str, names: Names) -> Texts:
    """The texts of a folder by its layout. Raises DataError that says what the folder holds when no layout fits."""
    top = [p for p in sorted(root.iterdir()) if p.is_file() and not p.name.startswith(".")]
    inside = subfolders(root)
    if form in ("", "pairs", "corpus", "conversations") and (sides := _sides(top)):
        return _parallel(root, sides, names)
    by_split = {SPLIT_OF[_stem(p)]: p for p in top if _stem(p) in SPLIT_OF and _kind(p) in KNOWN}
    if "train" in by_split:
        return _split_files(by_split, form, names)
    split_folders = {SPLIT_OF[p.name.lower()]: p for p in inside if p.name.lower() in SPLIT_OF}
    parts = split_folders if "train" in split_folders else {"train": root}
    labelled = (
        form in ("", "labelled") and len(classes(parts["train"])) > 1 and not any(_kind(p) in PLAIN for p in top if p.suffix)
    )
    if form == "labelled" or labelled:
        return _classes(root, parts, names)
    files = {split: list(find_texts(folder)) for split, folder in parts.items()}
    if form not in ("", "corpus") or not files["train"]:
        raise DataError(_nothing(root, top, form))
    return _corpus(root, files, names)


def find_texts(folder: Path) -> Iterator[Path]:
    """Text files below a folder, sorted by path; hidden files and folders are left out, links to folders not followed."""
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (
            Path(where, f) for f in sorted(files) if not f.startswith(".") and _kind(Path(f)) in PLAIN and Path(f).suffix
        )


def subfolders(root: Path) -> list[Path]:
    """The visible folders in a folder, sorted."""
    return [p for p in sorted(root.iterdir()) if p.is_dir() and not p.name.startswith(".")]


def classes(root: Path) -> list[Path]:
    """The folders in a folder that hold texts; those of texts without a label are left out."""
    found = [p for p in subfolders(root) if p.name.lower() not in _UNLABELLED]
    return [p for p in found if next(find_texts(p), None)]


def corpus_files(root: Path) -> dict[str, list[Path]] | None:
    """The plain text files of a folder by split, as `read_folder` takes them for a corpus; None for another layout."""
    top = [p for p in sorted(root.iterdir()) if p.is_file() and not p.name.startswith(".")]
    if _sides(top):
        return None
    by_split = {SPLIT_OF[_stem(p)]: p for p in top if _stem(p) in SPLIT_OF and _kind(p) in KNOWN}
    if "train" in by_split:
        return {s: [p] for s, p in by_split.items()} if all(_kind(p) in PLAIN for p in by_split.values()) else None
    parts = {SPLIT_OF[p.name.lower()]: p for p in subfolders(root) if p.name.lower() in SPLIT_OF}
    return {s: list(find_texts(p)) for s, p in (parts if "train" in parts else {"train": root}).items()}


def _corpus(root: Path, files: dict[str, list[Path]], names: Names) -> Texts:
    notes: list[Note] = []
    splits: dict[str, list[Row]] = {}
    for split, paths in files.items():
        splits[split] = []
        for path in paths:
            text, found = read_text(path, names.encoding)
            notes += found.notes(path.relative_to(root).as_posix())
            splits[split].append({"text": text})
    sha256 = sha256_of_files({p.relative_to(root).as_posix(): p for paths in files.values() for p in paths})
    return Texts("corpus", splits, "", sha256, tuple(_few(notes)))


def _classes(root: Path, parts: dict[str, Path], names: Names) -> Texts:
    splits: dict[str, list[Row]] = {}
    files: dict[str, Path] = {}
    notes: list[Note] = []
    for split, folder in parts.items():
        found = classes(folder)
        if not found:
            raise DataError(f"{folder} has no folders with texts in them; labelled data is {LAYOUT['labelled']}")
        splits[split] = []
        for kind in found:
            for path in find_texts(kind):
                files[path.relative_to(root).as_posix()] = path
                text, scan = read_text(path, names.encoding)
                notes += scan.notes(path.relative_to(root).as_posix())
                splits[split].append({"text": text, "label": kind.name})
    kinds = ", ".join(p.name for p in classes(parts["train"])[:5])
    notes = [Note("info", f"the names of the folders were taken as labels ({kinds})"), *_few(notes)]
    return Texts("labelled", splits, "", sha256_of_files(files), tuple(notes))


def _split_files(files: dict[str, Path], form: str, names: Names) -> Texts:
    read = {split: read_file(path, form, names) for split, path in files.items()}
    forms = {t.form for t in read.values()}
    if len(forms) > 1:
        what = ", ".join(f"{files[s].name} is {t.form}" for s, t in read.items())
        raise DataError(f"the files of the splits differ in form: {what}; write them in one form")
    notes = [Note(n.level, f"{files[s].name}: {n.text}") for s, t in read.items() for n in t.notes]
    sha256 = sha256_of_files({p.name: p for p in files.values()})
    rows = {s: t.splits["train"] for s, t in read.items()}
    return Texts(read["train"].form, rows, "", sha256, tuple(dict.fromkeys(notes)), read["train"].facts)


def _sides(top: list[Path]) -> dict[str, dict[str, Path]]:
    """Files called train.en, train.de and so on, by split and ending; {} when train has fewer than two."""
    found: dict[str, dict[str, Path]] = {}
    for path in top:
        ending = _kind(path)
        if _stem(path) in SPLIT_OF and ending not in KNOWN and 3 <= len(ending) <= 6:
            found.setdefault(SPLIT_OF[_stem(path)], {})[ending[1:]] = path
    return found if len(found.get("train", {})) > 1 else {}


def _parallel(root: Path, sides: dict[str, dict[str, Path]], names: Names) -> Texts:
    known = list(sides["train"])
    for knob, wanted in (("source", names.source), ("target", names.target)):
        if wanted and wanted not in known:
            raise DataError(f"{root} has no train.{wanted}{did_you_mean(wanted, known)}; {knob}= is one of {', '.join(known)}")
    if len(known) > 2 and not (names.source and names.target):
        raise DataError(f"{root} has train in {', '.join(known)}; say which two: source={known[0]} target={known[1]}")
    source = names.source or next(k for k in known if k != names.target)
    target = names.target or next(k for k in known if k != source)
    if source == target:
        raise DataError(f"source= and target= are both {source}; name two of {', '.join(known)}")
    for split, files in sides.items():
        if len({source, target} & set(files)) == 1:
            raise DataError(f"{root}: {split} is there in {', '.join(files)} only; {source} and {target} are both needed")
    files = {s: (f[source], f[target]) for s, f in sides.items() if source in f}
    texts = parallel(files, names, (source, target))
    notes = texts.notes
    if not (names.source and names.target):
        notes = (*notes, Note("info", f"from {source} to {target}; source={target} target={source} turns it round"))
    return Texts("pairs", texts.splits, "", texts.sha256, notes, texts.facts)


def _nothing(root: Path, top: list[Path], form: str) -> str:
    tables = [p.name for p in top if _kind(p) in (*TABLES, *COLUMNS)]
    held = (
        f"it holds {', '.join(tables[:5])}: name one file"
        if tables
        else f"{form or 'corpus'} data is {LAYOUT[form or 'corpus']}"
    )
    return f"{root} holds {'no texts' if not any(find_texts(root)) else f'text files, but no {form} data'}; {held}"


def _few(notes: list[Note]) -> list[Note]:
    """The first notes and how many more there are: a folder may hold thousands of files."""
    more = [Note("warning", f"and {len(notes) - 3:,} more files that are not UTF-8")] if len(notes) > 3 else []
    return [*notes[:3], *more]


def _kind(path: Path) -> str:
    """The ending in lower case, without .gz."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _stem(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).stem
