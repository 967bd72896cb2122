"""Corpora larger than memory: read in pieces, tokenised once into files of the cache, and used from there memory-mapped.

Pieces are cut before a space or line break that follows another character. No kind of vocabulary has a token across such a
place and none looks back, so the ids are those of the whole text (a test compares). Where 16 MB have no such place, it is cut.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engram.core.errors import DataError
from engram.data.bytepair import CUT
from engram.data.sources import cache_folder
from engram.data.text_rows import sha256_of_files
from engram.data.text_stream import stream_files
from engram.data.texts import corpus_documents
from engram.data.vocabulary import START, UNK, Vocabulary

LARGE = 256  # MB of text from which on a corpus is kept in files
SAMPLE = 64 << 20  # characters that a vocabulary of byte pairs is trained on
LONGEST = 16  # pieces that are joined in search of a place to cut
HEADER = 128  # bytes before the ids in the file


@dataclass(frozen=True)
class StoredSplit:
    """`ids` is memory-mapped; `starts` are the positions of the documents' first tokens; the rest are counts."""

    ids: np.ndarray
    starts: np.ndarray
    characters: int
    unknown: int


@dataclass(frozen=True)
class Large:
    """A corpus of plain text files, by split; how it is read."""

    data: Any
    files: dict[str, list[Path]]
    seed: int
    size: int  # bytes
    limit: float  # MB that would have been read whole

    @property
    def sha256(self) -> str:
        """Of the content."""
        return sha256_of_files({f"{split}/{path}": path for split, paths in self.files.items() for path in paths})

    def documents(self, split: str) -> Iterator[Iterator[str]]:
        """The documents in pieces that can be tokenised one by one."""
        return (whole_words(document) for document in corpus_documents(self.data, split, seed=self.seed))

    def sample(self, most: int = SAMPLE) -> Iterator[str]:
        """Pieces of the training text from all over it, about `most` characters."""
        every = max(1, -(-self.size // most))
        pieces = (piece for document in self.documents("train") for piece in document)
        return (piece for number, piece in enumerate(pieces) if number % every == 0)

    def text(self) -> Iterator[str]:
        """All of the training text in pieces."""
        return (piece for document in self.documents("train") for piece in document)


def large(data: Any, seed: int, megabytes: float = LARGE) -> Large | None:
    """The corpus, when it is plain text files of more than `megabytes`; else None, and it is read whole."""
    files = stream_files(data)
    if not files or not any(files.get("train", [])):
        return None
    size = sum(path.stat().st_size * (4 if path.suffix == ".gz" else 1) for paths in files.values() for path in paths)
    return Large(data, files, seed, size, megabytes) if size > megabytes * 1e6 else None


def whole_words(pieces: Iterator[str]) -> Iterator[str]:
    """The same text in pieces that end where no token goes on."""
    held: list[str] = []
    for piece in pieces:
        tail = max(len(piece) - 4096, 0)
        found = [m.end() for m in CUT.finditer(piece, tail)] or [m.end() for m in CUT.finditer(piece)]
        if not found and len(held) < LONGEST:
            held.append(piece)
            continue
        cut = found[-1] if found else len(piece)
        yield "".join([*held, piece[:cut]])
        held = [piece[cut:]] if piece[cut:] else []
    if held:
        yield "".join(held)


def stored(corpus: Large, split: str, vocabulary: Vocabulary, sha256: str) -> StoredSplit | None:
    """The ids of a split, from the cache when the same text was tokenised by the same vocabulary before; None without text.

    Each document begins with <s>. Raises DataError when the files cannot be read or the cache cannot be written.
    """
    made_by = json.dumps([1, sha256, split, corpus.seed, vocabulary.to_json()], sort_keys=True)
    folder = cache_folder() / "tokens" / hashlib.sha256(made_by.encode()).hexdigest()[:32]
    if not (folder / "facts.json").exists():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            making = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
            try:
                _write(making, corpus, split, vocabulary)
                if not folder.exists():
                    os.rename(making, folder)
            finally:
                shutil.rmtree(making, ignore_errors=True)
        except OSError as error:
            if not (folder / "facts.json").exists():  # else another process was first
                raise DataError(f"the tokens cannot be kept in {folder.parent} ({error.strerror}); set ENGRAM_CACHE") from None
    try:
        facts = json.loads((folder / "facts.json").read_text("utf-8"))
        if not facts["tokens"]:
            return None
        ids = np.load(folder / "ids.npy", mmap_mode="r")
        return StoredSplit(ids, np.load(folder / "starts.npy"), facts["characters"], facts["unknown"])
    except (OSError, ValueError, KeyError):
        raise DataError(f"the tokens kept in {folder} are damaged; remove that folder, and they are made again") from None


def _write(folder: Path, corpus: Large, split: str, vocabulary: Vocabulary) -> None:
    kind = np.dtype(np.uint16 if vocabulary.size < 65536 else np.int32)
    starts, count, characters, unknown = array("q"), 0, 0, 0
    with (folder / "ids.npy").open("wb") as file:
        file.write(bytes(HEADER))
        for document in corpus.documents(split):
            first = count
            for piece in document:
                ids = vocabulary.encode_array(piece)
                if not len(ids):
                    continue
                if count == first:
                    file.write(np.array([START], kind).tobytes())
                    starts.append(first)
                    count += 1
                file.write(ids.astype(kind).tobytes())
                count, characters, unknown = count + len(ids), characters + len(piece), unknown + int((ids == UNK).sum())
        header = io.BytesIO()
        shape = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(header, shape)
        assert len(header.getvalue()) == HEADER
        file.seek(0)
        file.write(header.getvalue())
        file.flush()
        os.fsync(file.fileno())
    np.save(folder / "starts.npy", np.frombuffer(starts, np.int64) if starts else np.zeros(0, np.int64))
    facts = {"tokens": count, "characters": characters, "unknown": unknown, "split": split}
    (folder / "facts.json").write_text(json.dumps(facts), "utf-8")
