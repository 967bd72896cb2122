"""VQ-VAE against functional calls in float64, and on sizes that the strides do not divide."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engram.models.vqvae import VQVAE


def functional(w: dict[str, Tensor], codes: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The paper's network with widths (4, 6), one block; the code is added to z as a constant."""

    def conv(name: str, x: Tensor, **knobs: int) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **knobs)

    def block(name: str, x: Tensor) -> Tensor:
        return x + conv(f"{name}.narrow", conv(f"{name}.wide", x.relu(), padding=1).relu())

    h = conv("encoder.0", x, stride=2, padding=1).relu()
    h = conv("encoder.2", h, stride=2, padding=1).relu()
    h = block("encoder.5", conv("encoder.4", h, padding=1))
    z = conv("encoder.7", h.relu())
    ids = (z[:, None] - codes[:, :, None, None]).square().sum(2).argmin(1)
    h = block("decoder.1", conv("decoder.0", z + (codes[ids].permute(0, 3, 1, 2) - z).detach(), padding=1))
    h = F.conv_transpose2d(h.relu(), w["decoder.3.weight"], w["decoder.3.bias"], 2, 1, output_padding=(0, 1))
    return F.conv_transpose2d(h.relu(), w["decoder.5.weight"], w["decoder.5.bias"], 2, 1, output_padding=(1, 0)), ids


def test_equals_functional_calls() -> None:
    """Outputs and every gradient to 1e-4 (codes are float32), 9 x 6 pixels: a grid of 2 x 1."""
    torch.manual_seed(0)
    net = VQVAE(2, 9, 6, codes=8, code_width=3, widths=(4, 6), blocks=1)
    net.codebook.vectors.normal_()
    x = torch.randn(5, 2, 9, 6)
    weights = {name: p.detach().double().requires_grad_() for name, p in net.named_parameters()}
    ours, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    y, (expected, ids) = net(ours), functional(weights, net.codebook.vectors.double(), theirs)
    assert net.grid == (2, 1)
    assert y.shape == x.shape
    assert torch.equal(net.encode_ids(x), ids)
    torch.testing.assert_close(y.double(), expected, atol=1e-5, rtol=1e-4)
    got = torch.autograd.grad(y.square().sum(), [ours, *net.parameters()])
    want = torch.autograd.grad(expected.square().sum(), [theirs, *weights.values()])
    for name, a, b in zip(["input", *weights], got, want, strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize(("size", "grid"), [((8, 8), (2, 2)), ((28, 28), (7, 7)), ((7, 5), (1, 1)), ((30, 17), (7, 4))])
def test_ids_there_and_back(size: tuple[int, int], grid: tuple[int, int]) -> None:
    """What the codes tell is what forward gives; any size comes back."""
    torch.manual_seed(0)
    net = VQVAE(3, *size, codes=6, code_width=4, widths=(4, 4)).eval()
    x = torch.randn(2, 3, *size)
    ids = net.encode_ids(x)
    assert (ids.shape, ids.dtype, net.grid) == ((2, *grid), torch.int64, grid)
    assert net.decode_ids(ids).shape == x.shape
    torch.testing.assert_close(net.decode_ids(ids), net(x), atol=1e-5, rtol=1e-5)


def test_cost_counts_the_multiplications() -> None:
    """Against torch's own counter, to which the codebook's products are a plain matrix product."""
    from torch.utils.flop_counter import FlopCounterMode

    net = VQVAE(1, 28, 28, codes=16, code_width=8, widths=(4, 6))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 1, 28, 28))
    assert net.cost() == counter.get_total_flops() // 2


def test_untrained_gives_nearly_the_mean_picture() -> None:
    torch.manual_seed(0)
    assert VQVAE(1, 28, 28)(torch.randn(4, 1, 28, 28)).abs().mean() < 0.2


def test_errors() -> None:
    with pytest.raises(ValueError, match="use fewer widths"):
        VQVAE(1, 8, 8, widths=(4, 4, 4, 4))
