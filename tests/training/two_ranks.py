"""Runs every case of test_ranks.py on the ranks that torchrun started, and writes what each rank ended with.

python -m torch.distributed.run --standalone --nproc-per-node 2 tests/training/two_ranks.py FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from toys import Fn, Gan, NextToken, Pairs, Regress, matching, mlp, optim, plainly, points, seeded, waves

from engram.checkpoint.files import write_json, write_tensors
from engram.core.batch import Batch
from engram.core.data import Data
from engram.core.errors import Diverged
from engram.core.mesh import Mesh
from engram.core.optim import Optim
from engram.core.plan import Plan, Stopped
from engram.core.snapshot import Snapshot
from engram.core.task import Task
from engram.nn.norm import BatchNorm
from engram.training.fit import fit
from engram.training.mesh import from_environment

Made = tuple[Task, Data, dict[str, Optim]]
F64 = torch.float64
PLAN = Plan(steps=5, ema=0.5, eval_every=2, log_every=2, clip=0.5)


def regress(flat: bool, kind: str, ragged: bool = False, rows: int = 16, **more: Any) -> Made:
    task = seeded(lambda: Regress(mlp(3, 8, 2, dtype=F64)))
    return task, waves(rows, F64, ragged), {"model": optim(kind, task.net, 0.05, flat=flat, **more)}


def contrast(rows: int) -> Made:
    task = seeded(lambda: Pairs(mlp(8, 16, 8), mlp(8, 16, 8), chunk=5).double())
    return task, matching(rows, F64), {"model": optim("SGD", task, 0.1, momentum=0.9)}


def normed(rows: int) -> Made:
    net = seeded(lambda: nn.Sequential(nn.Linear(3, 6), BatchNorm(6), nn.ReLU(), nn.Linear(6, 2)).double())
    task = Regress(net, splits=False)
    return task, waves(rows, F64), {"model": optim("SGD", net, 0.1, flat=True, momentum=0.9)}


def gan() -> Made:
    task = seeded(lambda: Gan(mlp(4, 8, 2, dtype=F64), mlp(2, 8, 1, dtype=F64), 4))
    adam = {"betas": (0.5, 0.99), "eps": 1e-3}
    optims = {"critic": optim("Adam", task.critic, 0.01, **adam), "generator": optim("Adam", task.generator, 0.01, **adam)}
    return task, points(15, F64), optims


def one_sided() -> Made:
    """All targets are in the first rows, so the second rank has nothing that counts."""
    model = seeded(lambda: nn.Sequential(nn.Embedding(5, 6), nn.Linear(6, 5)).double())

    def make(split: str, g: torch.Generator) -> Batch:
        targets = torch.randint(5, (8, 4), generator=g)
        targets[4:] = -100
        return {"tokens": torch.randint(5, (8, 4), generator=g), "targets": targets}

    return NextToken(model), Fn(make, 8), {"model": optim("Adam", model, 0.01, eps=1e-3)}


CASES: dict[str, tuple[Callable[[], Made], Plan]] = {
    "sgd": (lambda: regress(False, "SGD", momentum=0.9), PLAN),
    "adam flat": (lambda: regress(True, "Adam", eps=1e-3), PLAN),
    "uneven": (lambda: regress(True, "SGD", rows=9), PLAN),
    "ragged": (lambda: regress(False, "SGD", ragged=True, momentum=0.9), PLAN),
    "ragged flat in pieces": (lambda: regress(True, "SGD", ragged=True), Plan(steps=5, accumulate=3)),
    "one sided": (one_sided, Plan(steps=5)),
    "lbfgs": (lambda: regress(False, "LBFGS", max_iter=3, line_search_fn="strong_wolfe"), Plan(steps=3)),
    "gan": (gan, PLAN),
    "contrast": (lambda: contrast(16), PLAN),
    "contrast uneven": (lambda: contrast(15), PLAN),
    "batch norm": (lambda: normed(16), PLAN),
    "batch norm uneven": (lambda: normed(15), PLAN),
}


def result(name: str, mesh: Mesh) -> tuple[dict[str, Tensor], list[Any]]:
    """Final weights and everything that was told."""
    build, plan = CASES[name]
    task, data, optims = build()
    events = list(fit(task, data, optims, plan, mesh=mesh))
    return task.state_dict(), plainly(events)


def stop_of_one_rank(mesh: Mesh) -> list[Any]:
    """Rank 1 alone is told to stop, at step 3; both stop at the next step at which they look, and say so."""
    task, data, optims = regress(True, "SGD")
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return mesh.rank == 1 and len(asked) >= 2

    events = list(fit(task, data, optims, Plan(steps=20, log_every=3), mesh=mesh, stop=stop))
    return [e.step for e in events if isinstance(e, Stopped)]


def divergence_of_one_rank(mesh: Mesh) -> str:
    """A row of rank 1 is NaN: every rank raises, so that none waits for another."""
    task, data, optims = normed(16)

    def make(split: str, g: torch.Generator) -> Batch:
        x = torch.randn(16, 3, generator=g, dtype=F64)
        x[15] = float("nan")
        return {"x": x, "y": torch.zeros(16, 2, dtype=F64)}

    assert isinstance(data, Fn)
    data.make = make
    try:
        list(fit(task, data, optims, PLAN, mesh=mesh))
    except Diverged as error:
        return str(error)
    return ""


def gathered(mesh: Mesh) -> dict[str, list[Any]]:
    """Rows and their gradients: rank r holds r + 1 rows, and weighs what it sees with r + 1."""
    rows = (torch.arange(mesh.rank + 1, dtype=F64) + 10 * mesh.rank)[:, None].requires_grad_()
    whole = mesh.gather(rows)
    (whole * (mesh.rank + 1) * torch.arange(1, len(whole) + 1)[:, None]).sum().backward()
    assert rows.grad is not None
    return {"rows": whole.flatten().tolist(), "grad": rows.grad.flatten().tolist()}


def main(folder: Path) -> None:
    """All cases, then one file of weights per case and rank, and one of what was told."""
    torch.set_num_threads(1)
    mesh = from_environment(torch.device("cpu"))
    told: dict[str, Any] = {}
    for name in CASES:
        weights, told[name] = result(name, mesh)
        write_tensors(folder / f"{name}.{mesh.rank}.safetensors", Snapshot(weights, {}))
    told["stopped"] = stop_of_one_rank(mesh)
    told["gathered"] = gathered(mesh)
    told["diverged"] = divergence_of_one_rank(mesh)
    write_json(folder / f"told.{mesh.rank}.json", told)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
