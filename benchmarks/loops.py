"""Contenders written by hand in plain torch: `hand`, `dataloader`, `tutorial`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.worker import Timed, versions
from benchmarks.workloads import Workload, figures


class Contestant:
    """Trains one epoch per `run`, from new weights drawn with the round's seed."""

    note = ""
    precision = "fp32"
    allocator = "glibc as it comes"
    packages: tuple[str, ...] = ("torch",)

    def __init__(self, work: Workload, threads: int):
        self.work, self.threads = work, threads
        if threads:
            torch.set_num_threads(threads)

    def hello(self) -> dict[str, Any]:
        """What the row says of itself."""
        return {
            "versions": versions(*self.packages), "threads": torch.get_num_threads(), "precision": self.precision,
            "allocator": self.allocator, "note": self.note,
        }  # fmt: skip

    def run(self, seed: int) -> dict[str, Any]:
        """Build, then train under the clock, then measure: {"seconds", "cpu", "foreign", "setup", "units", "figures"}."""
        torch.manual_seed(seed)
        with Timed() as setup:
            self.build(seed)
        with Timed() as clock:
            self.train()
        return clock.to_json() | {"setup": setup.seconds, "units": self.work.steps, "figures": self.measure()}

    def build(self, seed: int) -> None:
        """New weights, optimizer, trainer."""
        raise NotImplementedError

    def train(self) -> None:
        """One epoch."""
        raise NotImplementedError

    def measure(self) -> dict[str, float]:
        """Figures on the test rows."""
        raise NotImplementedError


class TorchContestant(Contestant):
    """Holds an nn.Module as `network`."""

    network: nn.Module

    def measure(self) -> dict[str, float]:
        """See Contestant."""
        return figures(self.network.eval(), self.work)


class Hand(TorchContestant):
    """The loop of someone who knows torch: index one tensor, fused Adam, nothing else."""

    note = "rows by index, fused Adam, no logging, no clipping"

    def build(self, seed: int) -> None:
        """See Contestant."""
        self.network = self.work.network()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=self.work.lr, fused=True)

    def train(self) -> None:
        """See Contestant."""
        x, y, network, optimizer = self.work.x, self.work.y, self.network, self.optimizer
        for index in torch.randperm(len(x)).split(self.work.batch):
            loss = F.cross_entropy(network(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


class WithLoader(Hand):
    """`hand` with rows from DataLoader(TensorDataset), no worker processes."""

    note = "as hand, rows from DataLoader(TensorDataset, shuffle=True)"

    def train(self) -> None:
        """See Contestant."""
        loader = DataLoader(TensorDataset(self.work.x, self.work.y), batch_size=self.work.batch, shuffle=True)
        for x, y in loader:
            loss = F.cross_entropy(self.network(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


class Tutorial(TorchContestant):
    """The loop that a tutorial writes: DataLoader, Adam as it comes, loss and accuracy added up for the epoch."""

    note = "DataLoader(TensorDataset, shuffle=True), default Adam, running loss and accuracy"

    def build(self, seed: int) -> None:
        """See Contestant."""
        self.network = self.work.network()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=self.work.lr)
        self.loader = DataLoader(TensorDataset(self.work.x, self.work.y), batch_size=self.work.batch, shuffle=True)

    def train(self) -> None:
        """See Contestant."""
        criterion, running, correct = nn.CrossEntropyLoss(), 0.0, 0
        self.network.train()
        for inputs, labels in self.loader:
            self.optimizer.zero_grad()
            outputs = self.network(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            self.optimizer.step()
            running += loss.item()
            correct += (outputs.argmax(1) == labels).sum().item()
