"""Two processes that torchrun starts equal one process with the whole batch."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from engram.checkpoint.files import read_json, read_tensors
from engram.core.mesh import Mesh
from engram.training.mesh import from_environment

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("two_ranks", HERE / "two_ranks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of results and what each rank was told; all cases share one start of the processes."""
    folder = tmp_path_factory.mktemp("ranks")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started = subprocess.Popen(
        [*command, str(HERE / "two_ranks.py"), str(folder)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, said = started.communicate(timeout=240)
    finally:
        started.terminate()  # ranks that wait for each other for ever: torchrun ends them when asked, not when killed
        started.wait(60)
    assert started.returncode == 0, said[-4000:]
    assert "deprecated" not in said
    return folder, [read_json(folder / f"told.{rank}.json") for rank in (0, 1)]


@pytest.mark.parametrize("case", script.CASES)
def test_two_ranks_equal_one_process(case: str, ranks: tuple[Path, list[dict[str, Any]]]):
    folder, told = ranks
    weights, events = script.result(case, Mesh())
    two = [read_tensors(folder / f"{case}.{rank}.safetensors").tensors for rank in (0, 1)]
    for name, value in weights.items():
        assert torch.equal(two[0][name], two[1][name])
        torch.testing.assert_close(two[0][name], value, rtol=1e-9, atol=1e-11)
    assert told[0][case] == told[1][case]
    for one, many in zip(json.loads(json.dumps(events)), told[0][case], strict=True):
        assert one[:2] == many[:2]
        torch.testing.assert_close(many[2], one[2], rtol=1e-6, atol=1e-9)  # the rate is kept in single precision
        if one[0] == "step" and one[3]:
            torch.testing.assert_close(many[3], one[3], rtol=1e-8, atol=1e-10)


def test_the_cases_move_the_weights():
    for case, (build, _) in script.CASES.items():
        before = {name: t.clone() for name, t in build()[0].state_dict().items()}
        after, _ = script.result(case, Mesh())
        assert any((t - after[name]).abs().max() > 1e-3 for name, t in before.items()), case


def test_ranks_stop_together(ranks: tuple[Path, list[dict[str, Any]]]):
    assert [told["stopped"] for told in ranks[1]] == [[6], [6]]


def test_ranks_diverge_together(ranks: tuple[Path, list[dict[str, Any]]]):
    one, two = (told["diverged"] for told in ranks[1])
    assert "is not finite at step 1, batch 0" in one
    assert "input 'x' of the batch holds NaN or infinity (row 7)" in two


def test_gather_is_in_order_and_differentiable(ranks: tuple[Path, list[dict[str, Any]]]):
    """Every rank's loss is 1 and 2 times the numbered rows, so a row's gradient is 3 times its number."""
    one, two = (told["gathered"] for told in ranks[1])
    assert one == {"rows": [0.0, 10.0, 11.0], "grad": [3.0]}
    assert two == {"rows": [0.0, 10.0, 11.0], "grad": [6.0, 9.0]}


def test_one_process_needs_no_group():
    mesh = from_environment(torch.device("cpu"))
    assert (mesh.rank, mesh.world) == (0, 1)
    assert torch.equal(mesh.gather(torch.ones(2)), torch.ones(2))
