"""A contender's process: answers JSON lines from standard input, one at a time, and sleeps in between."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def serve(answer: Answer) -> None:
    """Answer every question until standard input ends. What libraries print goes to standard error, the terminal."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception:  # whatever a peer raises becomes the reply: the driver shows it and goes on with the others
            reply = {"error": traceback.format_exc()}
        out.write(json.dumps(reply) + "\n")
        out.flush()


class Timed:
    """Wall and processor seconds of a block, and the share of the machine's cores that somebody else used meanwhile."""

    seconds = cpu = 0.0
    foreign: float | None = None

    def __enter__(self) -> Timed:
        self._busy = busy_seconds()
        self._cpu = own_seconds()
        self._start = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.seconds = time.perf_counter() - self._start
        self.cpu = own_seconds() - self._cpu
        busy = busy_seconds()
        if busy is not None and self._busy is not None:
            share = (busy - self._busy - self.cpu) / (self.seconds * (os.cpu_count() or 1))
            self.foreign = round(max(0.0, share), 3)

    def to_json(self) -> dict[str, Any]:
        """For a reply."""
        return {"seconds": self.seconds, "cpu": self.cpu, "foreign": self.foreign}


def own_seconds() -> float:
    """Processor seconds of this process, its threads and the children it has waited for."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def busy_seconds() -> float | None:
    """Processor seconds of the whole machine, stolen ones included (Linux; None elsewhere). Counts in hundredths."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            user, nice, system, _idle, _wait, irq, soft, steal, *_ = map(int, file.readline().split()[1:])
    except OSError:
        return None
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def versions(*packages: str) -> dict[str, str]:
    """Installed versions. Raises PackageNotFoundError for one that is missing, which takes the contender out of the run."""
    return {name: importlib.metadata.version(name) for name in packages}
