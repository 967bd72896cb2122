"""Given pictures through a run: their codes, what the codes give back, and cleaned copies, some at a time."""

from __future__ import annotations

import contextlib
import csv
import itertools
import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from engram.app.pictures import MOST, grid, write_image
from engram.app.run import Run
from engram.checkpoint.files import reason
from engram.core.errors import ConfigError, DataError, RunError
from engram.inference.pictures import Pictures

Verb = Literal["encode", "reconstruct", "denoise"]
GRIDS = (".png", ".jpg", ".jpeg", ".webp")
COLUMNS = 8
_CODERS = "autoencoder, conv_autoencoder, vae, vqvae, latent_diffusion or image_gpt"
WHO = {
    "encode": f"it does not code pictures; a run of {_CODERS} does",
    "reconstruct": f"it does not code pictures; a run of {_CODERS} does",
    "denoise": "it did not learn to clean pictures; engram train conv_autoencoder noise=gaussian makes one that does",
}


def pictures_of(run: Run, verb: Verb) -> Pictures:
    """The predictor of a run that does what is asked. Raises ConfigError when it does not."""
    predictor = run.predictor
    if not isinstance(predictor, Pictures) or verb not in predictor.verbs:
        raise ConfigError(f"{run.path} is a run of {run.info['recipe']}: {WHO[verb]}")
    return predictor


def read(predictor: Pictures, source: Any, rows: int) -> Iterator[tuple[list[str], Tensor]]:
    """Names and pictures (B, C, H, W), as the network reads them, of a file, a folder or '-'. Raises DataError when empty."""
    some = False
    for names, raw in predictor.spec.read(source, rows):
        some = True
        yield names, predictor.spec.encode(raw)["x"]
    if not some:
        raise DataError(f"{source} holds no pictures")


def codes(run: Run, source: Any, rows: int = 256) -> Iterator[tuple[list[str], np.ndarray]]:
    """Names and codes, float32 (B, ...), `rows` pictures at a time. Raises ConfigError, DataError."""
    predictor = pictures_of(run, "encode")
    for names, x in read(predictor, source, rows):
        code = predictor.encode(x).detach().cpu()
        yield names, (code.float() if code.is_floating_point() else code).numpy()


