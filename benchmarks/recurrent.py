"""A training step of an LSTM language model beside torch's own layer in a plain loop: python -m benchmarks.recurrent

Two layers of 256 on bytes of Python's reference manual, 32 windows of 64, Adam, clipping at 1. In turn, each in a process of
its own; medians over the rounds of the median step, with progress, metrics and a saved state on our side.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, LAYERS, CONTEXT, BATCH, VOCAB = 256, 2, 64, 32, 265


class Plain(nn.Module):
    """An embedding, torch's LSTM and a linear layer, as a tutorial writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, LAYERS, batch_first=True)
        self.out = nn.Linear(WIDTH, VOCAB)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(self.embed(tokens))[0])


def plain(steps: int) -> tuple[float, float]:
    """(seconds of a step, last loss) of the plain loop."""
    from pydoc_data.topics import topics

    torch.manual_seed(0)
    data = torch.frombuffer(bytearray("".join(topics[k] for k in sorted(topics)).encode()), dtype=torch.uint8).long() + 9
    model = Plain()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    taken, loss = [], torch.zeros(())
    for _ in range(steps):
        begun = time.perf_counter()
        starts = torch.randint(0, len(data) - CONTEXT - 1, (BATCH, 1))
        rows = data[starts + torch.arange(CONTEXT + 1)]
        optimizer.zero_grad()
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[3:]), float(loss)


def ours(steps: int, precision: str) -> tuple[float, float]:
    """(seconds of a step, last loss) of `engram train lstm`."""
    from engram.app.train import make_recipe, prepare, run_job, write_start
    from engram.checkpoint.folder import RunFolder
    from engram.core.plan import Stepped

    sizes = {"context": CONTEXT, "batch": BATCH, "width": WIDTH, "layers": LAYERS, "steps": steps, "evals": 1}
    sizes |= {"dropout": 0.0, "tied": False}
    text = {"data": "pydoc", "learn": "text", "vocab": "byte", "documents": "off"}
    optim = {"optim.name": "adam", "optim.lr": 2e-3, "optim.schedule": "constant", "optim.warmup": 0.0}
    machine = {"precision": precision, "threads": torch.get_num_threads()}
    job = prepare(*make_recipe("lstm", sizes | text | optim | machine))
    taken, last, losses = [], [time.perf_counter()], []

    def watch(event: Any, job: Any) -> None:
        if isinstance(event, Stepped):
            now = time.perf_counter()
            taken.append(now - last[0])
            losses.append(event.logs["model/loss"])
            last[0] = now

    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder.create(Path(place) / "run", "lstm")
        write_start(job, folder, [])
        run_job(job, folder, watch)
    return statistics.median(taken[3:]), float(losses[-1])


CONTENDERS = ("plain loop, fp32", "engram fp32", "engram bf16", "engram (its default)")


def run(name: str, steps: int, threads: int) -> tuple[float, float]:
    """One contender, in this process."""
    torch.set_num_threads(threads)
    if name.startswith("plain"):
        return plain(steps)
    return ours(steps, name.split()[1] if name.split()[1] in ("fp32", "bf16") else "auto")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        print("RESULT", *run(args.serve, args.steps, args.threads))
        return
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(args.rounds):
        for name in CONTENDERS:
            command = [sys.executable, "-m", "benchmarks.recurrent", "--serve", name, "--steps", str(args.steps)]
            done = subprocess.run([*command, "--threads", str(args.threads)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            taken, loss = done.stdout.rpartition("RESULT")[2].split()
            found[name].append((float(taken), float(loss)))
    base = statistics.median(t for t, _ in found[CONTENDERS[0]])
    for name, pairs in found.items():
        middle = statistics.median(t for t, _ in pairs)
        span = f"{min(t for t, _ in pairs) * 1e3:.0f} to {max(t for t, _ in pairs) * 1e3:.0f}"
        print(f"{name:22} {middle * 1e3:6.1f} ms ({span})  {base / middle:.2f}x  loss {pairs[-1][1]:.3f}")


if __name__ == "__main__":
    main()
