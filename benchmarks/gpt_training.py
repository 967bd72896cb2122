"""A training step of a GPT (6 layers, 384 wide, 256 tokens) beside transformers' Trainer: python -m benchmarks.gpt_training

In turn, each in a process of its own (what one sets, such as the allocator, must not help another). Each starts from
equal settings on the same batches, AdamW and clipping at 1; medians over the rounds of the median step. The share is of the
rate of a 1024 x 1024 bf16 or fp32 product measured in the same rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

LAYERS, HEADS, WIDTH, CONTEXT, BATCH, VOCAB = 6, 6, 384, 256, 8, 265


def rows(count: int) -> torch.Tensor:
    """Windows of Python's reference manual as bytes, (count, CONTEXT + 1)."""
    from pydoc_data.topics import topics

    data = torch.frombuffer(bytearray("".join(topics[k] for k in sorted(topics)).encode()), dtype=torch.uint8).long() + 9
    starts = torch.randint(0, len(data) - CONTEXT - 1, (count,), generator=torch.Generator().manual_seed(0))
    return torch.stack([data[s : s + CONTEXT + 1] for s in starts.tolist()])


class Theirs:
    """transformers.Trainer on its own GPT-2, logging and saving off."""

    def __init__(self, steps: int, threads: int, bf16: bool):
        self.steps, self.threads, self.bf16 = steps, threads, bf16

    def __call__(self) -> tuple[float, float]:
        from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

        torch.set_num_threads(self.threads)
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=VOCAB, n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )  # fmt: skip
        taken: list[float] = []

        class Clock(TrainerCallback):
            def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
                self.begun = time.perf_counter()

            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                taken.append(time.perf_counter() - self.begun)

        class Rows(torch.utils.data.Dataset):
            held = rows(self.steps * BATCH)

            def __len__(self) -> int:
                return len(self.held)

            def __getitem__(self, at: int) -> dict[str, torch.Tensor]:
                return {"input_ids": self.held[at, :-1], "labels": self.held[at, :-1]}

        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, max_steps=self.steps, per_device_train_batch_size=BATCH, learning_rate=1e-3, use_cpu=True,
                report_to=[], save_strategy="no", logging_strategy="steps", logging_steps=self.steps, disable_tqdm=True,
                lr_scheduler_type="constant", bf16=self.bf16,
            )  # fmt: skip
            trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=Rows(), callbacks=[Clock()])
            trainer.train()
        loss = [r["loss"] for r in trainer.state.log_history if "loss" in r][-1]
        return statistics.median(taken[2:]), loss


class Ours:
    """`engram train gpt` with the same network, progress and a saved state as always, on the precision it chooses."""

    def __init__(self, steps: int, threads: int, precision: str, **knobs: Any):
        self.steps, self.threads, self.precision, self.knobs = steps, threads, precision, knobs

    def __call__(self) -> tuple[float, float]:
        from engram.app.train import make_recipe, prepare, run_job, write_start
        from engram.checkpoint.folder import RunFolder
        from engram.core.plan import Stepped

        leaves = {"positions": "learned", "norm": "layer", "ffn": "gelu", "bias": True} | self.knobs
        optim = {"optim.name": "adamw", "optim.lr": 1e-3, "optim.beta2": 0.999, "optim.weight_decay": 0.0,
                 "optim.schedule": "constant", "optim.warmup": 0.0}  # fmt: skip
        job = prepare(*make_recipe("gpt", {
            "data": "pydoc", "vocab": "byte", "documents": "off", "context": CONTEXT, "batch": BATCH, "layers": LAYERS,
            "heads": HEADS, "width": WIDTH, "steps": self.steps, "evals": 1, "threads": self.threads,
            "precision": self.precision, **leaves, **optim,
        }))  # fmt: skip
        job.data = _Same(job.data, rows(self.steps * BATCH))  # type: ignore[assignment]
        taken: list[float] = []
        losses: list[torch.Tensor] = []
        last = [time.perf_counter()]

        def watch(event: Any, job: Any) -> None:
            if isinstance(event, Stepped):
                now = time.perf_counter()
                taken.append(now - last[0])
                losses.append(event.logs["model/loss"])
                last[0] = now

        with tempfile.TemporaryDirectory() as place:
            folder = RunFolder.create(Path(place) / "run", "gpt")
            write_start(job, folder, [])
            run_job(job, folder, watch)
        return statistics.median(taken[2:]), float(torch.stack(losses).mean())


class _Same:
    """The batches of the comparison in the place of the recipe's own; no evaluation."""

    def __init__(self, data: Any, held: torch.Tensor):
        self.spec, self.summary, self.batch, self.held, self.steps_per_epoch = data.spec, data.summary, BATCH, held, 1

    def batches(self, split: str, start: int = 0, part: tuple[int, int] = (0, 1)) -> Iterator[dict[str, torch.Tensor]]:
        for at in itertools.count(0, BATCH):
            some = self.held[at % len(self.held) :][:BATCH]
            yield {"tokens": some[:, :-1].contiguous(), "targets": some[:, 1:].contiguous()}

    def size(self, split: str) -> int:
        return len(self.held) if split == "train" else 0


def served(name: str, steps: int, threads: int) -> tuple[float, float]:
    """(seconds of a step, mean loss) of a contender in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpt_training",
        "--serve",
        name,
        "--steps",
        str(steps),
        "--threads",
        str(threads),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    taken, loss = done.stdout.rpartition("RESULT")[2].split()
    return float(taken), float(loss)


def matmul_rate(dtype: torch.dtype) -> float:
    """Multiply-adds per second of a square product, times two."""
    a = torch.randn(1024, 1024).to(dtype)
    best = 1e9
    for _ in range(12):
        begun = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begun)
    return 2 * 1024**3 / best


def work() -> float:
    """Floating-point operations of a step: three times those of the forward pass."""
    from engram.models.gpt import GPT

    return 6.0 * GPT(VOCAB, CONTEXT, LAYERS, HEADS, WIDTH).cost() * BATCH * CONTEXT


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    contenders: dict[str, Callable[[], tuple[float, float]]] = {
        "transformers Trainer, fp32 (its default)": Theirs(args.steps, args.threads, False),
        "transformers Trainer, bf16": Theirs(args.steps, args.threads, True),
        "engram fp32": Ours(args.steps, args.threads, "fp32"),
        "engram (its default: bf16)": Ours(args.steps, args.threads, "auto"),
    }
    if args.serve:
        print("RESULT", *contenders[args.serve]())
        return
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    losses: dict[str, float] = {}
    rates: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for number in range(args.rounds):
        for name in contenders:
            taken, losses[name] = served(name, args.steps, args.threads)
            seconds[name].append(taken)
            print(f"round {number + 1}  {name}: {taken * 1e3:.0f} ms", flush=True)
        torch.set_num_threads(args.threads)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            rates[name].append(matmul_rate(dtype))
    base = statistics.median(seconds["transformers Trainer, fp32 (its default)"])
    table = []
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        kind = "bf16" if "bf16" in name else "fp32"
        share = work() / middle / statistics.median(rates[kind])
        table.append({"name": name, "ms": middle * 1e3, "ratio": base / middle, "loss": losses[name], "share": share})
        said = f"mean loss {losses[name]:.3f}  {share:.0%} of {kind} products"
        print(f"{name:42} {middle * 1e3:7.0f} ms  {base / middle:5.2f}x  {said}")
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
