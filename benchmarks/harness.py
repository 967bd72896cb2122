"""The driver: each contender in its own process, warmed up once, then rounds A B C A B C ...; only one computes at a time."""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import platform
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.show import machine, summarise, table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ROWS = "ENGRAM_BENCHMARK_ROWS"  # inherited by workers: how many rows of MNIST are trained on; 0 or none = all


@dataclass(frozen=True)
class Contender:
    """`command` follows the Python executable. With `neighbour` a busy process competes for the cores during its rounds."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    neighbour: bool = False


class Worker:
    """A running contender. Its standard error is a terminal, so that progress bars cost what they cost a user."""

    def __init__(self, contender: Contender, environment: dict[str, str]):
        self.contender = contender
        self.said: collections.deque[str] = collections.deque(maxlen=40)
        self._near, far = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, *contender.command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=far, text=True, cwd=ROOT,
            env=os.environ | environment | contender.environment,
        )  # fmt: skip
        os.close(far)
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone when the process is
            while piece := os.read(self._near, 65536):
                self.said.append(piece.decode("utf-8", errors="replace"))

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Send a question and wait for the reply; {"error": ...} when the process died."""
        assert self.process.stdin
        assert self.process.stdout
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            return {"error": f"the process ended with {self.process.wait()}: {''.join(self.said)[-2000:]}"}
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        assert self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._reader.join(timeout=5)
        os.close(self._near)


@contextlib.contextmanager
def busy_neighbour(wanted: bool = True) -> Iterator[None]:
    """A process that computes on one core without end."""
    if not wanted:
        yield
        return
    code = "print(flush=True)\nwhile True: sum(range(100000))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def options(about: str) -> argparse.ArgumentParser:
    """The options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="a few steps on made-up data: does everything run?")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds of every contender")
    parser.add_argument("--threads", type=int, default=0, help="processor threads of each contender; 0 = all cores")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these contenders and the reference")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file; quick runs write none")
    return parser


def thread_environment(threads: int) -> dict[str, str]:
    """Environment that holds OpenMP and the BLAS libraries to a number of threads; empty when none is asked for."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(threads)) if threads else {}


def compare(
    name: str,
    contenders: Sequence[Contender],
    asked: argparse.Namespace,
    *,
    reference: str,
    unit: str = "step",
    about: str = "",
) -> dict[str, Any]:
    """Run, print the table, write results/<name>.json, and return what was written.

    A contender that fails is reported with its error and left out of the remaining rounds.
    """
    chosen = [c for c in contenders if not asked.only or c.name in asked.only or c.name == reference]
    rounds = 1 if asked.quick else asked.rounds
    environment = {"PYTHONPATH": str(ROOT), "COLUMNS": "120", "TERM": "xterm"} | thread_environment(asked.threads)
    found: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        workers = {c.name: Worker(c, environment) for c in chosen}
        for worker in workers.values():
            stack.callback(worker.close)
        for number in range(-1, rounds):  # -1 warms up
            for c in chosen:
                if "error" not in found.get(c.name, {}):
                    _round(workers[c.name], number, found.setdefault(c.name, {"name": c.name, "rounds": []}))
    for row in found.values():
        row["summary"] = summarise(row["rounds"], found[reference]["rounds"])
    result = {
        "name": name,
        "about": about,
        "unit": unit,
        "reference": reference,
        "rounds": rounds,
        "order": "one warm-up each (its first run, reported apart), then in turn: " + " ".join(c.name for c in chosen),
        "machine": machine(),
        "python": platform.python_version(),
        "contenders": list(found.values()),
    }
    print(table(result))
    if not asked.quick:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _round(worker: Worker, number: int, row: dict[str, Any]) -> None:
    """One run of one contender; before the warm-up it says what it is."""
    if number < 0:
        row |= worker.ask({"do": "hello"}) | {"neighbour": worker.contender.neighbour}
        if "error" in row:
            return
    print(f"{worker.contender.name}: {f'round {number + 1}' if number >= 0 else 'warm-up'}", file=sys.stderr)
    with busy_neighbour(worker.contender.neighbour):
        reply = worker.ask({"do": "run", "round": number})
    row |= reply.pop("chosen", {})  # what a contender decided by itself
    if "error" in reply:
        row["error"] = reply["error"]
    elif number < 0:
        row["first"] = reply
    else:
        row["rounds"].append(reply)


def finish(result: dict[str, Any]) -> int:
    """The exit code of a benchmark: 1 when a contender failed."""
    return int(any("error" in row for row in result["contenders"]))
