"""How long saving keeps the training waiting: a state of 500 MB.  python -m benchmarks.checkpoint

Timed is the call on the step path. Engram's call copies and returns, a thread writes and flushes to the disk; `on_disk` is
the time from the call until the file is whole when nothing else runs. torch.save and safetensors return when the file is
written, not flushed. `slowdown` is what a save costs a training that keeps every core busy: seconds of STEPS steps with a
save before the first, less those of STEPS steps without (before and after); what a thread takes away from the steps is in it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.harness import Contender, compare, finish, options
from benchmarks.worker import Timed, serve, versions

STEPS = 6
NOTES = {
    "torch_save": "torch.save of the state dict, in the loop",
    "safetensors": "safetensors.torch.save_file, in the loop",
    "engram": "StateWriter.save after StateWriter.prepare; the thread's work is waited for between rounds",
}


def training(megabytes: int) -> tuple[nn.Sequential, torch.optim.Adam]:
    """Equal layers, and Adam with its two moments for each weight: `megabytes` together."""
    side = 1024 if megabytes > 50 else 128
    layers = max(1, round(megabytes * 1e6 / (3 * 4 * side * side)))
    network = nn.Sequential(*[nn.Linear(side, side, bias=False) for _ in range(layers)])
    return network, torch.optim.Adam(network.parameters(), lr=1e-6, fused=True)


class Saver:
    """One way of saving the same state."""

    def __init__(self, name: str, folder: str, megabytes: int):
        from engram.app.machine import keep_memory
        from engram.checkpoint.writer import StateWriter

        keep_memory()  # for all: it changes the steps, and these are not what is compared
        self.name = name
        self.network, self.optimizer = training(megabytes)
        self.rows = torch.randn(64, self.network[0].in_features)  # type: ignore[arg-type]
        self.steps(1)
        self.tensors = {f"task/{n}": p.detach() for n, p in self.network.named_parameters()}
        for key in ("exp_avg", "exp_avg_sq"):
            self.tensors |= {f"{key}/{n}": self.optimizer.state[p][key] for n, p in self.network.named_parameters()}
        self.size = sum(t.numel() * t.element_size() for t in self.tensors.values())
        self.path = Path(folder) / f"{name}.state"
        self.writer = StateWriter()
        if name == "engram":
            self.writer.prepare(self.path, self.size)
        ways = {"torch_save": self._torch, "safetensors": self._safetensors, "engram": self._engram}
        self.save: Callable[[], None] = ways[name]

    def steps(self, count: int, save: bool = False) -> float:
        """Seconds of some training steps, with a save before the first if asked."""
        started = time.perf_counter()
        if save:
            self.save()
        for _ in range(count):
            self.optimizer.zero_grad()
            self.network(self.rows).square().mean().backward()
            self.optimizer.step()
        return time.perf_counter() - started

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
        os.sync()  # what the last save left for the system to write is not to disturb the steps
        before = self.steps(STEPS)
        saved = self.steps(STEPS, save=True)
        self.writer.wait()
        self.path.unlink()
        os.sync()
        plain = (before + self.steps(STEPS)) / 2
        slowdown = saved - plain
        figures = {"on_disk": whole, "slowdown": slowdown, "steps_alone": plain, "megabytes": self.size / 1e6}
        return clock.to_json() | {"units": 1, "figures": figures}


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
