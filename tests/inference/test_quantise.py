"""Smaller weights: each form equals its own definition, loses little, and decodes the same with a cache and without."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engram.core.errors import ConfigError
from engram.inference.quantise import GROUP, Int4Linear, Int8Linear, PackedLinear, choose_weights, quantise
from engram.models.gpt import GPT
from tests.inference.language_toys import gpt, lstm


def weight(rows: int = 48, columns: int = 64) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def inputs(rows: int, columns: int = 64) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)).bfloat16()


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("bias", [False, True])
def test_each_layer_equals_its_definition(rows: int, bias: bool) -> None:
    """Against a product in float64 with the rounded weights written out: few rows (torch's kernel) and many; within bf16."""
    w, x = weight(), inputs(rows)
    b = torch.linspace(-1, 1, 48).bfloat16() if bias else None
    eight, four = Int8Linear(w, b), Int4Linear(w, b)
    scale = (w.abs().amax(1) / 127).bfloat16().double()
    rounded8 = (w.double() / scale[:, None]).round().clamp(-127, 127) * scale[:, None]
    groups = w.unflatten(1, (-1, GROUP))
    step = ((groups.amax(2) - groups.amin(2)) / 15).bfloat16().double()
    zero = (groups.amin(2) + 8 * step.float()).bfloat16().double()
    q = ((groups.double() - zero[..., None]) / step[..., None] + 8).round().clamp(0, 15)
    rounded4 = ((q - 8) * step[..., None] + zero[..., None]).flatten(1)
    for layer, rounded in ((PackedLinear(w, b), w.bfloat16().double()), (eight, rounded8), (four, rounded4)):
        want = x.double() @ rounded.T + (0 if b is None else b.double())
        got = layer(x)
        assert got.dtype == torch.bfloat16
        error = float((got.double() - want).abs().max() / want.abs().max())
        assert error < 0.012, type(layer)
        assert torch.equal(layer(x[None])[0], got)


def test_rounding_is_as_fine_as_promised() -> None:
    w = weight()
    eight, four = Int8Linear(w, None), Int4Linear(w, None)
    back = eight.weight.float() * eight.scale.float()[:, None]
    assert (
        float(((back - w).abs() / w.abs().amax(1, keepdim=True)).max()) < 0.5 / 127 + 0.004
    )  # half a step, and the scale's bf16
    back, groups = four._whole().float(), w.unflatten(1, (-1, GROUP))
    half = (groups.amax(2) - groups.amin(2)) / 30
    assert float(((back - w).unflatten(1, (-1, GROUP)).abs() / half[..., None]).max()) < 1.4


@pytest.mark.parametrize("weights", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_quantised_model_is_nearly_the_model(weights: str, tied: bool) -> None:
    torch.manual_seed(0)
    model = GPT(96, 64, 2, 4, 64, tied=tied, positions="rotary").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = quantise(model, weights)
    x = torch.randint(0, 96, (3, 20))
    with torch.inference_mode():
        truth, got = model(x), small(x).float()
        cache = small.new_cache(3, 30)  # type: ignore[operator]
        small.read(x[:, :19], torch.arange(19).repeat(3, 1), cache)  # type: ignore[operator]
        stepped = small.step(x[:, 19:], torch.full((3, 1), 19), cache)[:, 0].float()  # type: ignore[operator]
    assert cache.data.dtype == torch.bfloat16
    limit = {"bf16": 0.02, "int8": 0.03, "int4": 0.2}[weights] * float(truth.abs().max())
    assert 0 < float((got - truth).abs().max()) < limit
    assert float((stepped - got[:, 19]).abs().max()) < limit
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.out is None or isinstance(model.out, torch.nn.Linear)
    assert not [m for m in small.modules() if isinstance(m, torch.nn.Linear)]


def test_widths_that_int4_cannot_group_become_int8() -> None:
    torch.manual_seed(0)
    small = quantise(GPT(50, 16, 1, 2, 24), "int4")
    kinds = {type(m) for m in small.modules() if isinstance(m, (Int8Linear, Int4Linear))}
    assert kinds == {Int8Linear}


def test_auto_and_what_is_refused() -> None:
    toy = gpt()
    assert choose_weights("auto", toy, 1, True) == "fp32"
    assert quantise(toy, "fp32") is toy
    with torch.device("meta"):
        large = GPT(50257, 64, 2, 4, 512)
    large.requires_grad_(False)
    assert sum(p.numel() for p in large.parameters()) > 20_000_000
    assert choose_weights("auto", large, 1, True) == "fp32"  # not on the processor
    large = large.to_empty(device="cpu")
    assert [choose_weights("auto", large, rows, True) for rows in (1, 6, 7, 64)] == ["int8", "int8", "bf16", "bf16"]
    assert choose_weights("auto", large, 1, False) == "fp32"
    assert choose_weights("int4", toy, 99, False) == "int4"
    with pytest.raises(ConfigError, match=r"weights=int9 is unknown \(did you mean int8\?\)|weights=int9 is unknown"):
        choose_weights("int9", toy, 1, True)
    assert next(quantise(lstm(), "bf16").parameters()).dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="is for Transformers"):
        quantise(lstm(), "int8")
