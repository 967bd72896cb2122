"""What starting costs: a fresh process per round and library.  python -m benchmarks.imports"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from typing import Any

from benchmarks.harness import Contender, compare, finish, options
from benchmarks.worker import busy_seconds, serve, versions

HELP = "import sys; sys.argv = ['engram', '--help']; from engram.app.cli import main; main()"
CODE: dict[str, tuple[str, tuple[str, ...]]] = {
    "torch": ("import torch", ("torch",)),
    "python": ("pass", ()),
    "engram": ("import engram", ()),
    "engram_help": (HELP, ("click",)),
    "engram_train": ("import engram; engram.train", ("torch",)),
    "sklearn": ("import sklearn.neural_network", ("scikit-learn",)),
    "skorch": ("import skorch", ("skorch", "torch")),
    "lightning": ("import lightning", ("lightning", "torch")),
    "transformers": ("import transformers", ("transformers",)),
    "trainer": ("from transformers import Trainer", ("transformers", "torch")),
    "keras_torch": ("import keras", ("keras", "torch")),
    "keras_jax": ("import keras", ("keras", "jax")),
}


def start(name: str) -> dict[str, Any]:
    """Run the statement in a new interpreter until it ends. Raises RuntimeError with what it said when it fails."""
    busy, before, begun = busy_seconds(), resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CODE[name][0]], capture_output=True, text=True, check=False)
    seconds, after, busy_after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN), busy_seconds()
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    foreign = None
    if busy is not None and busy_after is not None:
        import os

        foreign = round(max(0.0, (busy_after - busy - cpu) / (seconds * (os.cpu_count() or 1))), 3)
    return {"seconds": seconds, "cpu": cpu, "foreign": foreign, "units": 1, "figures": {}}


def worker(name: str) -> None:
    """Serve one contender: this process stays small, and starts the one that is timed."""

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        if question["do"] == "hello":
            return {"versions": versions(*CODE[name][1]), "note": CODE[name][0] if name != "engram_help" else "engram --help"}
        return start(name)

    serve(answer)


def main() -> int:
    """The command line."""
    if sys.argv[1:2] == ["--serve"]:
        worker(sys.argv[2])
        return 0
    asked = options(__doc__ or "").parse_args()
    rows = [
        Contender(name, ("-m", "benchmarks.imports", "--serve", name), {"KERAS_BACKEND": name.removeprefix("keras_")})
        for name in CODE
    ]
    about = "start of a fresh process with a warm file cache, its exit included"
    return finish(compare("imports", rows, asked, reference="torch", unit="start", about=about))


if __name__ == "__main__":
    sys.exit(main())
