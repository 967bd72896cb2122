"""Files that are whole or not there: written beside, flushed, then renamed over. Tensors in safetensors, never pickle."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engram.core.errors import RunError
from engram.core.snapshot import Snapshot

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL", torch.uint16: "U16",
    torch.uint32: "U32", torch.uint64: "U64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
}  # fmt: skip
_BLANK = "00000000"  # where the checksum of a header goes


class Layout:
    """Where each tensor lies in a safetensors file: a header, then the bytes end to end."""

    def __init__(self, tensors: dict[str, Tensor]):
        self.spans: dict[str, tuple[int, int]] = {}
        self.entries: dict[str, Any] = {}
        at = 0
        # widest items first keeps every tensor aligned to its own size
        for name, t in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
            if t.dtype not in _NAMES:
                raise RunError(f"cannot save {name}: safetensors has no {t.dtype}; keep it as another type")
            end = at + t.numel() * t.element_size()
            self.spans[name] = (at, end)
            self.entries[name] = {"dtype": _NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [at, end]}
            at = end
        self.size = at

    def fits(self, tensors: dict[str, Tensor]) -> bool:
        """Whether these tensors have the names, shapes and types this layout was made for."""
        return self.entries.keys() == tensors.keys() and all(
            e["shape"] == list(t.shape) and e["dtype"] == _NAMES.get(t.dtype)
            for e, t in ((self.entries[n], t) for n, t in tensors.items())
        )

    def copy(self, tensors: dict[str, Tensor], buffer: Tensor) -> None:
        """Copy the tensors into a byte buffer at their places."""
        for name, t in tensors.items():
            start, end = self.spans[name]
            if end > start:
                buffer[start:end].view(t.dtype).view(t.shape).copy_(t.detach())

    def header(self, facts: dict[str, Any], checksum: int) -> bytes:
        """The safetensors header with the facts as JSON in its metadata, padded to 8 bytes.

        `checksum` is the CRC-32 of the data; the one written goes on over this header, so a changed fact is noticed too.
        """
        metadata = {"crc32": _BLANK, "engram": json.dumps(facts)}
        text = json.dumps({"__metadata__": metadata, **self.entries}).encode()
        text += b" " * (-len(text) % 8)
        text = text.replace(_BLANK.encode(), b"%08x" % zlib.crc32(text, checksum), 1)
        return len(text).to_bytes(8, "little") + text


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Replace `path` by these bytes in one step. Raises RunError (disk full, no permission); the old file is then untouched."""
    beside = path.with_name(path.name + ".tmp")
    try:
        with open(beside, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {reason(error)}; what was saved before is untouched") from None


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step; numbers that are not finite become null, so that any JSON reader opens it."""
    write_bytes(path, (json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def finite(value: Any) -> Any:
    """JSON values with null for NaN and infinity, which JSON cannot say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises RunError when it is missing or damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing: {path.parent} is not a complete run folder") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is damaged ({error}); restore it from a copy or train again") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason(error)}") from None


def write_tensors(path: Path, snapshot: Snapshot) -> None:
    """Write a snapshot now; `StateWriter` does it beside the training."""
    layout = Layout(snapshot.tensors)
    buffer = torch.empty(layout.size, dtype=torch.uint8)
    layout.copy(snapshot.tensors, buffer)
    data = memoryview(buffer.numpy())  # type: ignore[arg-type]
    write_bytes(path, layout.header(snapshot.facts, zlib.crc32(data)), data)


def read_tensors(path: Path) -> Snapshot:
    """Read a snapshot and check its checksum. Raises RunError when the file is missing, damaged or not safetensors."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError:
        raise RunError(f"{path} is missing: nothing was saved there yet, or the run folder is incomplete") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason(error)}") from None
    # the size of a safetensors header may begin with the same bytes, but its ninth byte is always a brace
    if start[8:] not in (b"{", b"") and start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"):
        raise RunError(f"{path} holds pickle, which can run code when opened; it was not opened. Engram reads safetensors only")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, ValueError, OSError) as error:
        raise RunError(f"{path} is damaged ({error}); it was not used") from None
    if not metadata.keys() & {"engram", "crc32"}:
        return Snapshot(tensors, {})  # written by another program
    if _checksum(path, metadata.get("crc32", "")) != metadata.get("crc32"):
        raise RunError(f"{path} is damaged (its checksum differs); it was not used")
    return Snapshot(tensors, json.loads(metadata["engram"]))


def _checksum(path: Path, written: str) -> str:
    """The checksum of data and header, computed with the place of the checksum blank, as it was written."""
    value = 0
    with path.open("rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
        while chunk := file.read(1 << 24):
            value = zlib.crc32(chunk, value)
    return f"{zlib.crc32(header.replace(written.encode(), _BLANK.encode(), 1), value):08x}"


def reason(error: OSError) -> str:
    """What the operating system said, in words a person can act on."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "no write permission; choose another folder with --out"
    return error.strerror or str(error)
