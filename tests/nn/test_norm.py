"""Batch norm against its formula, and two gloo ranks against one process. Run as a script, this file is one rank."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import engram.nn
from engram.nn import BatchNorm, norm

CASES: dict[str, tuple[tuple[int, ...], int]] = {  # name: shape of the whole batch, rows of rank 0
    "vectors": ((8, 6), 5),
    "images": ((8, 6, 3, 2), 5),
    "idle rank": ((8, 6), 8),
}


def worker(case: str, rows: slice | None) -> dict[str, np.ndarray]:
    """Two training steps and a second derivative on some `rows` of a fixed batch, then eval mode."""
    torch.manual_seed(0)
    shape, _ = CASES[case]
    layer = BatchNorm(6).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    whole = 100 + torch.randn(2, *shape, dtype=torch.float64)  # far from zero: sums of squares would lose digits
    targets = torch.randn(2, *shape, dtype=torch.float64)
    result: dict[str, Tensor] = {}
    for step in range(2):
        x, t = (w[step][rows or slice(None)].clone() for w in (whole, targets))
        x.requires_grad_()
        y = layer(x)
        (slope,) = torch.autograd.grad(((y - t) ** 3).sum(), x, create_graph=True)
        loss = ((y - t) ** 4).sum() + slope.square().sum()  # with a gradient penalty
        gradients = torch.autograd.grad(loss, [x, layer.weight, layer.bias])
        result |= {f"y{step}": y, f"x.grad{step}": gradients[0]}
        result |= {f"sum.weight{step}": gradients[1], f"sum.bias{step}": gradients[2]}  # the loop sums these over ranks
    result |= {name: buffer for name, buffer in layer.named_buffers()}
    layer.eval()
    result["eval"] = layer(whole[0])
    return {name: value.detach().numpy() for name, value in result.items()}


def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    root = str(Path(engram.nn.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error::FutureWarning", __file__]
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path)], env=environment) for rank in range(2)]
    try:
        assert [rank.wait(120) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    for case in CASES:
        one = worker(case, None)
        two = [np.load(tmp_path / f"{case} {rank}.npz") for rank in range(2)]
        for name, wanted in one.items():
            if name.startswith("sum."):
                got = two[0][name] + two[1][name]
            elif name.startswith(("y", "x.")):
                got = np.concatenate([two[0][name], two[1][name]])
            else:
                got = two[0][name]
                np.testing.assert_array_equal(got, two[1][name], err_msg=f"{case} {name}: the ranks differ")
            np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9, err_msg=f"{case} {name}")
    for rank in range(2):
        assert np.load(tmp_path / f"low precision {rank}.npz")["ok"].all()


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 3, 2)])
def test_one_process_follows_algorithm_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = BatchNorm(6).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = 3 + 2 * torch.randn(shape, dtype=torch.float64, requires_grad=True)
    x.retain_grad()
    upstream = torch.randn(shape, dtype=torch.float64)
    y = layer(x)
    y.backward(upstream)
    axes = (0, *range(2, len(shape)))
    weight, bias = (p.detach().numpy().reshape(1, 6, *[1] * (len(shape) - 2)) for p in (layer.weight, layer.bias))
    a, g = x.detach().numpy(), upstream.numpy()
    count = a.size // 6
    mean, var = a.mean(axes, keepdims=True), a.var(axes, keepdims=True)
    normal = (a - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(y.detach().numpy(), normal * weight + bias, atol=1e-12)
    # Ioffe & Szegedy 2015, section 3, gathered into one line.
    inner = g - g.mean(axes, keepdims=True) - normal * (g * normal).mean(axes, keepdims=True)
    assert x.grad is not None
    assert layer.weight.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), weight / np.sqrt(var + 1e-5) * inner, atol=1e-12)
    np.testing.assert_allclose(layer.weight.grad.numpy(), (g * normal).sum(axes), atol=1e-12)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.1 * mean.ravel(), atol=1e-12)
    np.testing.assert_allclose(layer.running_var.numpy(), 0.9 + 0.1 * var.ravel() * count / (count - 1), atol=1e-12)
    layer.eval()
    running = [v.numpy().reshape(mean.shape) for v in (layer.running_mean, layer.running_var)]
    expected = (a - running[0]) / np.sqrt(running[1] + 1e-5) * weight + bias
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-12)


def test_batch_norm_holds_what_torch_holds() -> None:
    assert list(BatchNorm(3).state_dict()) == list(nn.BatchNorm2d(3).state_dict())
    assert isinstance(BatchNorm(3), nn.modules.batchnorm._BatchNorm)  # by which others recognise it
    for bad in (torch.ones(3), torch.ones(2, 4)):
        with pytest.raises(ValueError, match=r"BatchNorm\(3\) takes \(B, 3, \.\.\.\), got"):
            BatchNorm(3)(bad)
    with pytest.raises(ValueError, match="more than 1 value"):
        BatchNorm(3)(torch.ones(1, 3))


@pytest.mark.parametrize("name", ["layer", "group"])
@pytest.mark.parametrize("shape", [(4, 48), (4, 48, 3, 2)])
def test_layer_and_group_norm_follow_their_formula(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    y = norm(name, 48, image=len(shape) == 4).double()(x).detach().numpy()
    groups = {"layer": 1, "group": 24 if len(shape) == 4 else 3}[name]  # of 2 channels, or of 16 numbers
    parts = x.numpy().reshape(4, groups, -1)
    expected = (parts - parts.mean(2, keepdims=True)) / np.sqrt(parts.var(2, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, expected.reshape(shape), atol=1e-12)


def test_group_norm_leaves_something_to_normalise() -> None:
    assert [norm("group", c).num_groups for c in (1, 2, 3, 6, 32, 64, 256, 96)] == [1, 1, 1, 3, 16, 32, 32, 32]
    assert [norm("group", c, image=False).num_groups for c in (1, 16, 31, 32, 64, 1024)] == [1, 1, 1, 2, 4, 32]
    y = norm("group", 16, image=False)(torch.randn(4, 16))
    assert y.std().item() > 0.9


def test_names() -> None:
    x = torch.randn(2, 6)
    assert norm("none", 6)(x) is x
    assert isinstance(norm("batch", 6), BatchNorm)
    assert norm("layer", 6, image=False).weight.shape == (6,)
    with pytest.raises(ValueError, match="unknown norm 'btch': did you mean 'batch'"):
        norm("btch", 6)


def low_precision_is_close(rank: int) -> bool:
    """bfloat16 images in channels_last: same dtype and layout out, near the float64 answer."""
    torch.manual_seed(1)
    whole = torch.randn(8, 6, 4, 4).bfloat16()
    exact = BatchNorm(6).double().train()
    own = whole[rank * 4 : rank * 4 + 4].to(memory_format=torch.channels_last)
    y = BatchNorm(6)(own)
    dense = nn.functional.batch_norm(whole.double(), None, None, exact.weight, exact.bias, True)
    close = torch.allclose(y.double(), dense[rank * 4 : rank * 4 + 4], atol=0.02)
    return close and y.dtype == torch.bfloat16 and y.is_contiguous(memory_format=torch.channels_last)


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    for case, (_, split) in CASES.items():
        np.savez(folder / f"{case} {rank}.npz", **worker(case, slice(0, split) if rank == 0 else slice(split, None)))  # type: ignore[arg-type]
    np.savez(folder / f"low precision {rank}.npz", ok=low_precision_is_close(rank))
    if rank == 0:
        BatchNorm(3).eval()(torch.ones(1, 3))  # eval mode must not wait for the other rank
    dist.barrier()
    dist.destroy_process_group()
