"""What is trained: data, network and settings of `mlp`, `cnn` and `table`, the same for every contender."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import ROWS


@dataclass(frozen=True)
class Workload:
    """One epoch of Adam (betas 0.9 and 0.999, no weight decay) at a constant rate, fp32 tensors in memory."""

    name: str
    about: str
    x: Tensor  # (rows, *shape) float32
    y: Tensor  # (rows,) int64
    test_x: Tensor
    test_y: Tensor
    network: Callable[[], nn.Module]  # as a tutorial writes it
    batch: int
    quick: bool = False
    hidden: tuple[int, ...] = ()  # widths, for contenders that build the network themselves; empty for the CNN
    classes: int = 10
    lr: float = 1e-3

    @property
    def steps(self) -> int:
        """Optimizer steps of the epoch, the last short batch included."""
        return -(-len(self.x) // self.batch)


@functools.cache
def workload(name: str, quick: bool = False) -> Workload:
    """One of `WORKLOADS`; `quick` is eight steps of synthetic data."""
    return WORKLOADS[name](quick)


def _mlp(quick: bool) -> Workload:
    x, y, test_x, test_y, source = _digits(128, quick)
    return Workload(
        "mlp", f"784-256-10 ReLU, {source}", x.flatten(1), y, test_x.flatten(1), test_y, lambda: dense(784, (256,), 10),
        batch=128, quick=quick, hidden=(256,),
    )  # fmt: skip


def _cnn(quick: bool) -> Workload:
    batch = 16 if quick else 128
    x, y, test_x, test_y, source = _digits(batch, quick)
    about = f"28x28: conv 32, conv 64 (3x3), max pool, dense 128, 10 classes, {source}"
    return Workload("cnn", about, x, y, test_x, test_y, convolutional, batch=batch, quick=quick)


def _table(quick: bool) -> Workload:
    rows, random = (8 * 32 if quick else 20_000), torch.Generator().manual_seed(0)
    x = torch.randn(rows + 2_000, 10, generator=random)
    score = x[:, 0] * x[:, 1] + x[:, 2].sin() + x[:, 3:].sum(1) / 3 + 0.3 * torch.randn(len(x), generator=random)
    y = (score > 0).long()
    return Workload(
        "table", f"10 features, 64-64 ReLU, 2 classes, synthetic, {rows:,} rows", x[:rows], y[:rows], x[rows:], y[rows:],
        lambda: dense(10, (64, 64), 2), batch=32, quick=quick, hidden=(64, 64), classes=2,
    )  # fmt: skip


WORKLOADS = {"mlp": _mlp, "cnn": _cnn, "table": _table}


def dense(features: int, hidden: tuple[int, ...], classes: int) -> nn.Sequential:
    """Linear layers with ReLU between."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(features, width), nn.ReLU()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, classes))


def convolutional() -> nn.Sequential:
    """The network of the usual MNIST tutorial, without its dropout, so that every contender computes the same."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def _digits(batch: int, quick: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, str]:
    """MNIST from ENGRAM_DATA standardised to float32 (rows, 1, 28, 28), or noisy prototypes of the same shape."""
    home = os.environ.get("ENGRAM_DATA")
    if home and not quick:
        from engram.data.idx import read_idx

        folder = Path(home) / "mnist"
        sets = []
        for part in ("train", "t10k"):
            images = torch.from_numpy(read_idx(folder / f"{part}-images-idx3-ubyte.gz", 3).copy())
            labels = torch.from_numpy(read_idx(folder / f"{part}-labels-idx1-ubyte.gz", 1).copy())
            sets += [((images.float() / 255 - 0.1307) / 0.3081)[:, None], labels.long()]
        rows = int(os.environ.get(ROWS, "0")) or len(sets[0])
        return sets[0][:rows], sets[1][:rows], sets[2], sets[3], f"MNIST {len(sets[0][:rows]):,} rows"
    rows, tests = (8 * batch, 256) if quick else (60_000, 10_000)
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.randn(10, 1, 28, 28, generator=generator)
    y = torch.randint(0, 10, (rows + tests,), generator=generator)
    x = torch.randn(rows + tests, 1, 28, 28, generator=generator).mul_(2).add_(prototypes[y])
    return x[:rows], y[:rows], x[rows:], y[rows:], f"synthetic, {rows:,} rows"


@torch.no_grad()
def figures(network: Callable[[Tensor], Tensor], work: Workload) -> dict[str, float]:
    """Accuracy and cross-entropy on the test rows, of logits."""
    loss = right = 0.0
    for x, y in zip(work.test_x.split(1000), work.test_y.split(1000), strict=True):
        logits = network(x).float()
        loss += float(F.cross_entropy(logits, y, reduction="sum"))
        right += float((logits.argmax(1) == y).sum())
    return {"accuracy": right / len(work.test_y), "loss": loss / len(work.test_y)}
