"""Files that are whole or not there: written beside, flushed to disk, then renamed over. Tensors in safetensors, never pickle."""

from __future__ import annotations

import errno
import json
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
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class Layout:
    """Where each tensor lies in a safetensors file: a header, then the bytes end to end."""

    def __init__(self, tensors: dict[str, Tensor]):
        self.spans: dict[str, tuple[int, int]] = {}
        self.entries: dict[str, Any] = {}
        at = 0
        # widest items first keeps every tensor aligned to its own size
        for name, t in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
            end = at + t.numel() * t.element_size()
            self.spans[name] = (at, end)
            self.entries[name] = {"dtype": _NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [at, end]}
            at = end
        self.size = at

    def fits(self, tensors: dict[str, Tensor]) -> bool:
        """Whether these tensors have the names, shapes and types this layout was made for."""
        return self.entries.keys() == tensors.keys() and all(
            e["shape"] == list(t.shape) and e["dtype"] == _NAMES[t.dtype]
            for e, t in ((self.entries[n], t) for n, t in tensors.items())
        )

    def copy(self, tensors: dict[str, Tensor], buffer: Tensor) -> None:
        """Copy the tensors into a byte buffer at their places."""
        for name, t in tensors.items():
            start, end = self.spans[name]
            if end > start:
                buffer[start:end].view(t.dtype).view(t.shape).copy_(t.detach())

    def header(self, facts: dict[str, Any], checksum: int) -> bytes:
        """The safetensors header with the facts as JSON in its metadata, padded to 8 bytes."""
        metadata = {"engram": json.dumps(facts), "crc32": str(checksum)}
        text = json.dumps({"__metadata__": metadata, **self.entries}).encode()
        text += b" " * (-len(text) % 8)
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
        beside.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {reason(error)}; what was saved before is untouched") from None


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


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
    data = memoryview(buffer.numpy())
    write_bytes(path, layout.header(snapshot.facts, zlib.crc32(data)), data)


def read_tensors(path: Path) -> Snapshot:
    """Read a snapshot and check its checksum. Raises RunError when the file is missing, damaged or not safetensors."""
    try:
        start = path.open("rb").read(8)
    except FileNotFoundError:
        raise RunError(f"{path} is missing: nothing was saved there yet, or the run folder is incomplete") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason(error)}") from None
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"):
        raise RunError(f"{path} holds pickle, which can run code when opened; it was not opened. Engram reads safetensors only")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, ValueError, OSError) as error:
        raise RunError(f"{path} is damaged ({error}); it was not used") from None
    if "crc32" in metadata and _checksum(path) != int(metadata["crc32"]):
        raise RunError(f"{path} is damaged (its checksum differs); it was not used")
    return Snapshot(tensors, json.loads(metadata.get("engram", "{}")))


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        while chunk := file.read(1 << 24):
            value = zlib.crc32(chunk, value)
    return value


def reason(error: OSError) -> str:
    """What the operating system said, in words a person can act on."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "no write permission; choose another folder with --out"
    return error.strerror or str(error)
