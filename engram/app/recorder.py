"""What of a training is kept: the events as lines of metrics.jsonl."""

from __future__ import annotations

import time
from typing import Any

import torch

from engram.core.plan import Evaluated, Event, Plan, Stepped, Stopped


class Recorder:
    """Writes events to metrics.jsonl: every evaluation, and steps at the interval of `log_every`, as means since the last."""

    def __init__(self, log: Any, plan: Plan):
        self.log, self.every = log, plan.log_every
        self.begun = time.perf_counter()
        self.kept: list[dict[str, torch.Tensor]] = []

    def __call__(self, event: Event) -> None:
        if self.log is None:
            return
        if isinstance(event, Stepped):
            self.kept.append(event.logs)  # added up when written: arithmetic at every step would cost more than the record
            if event.layers is None and event.step % self.every:
                return
        seconds = round(time.perf_counter() - self.begun, 3)
        if isinstance(event, Stepped):
            names = dict.fromkeys(name for logs in self.kept for name in logs)
            means = {n: float(torch.stack([k[n] for k in self.kept if n in k]).mean()) for n in names}
            layers = {"layers": {n: float(v) for n, v in event.layers.items()}} if event.layers else {}
            self.log.write("step", event.step, seconds=seconds, **means, **layers)
            self.kept = []
        elif isinstance(event, Evaluated):
            self.log.write("eval", event.step, seconds=seconds, best=event.best, metrics=event.metrics)
        elif isinstance(event, Stopped):
            self.log.write("stop", event.step, seconds=seconds, reason=event.reason, best_step=event.best_step)