def write_codes(found: Iterator[tuple[list[str], np.ndarray]], target: Path) -> tuple[int, ...]:
    """All codes as .npy (N, ...) or .csv (input, c0, c1 ...), in the order of reading; their shape.

    The file is there only when it is whole. Raises ConfigError on another ending, RunError when it cannot be written.
    """
    ending = target.suffix.lower()
    if ending not in (".npy", ".csv"):
        raise ConfigError(f"{target}: codes are written as .npy or .csv")
    beside = target.with_name(target.name + ".tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shape = _write_npy(found, beside) if ending == ".npy" else _write_csv(found, beside)
        os.replace(beside, target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {reason(error)}") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    return shape


def _write_npy(found: Iterator[tuple[list[str], np.ndarray]], path: Path) -> tuple[int, ...]:
    """The header is written twice: NumPy leaves room in it for the first dimension to grow."""
    with path.open("wb") as file:
        count, header = 0, {}
        for _, block in found:
            if not count:
                header = {"descr": np.lib.format.dtype_to_descr(block.dtype), "fortran_order": False}
                np.lib.format.write_array_header_1_0(file, header | {"shape": block.shape})
                rest, begins = block.shape[1:], file.tell()
            count += len(block)
            file.write(np.ascontiguousarray(block).tobytes())
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header | {"shape": (count, *rest)})
        assert file.tell() == begins
    return (count, *rest)


def _write_csv(found: Iterator[tuple[list[str], np.ndarray]], path: Path) -> tuple[int, ...]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer, count, rest = csv.writer(file, lineterminator="\n"), 0, ()
        for line in csv_lines(found):
            writer.writerow(line)
            count, rest = count + 1, (len(line) - 1,)
    return (count - 1, *rest)


def csv_lines(found: Iterator[tuple[list[str], np.ndarray]]) -> Iterator[list[str]]:
    """A line of names, then one line per picture: its name and the numbers of its code; nine digits hold a float32 exactly."""
    first = True
    for names, block in found:
        flat = block.reshape(len(block), -1)
        if first:
            yield ["input", *(f"c{i}" for i in range(flat.shape[1]))]
            first = False
        for name, row in zip(names, flat, strict=True):
            yield [name, *(f"{v:.9g}" for v in row)]


def rebuild(
    run: Run, verb: Literal["reconstruct", "denoise"], source: Any, target: Path, n: int = 16, rows: int = 64
) -> list[str]:
    """Pictures before and after as one grid (the first `n`), or all of them into a folder, each under its own name.

    Returns the names of the pictures. Raises ConfigError on another ending or a folder within the one that is read, DataError,
    RunError when it cannot be written.
    """
    predictor = pictures_of(run, verb)
    ending = "" if target.is_dir() else target.suffix.lower()
    if ending and ending not in GRIDS:
        raise ConfigError(f"{target}: pictures are written as .png, .jpg, .webp (one grid), or into a folder")
    if ending and n > MOST // 2:
        raise ConfigError(f"a grid holds at most {MOST // 2:,} pictures before and after; for more name a folder")
    if not ending and os.path.isdir(source) and target.resolve().is_relative_to(Path(source).resolve()):
        raise ConfigError(f"{target} lies in {source}, all of which is read, also what is written there; name another folder")
    again = predictor.reconstruct if verb == "reconstruct" else predictor.denoise
    chunks = read(predictor, source, min(rows, n) if ending else rows)
    try:
        (target.parent if ending else target).mkdir(parents=True, exist_ok=True)
        if not ending:
            taken: set[Path] = set()
            return [name for names, x in chunks for name in _save(names, predictor.arrays(again(x)), target, taken)]
        names, before, after = _first(chunks, n, again, predictor)
        sheet = grid(pairs(before, after), min(COLUMNS, len(before)))
        write_image(sheet, target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {reason(error)}") from None
    return names


def _first(chunks: Iterator[tuple[list[str], Tensor]], n: int, again: Any, predictor: Pictures) -> tuple[list[str], Any, Any]:
    names: list[str] = []
    before: list[np.ndarray] = []
    after: list[np.ndarray] = []
    for found, x in chunks:
        x = x[: n - len(names)]
        names += found[: len(x)]
        before.append(predictor.arrays(x))
        after.append(predictor.arrays(again(x)))
        if len(names) >= n:
            break
    return names, np.concatenate(before), np.concatenate(after)


def pairs(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """uint8 (B, H, W, C) twice as lines of at most COLUMNS pictures with, below each, what became of them."""
    columns = min(COLUMNS, len(before))
    blank = np.full((-len(before) % columns, *before.shape[1:]), 255, np.uint8)
    lines = [np.concatenate([side, blank]).reshape(-1, columns, *before.shape[1:]) for side in (before, after)]
    return np.stack(lines, 1).reshape(-1, *before.shape[1:])


def _save(names: list[str], arrays: np.ndarray, folder: Path, taken: set[Path]) -> list[str]:
    """One PNG per picture, under the folders of its name."""
    for name, array in zip(names, arrays, strict=True):
        parts = [p for p in PurePath(name).parts if p not in ("..", PurePath(name).anchor)] or ["picture"]
        path = folder.joinpath(*parts).with_suffix(".png")
        choices = itertools.chain([path, folder.joinpath(*parts[:-1], parts[-1] + ".png")],
                                  (path.with_stem(f"{path.stem}-{k}") for k in itertools.count(2)))  # fmt: skip
        path = next(p for p in choices if p not in taken)
        taken.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(path)
    return names


__all__ = ["codes", "csv_lines", "pictures_of", "rebuild", "write_codes"]
