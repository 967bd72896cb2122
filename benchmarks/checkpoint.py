"""How long saving keeps the training waiting: a state of 500 MB.  python -m benchmarks.checkpoint

Timed is the call on the step path. Engram's call copies and returns, a thread writes and flushes to the disk; `on_disk` is
the time from the call until the file is whole. torch.save and safetensors return when the file is written, not flushed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Contender, compare, finish, options
from benchmarks.worker import Timed, serve, versions

NOTES = {
    "torch_save": "torch.save of the state dict, in the loop",
    "safetensors": "safetensors.torch.save_file, in the loop",
    "engram": "StateWriter.save after StateWriter.prepare; the thread's work is waited for between rounds",
}


def state(megabytes: int) -> dict[str, Tensor]:
    """Weights of equal layers and Adam's two moments for each."""
    side = 1024 if megabytes > 50 else 128
    layers = max(1, round(megabytes * 1e6 / (3 * 4 * side * side)))
    names = [f"{kind}/layers.{n}.weight" for n in range(layers) for kind in ("task", "exp_avg", "exp_avg_sq")]
    return {name: torch.randn(side, side) for name in names}


class Saver:
    """One way of saving the same state."""

    def __init__(self, name: str, folder: str, megabytes: int):
        from engram.checkpoint.writer import StateWriter

        self.name, self.tensors = name, state(megabytes)
        self.size = sum(t.numel() * t.element_size() for t in self.tensors.values())
        self.path = Path(folder) / f"{name}.state"
        self.writer = StateWriter()
        if name == "engram":
            self.writer.prepare(self.path, self.size)
        ways = {"torch_save": self._torch, "safetensors": self._safetensors, "engram": self._engram}
        self.save: Callable[[], None] = ways[name]

    def _torch(self) -> None:
        torch.save(self.tensors, self.path)  # the peer's own format: written, never read

    def _safetensors(self) -> None:
        from safetensors.torch import save_file

        save_file(self.tensors, self.path)

    def _engram(self) -> None:
        from engram.core.snapshot import Snapshot

        self.writer.save(self.path, Snapshot(self.tensors, {"at": {"step": 1}}))

    def hello(self) -> dict[str, Any]:
        """What the row says of itself."""
        made = versions("torch", "safetensors")
        return {"versions": made, "threads": torch.get_num_threads(), "precision": "fp32", "note": NOTES[self.name]}

    def run(self) -> dict[str, Any]:
        """One save. Raises RuntimeError when the file does not hold the state."""
        started = time.perf_counter()
        with Timed() as clock:
            self.save()
        self.writer.wait()
        whole = time.perf_counter() - started
        if self.path.stat().st_size < self.size:
            raise RuntimeError(f"{self.path} is smaller than the state")
        self.path.unlink()
        return clock.to_json() | {"units": 1, "figures": {"on_disk": whole, "megabytes": self.size / 1e6}}


def worker(name: str, folder: str, megabytes: str) -> None:
    """Serve one contender."""
    made: list[Saver] = []

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        if not made:
            made.append(Saver(name, folder, int(megabytes)))
        return made[0].hello() if question["do"] == "hello" else made[0].run()

    serve(answer)


def main() -> int:
    """The command line."""
    if sys.argv[1:2] == ["--serve"]:
        worker(*sys.argv[2:])
        return 0
    asked = options((__doc__ or "").splitlines()[0]).parse_args()
    megabytes = 5 if asked.quick else 500
    with tempfile.TemporaryDirectory() as scratch:
        ends = (scratch, str(megabytes))
        rows = [Contender(name, ("-m", "benchmarks.checkpoint", "--serve", name, *ends)) for name in NOTES]
        about = f"{megabytes} MB of fp32 tensors: seconds on the step path, and until the file is whole"
        return finish(compare("checkpoint", rows, asked, reference="torch_save", unit="save", about=about))


if __name__ == "__main__":
    sys.exit(main())
