"""Trains one run in a chain of processes, all but the last of which are killed (SIGKILL) at a random moment.

python kill_chain.py FOLDER KILLS prints JSON: kills, steps each life began at, and whether something was left half written.
The processes are forks of this one, which has imported torch and not used it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # an optimizer's first step imports it, which takes longer than a life here
from torch import nn
from toys import Regress, optim, seeded, waves

from engram.checkpoint.folder import RunFolder
from engram.checkpoint.writer import StateWriter
from engram.core.plan import Evaluated, Plan, Stepped
from engram.training.fit import fit

PLAN = Plan(steps=120, ema=0.9, eval_every=20, save_every=1, seed=3)


def live(folder: RunFolder, plan: Plan = PLAN) -> None:
    """One life: from the last whole state, if any, to the end of the plan."""
    state = folder.read_state() if folder.state.exists() else None
    layers = lambda: nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 2))  # noqa: E731
    net = seeded(layers, seed=os.getpid() if state else 0)
    task = Regress(net)
    log = folder.log()
    log.write("resume", state.facts["at"]["step"] if state else 0)  # one killed before its first save left lines too
    writer = StateWriter()
    save: Callable = lambda snapshot, best: writer.save(folder.weights if best else folder.state, snapshot)  # noqa: E731
    for event in fit(task, waves(16), {"model": optim("Adam", net, 0.01, flat=True)}, plan, state=state, save=save):
        if isinstance(event, Stepped):
            log.write("step", event.step, **{name: float(value) for name, value in event.logs.items()})
        elif isinstance(event, Evaluated):
            log.write("eval", event.step, metrics=event.metrics)
    writer.close()
    log.close()


def fork(folder: RunFolder, plan: Plan = PLAN) -> int:
    """A process that lives one life; its id."""
    child = os.fork()
    if child:
        return child
    try:
        live(folder, plan)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def begun(folder: RunFolder) -> int:
    """The step at which the last life began, 0 before the first save."""
    records = [json.loads(line) for line in folder.metrics.read_text().splitlines() if line.startswith('{"kind": "resume"')]
    return records[-1]["step"]


def lines(folder: RunFolder) -> int:
    """Records that have been written whole."""
    return folder.metrics.read_bytes().count(b"\n")


def main(path: Path, kills: int) -> None:
    """A run never killed in path/whole and one that is killed in path/killed."""
    torch.set_num_threads(1)
    whole, killed = RunFolder(path / "whole"), RunFolder(path / "killed")
    for folder in (whole, killed):
        folder.path.mkdir()
        folder.metrics.touch()
    start = time.monotonic()
    assert os.waitpid(fork(whole), 0)[1] == 0
    step = (time.monotonic() - start) / PLAN.steps
    dice, done, torn = random.Random(path.name), 0, 0
    while done < kills:
        wanted = lines(killed) + dice.randrange(10)  # counted in records, so that the machine's load does not matter
        child = fork(killed)
        while lines(killed) <= wanted and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.001)
        time.sleep(dice.uniform(0, step))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        done += 1
        torn += killed.state.with_name(killed.state.name + ".tmp").exists()
    assert os.waitpid(fork(killed), 0)[1] == 0
    print(json.dumps({"kills": done, "torn": torn, "last": begun(killed)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
