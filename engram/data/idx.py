"""The IDX format of the MNIST family: two zero bytes, a type, the number of dimensions, their sizes (big endian), values."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from engram.core.errors import DataError

UBYTE = 0x08


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """A gzipped IDX file of unsigned bytes as uint8. Raises DataError when it is damaged or of another shape."""
    try:
        with gzip.open(path, "rb") as stream:
            data = stream.read()
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise DataError(f"{path} cannot be read as gzip ({error}); delete it or get it again") from None
    start = 4 + 4 * dimensions
    if len(data) < start or data[:4] != bytes([0, 0, UBYTE, dimensions]):
        raise DataError(f"{path} is not an IDX file of bytes with {dimensions} dimensions; delete it or get it again")
    sizes = [int(n) for n in np.frombuffer(data, ">u4", dimensions, offset=4)]
    wanted = 1
    for n in sizes:
        wanted *= n
    if len(data) - start != wanted:
        shape = "x".join(map(str, sizes))
        raise DataError(f"{path} says it holds {shape} bytes but has {len(data) - start:,}; delete it or get it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(sizes)
