"""One epoch of training, side by side.  python -m benchmarks.training mlp | cnn | table"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.harness import ROWS, Contender, compare, finish, options
from benchmarks.worker import serve

if TYPE_CHECKING:
    from benchmarks.loops import Contestant

CLASSES = {
    "hand": "loops:Hand",
    "dataloader": "loops:WithLoader",
    "tutorial": "loops:Tutorial",
    "engram": "ours:Engram",
    "engram_default": "ours:EngramDefault",
    "lightning": "peers:Lightning",
    "lightning_bare": "peers:LightningBare",
    "trainer": "peers:HFTrainer",
    "keras_torch": "keras_peers:Keras",
    "keras_jax": "keras_peers:KerasJax",
    "skorch": "peers:Skorch",
    "sklearn": "peers:Sklearn",
}
ABOUT = {
    "mlp": "784-256-10 ReLU on MNIST (synthetic without ENGRAM_DATA), batch 128, Adam 1e-3, one epoch",
    "cnn": "conv 32, conv 64, pool, dense 128 on 28x28 MNIST (synthetic without ENGRAM_DATA), batch 128, Adam 1e-3, one epoch",
    "table": "10 features, 64-64 ReLU, 2 classes, 20,000 synthetic rows, batch 32, Adam 1e-3, one epoch",
}


def contestant(work: str, name: str, quick: bool, threads: int) -> Contestant:
    """A contender, in this process."""
    from benchmarks.workloads import workload

    module, _, cls = CLASSES[name].partition(":")
    return getattr(importlib.import_module(f"benchmarks.{module}"), cls)(workload(work, quick), threads)


def command(work: str, name: str, quick: bool, threads: int) -> tuple[str, ...]:
    """The worker process of a contender, after the Python executable."""
    return ("-m", "benchmarks.training", "--serve", work, name, str(int(quick)), str(threads))


def contenders(work: str, quick: bool, threads: int, names: Sequence[str] = tuple(CLASSES)) -> list[Contender]:
    """Those that can do the workload."""
    able = [n for n in names if not (work == "cnn" and n == "sklearn")]
    offline = {"HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
    return [Contender(n, command(work, n, quick, threads), offline) for n in able]


def worker(work: str, name: str, quick: str, threads: str) -> None:
    """Serve one contender; it is built at the first question, so that a package that is missing becomes a reply."""
    made: list[Contestant] = []

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        if not made:
            made.append(contestant(work, name, quick == "1", int(threads)))
        return made[0].hello() if question["do"] == "hello" else made[0].run(question["round"])

    serve(answer)


def main() -> int:
    """The command line."""
    if sys.argv[1:2] == ["--serve"]:
        worker(*sys.argv[2:])
        return 0
    parser = options(__doc__ or "")
    parser.add_argument("work", choices=ABOUT)
    parser.add_argument("--rows", type=int, default=0, help="only so many rows of MNIST: a shorter run of the same steps")
    asked = parser.parse_args()
    unknown = set(asked.only) - set(CLASSES)
    if unknown:
        parser.error(f"unknown contender {', '.join(sorted(unknown))}; there are {', '.join(CLASSES)}")
    os.environ[ROWS] = str(asked.rows)
    made = contenders(asked.work, asked.quick, asked.threads)
    about = ABOUT[asked.work] + (f", the first {asked.rows:,} rows" if asked.rows else "")
    name = asked.work + (f"-{asked.threads}-threads" if asked.threads else "")
    return finish(compare(name, made, asked, reference="hand", about=about))


if __name__ == "__main__":
    sys.exit(main())
