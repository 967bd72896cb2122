"""metrics.jsonl: one JSON object per line, append only. A torn last line after a crash is skipped, never fatal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import IO, Any

from engram.checkpoint.files import reason
from engram.core.errors import RunError


class MetricsLog:
    """Appends records {"kind", "step", ...}; flushed line by line. `begun`: the file held some already.

    One process writes a run: the file is locked while it is open. Raises RunError when another process holds it.
    """

    def __init__(self, path: Path):
        try:
            self.begun = path.exists() and path.stat().st_size > 0
            torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise RunError(f"cannot write {path}: {reason(error)}") from None
        self._path = path
        if not _locked(self._file):
            self._file.close()
            raise RunError(f"{path.parent} is being trained by another process; wait until it ends, or stop it (Ctrl-C saves)")
        if torn:
            self._file.write("\n")

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append one record; numbers that are not finite are written as null, so that any JSON reader opens the file."""
        record = {"kind": kind, "step": step} | {k: _plain(v) for k, v in values.items()}
        try:
            self._file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise RunError(f"cannot write {self._path}: {reason(error)}; the last saved state is kept") from None

    def close(self) -> None:
        """Close the file. Raises RunError when the last lines cannot be written."""
        try:
            self._file.close()
        except OSError as error:
            raise RunError(f"cannot write {self._path}: {reason(error)}; the last saved state is kept") from None


def _locked(file: IO[str]) -> bool:
    """Whether the file is this process's now; the lock goes with the process. Systems without such locks always agree."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records in order. What a resumed run did again counts once: records after the step it went back to are dropped."""
    if not path.exists():
        return []
    records: list[dict[str, Any]] = []
    for line in path.read_text("utf-8", errors="replace").split("\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue  # torn by a crash
        if not isinstance(record, dict) or "kind" not in record or not isinstance(record.get("step"), int):
            continue
        if record["kind"] == "resume":
            records = [r for r in records if r["step"] <= record["step"]]
        records.append(record)
    return records


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.8g}") if math.isfinite(value) else None  # digits that matter: 1e-9 stays 1e-9
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
