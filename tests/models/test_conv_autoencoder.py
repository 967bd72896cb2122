"""Convolutional autoencoder against plain layers in a row, on sizes that do not halve evenly; costs and shapes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engram.models.conv_autoencoder import ConvAutoencoder
from engram.nn.strided import Strided

SHAPE = (2, 11, 6)  # halved upwards: 6 x 3, then 3 x 2


def plain(spatial: bool) -> tuple[nn.Sequential, list[nn.Module]]:
    """The encoder for widths (4, 5), two convolutions per stage, ELU, code 3; and the decoder's layers."""
    encoder: list[nn.Module] = [nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ELU(), nn.Conv2d(4, 4, 3, padding=1), nn.ELU()]
    encoder += [nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.ELU(), nn.Conv2d(5, 5, 3, padding=1), nn.ELU()]
    encoder += [nn.Conv2d(5, 3, 1)] if spatial else [nn.Flatten(), nn.Linear(30, 3)]
    decoder: list[nn.Module] = [nn.Conv2d(3, 5, 1)] if spatial else [nn.Linear(3, 30)]
    decoder += [nn.Conv2d(5, 5, 3, padding=1), nn.ConvTranspose2d(5, 4, 4, stride=2, padding=1)]
    decoder += [nn.Conv2d(4, 4, 3, padding=1), nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1)]
    return nn.Sequential(*encoder, nn.Tanh()).double(), [layer.double() for layer in decoder]


def decoded(layers: list[nn.Module], code: Tensor) -> Tensor:
    elu = nn.functional.elu
    h = elu(layers[0](code)).reshape(len(code), 5, 3, 2)
    h = elu(layers[2](elu(layers[1](h)))[:, :, :6, :3])
    return layers[4](elu(layers[3](h)))[:, :, :11, :6]


@pytest.mark.parametrize("spatial", [False, True])
def test_equals_plain_layers(spatial: bool) -> None:
    """Pictures, codes and every gradient to 1e-12."""
    torch.manual_seed(0)
    net = ConvAutoencoder(SHAPE, 3, (4, 5), 2, spatial, "elu", "tanh").double()
    encoder, layers = plain(spatial)
    theirs = [*encoder.parameters(), *(p for layer in layers for p in layer.parameters())]
    with torch.no_grad():
        for p, copy in zip(net.parameters(), theirs, strict=True):
            copy.copy_(p.normal_(std=0.4))
    x = torch.randn(3, *SHAPE, dtype=torch.float64)
    ours, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, code = net(ours)
    expected_code = encoder(other)
    expected = decoded(layers, expected_code)
    assert code.shape == ((3, 3, 3, 2) if spatial else (3, 3))
    torch.testing.assert_close(code, expected_code, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(y, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(net.decode(net.encode(x)), expected, atol=1e-12, rtol=1e-12)
    got = torch.autograd.grad(y.square().sum() + code.pow(3).sum(), [ours, *net.parameters()])
    want = torch.autograd.grad(expected.square().sum() + expected_code.pow(3).sum(), [other, *theirs])
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("size", [(28, 28), (7, 9), (5, 1), (1, 1), (33, 18)])
def test_every_size_comes_back(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    for spatial in (False, True):
        y, code = ConvAutoencoder((3, *size), 4, (6, 8, 10), spatial=spatial)(x)
        assert y.shape == x.shape
        assert code.shape == ((2, 4, -(-size[0] // 8), -(-size[1] // 8)) if spatial else (2, 4))


@pytest.mark.parametrize("spatial", [False, True])
def test_cost_equals_a_count_while_running(spatial: bool) -> None:
    net, total = ConvAutoencoder((3, 16, 8), 5, (6, 8), 2, spatial), 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.ConvTranspose2d):  # every input value meets each weight of its kernel
            total += inputs[0][0].numel() * layer.out_channels * 16
        elif isinstance(layer, nn.Conv2d):
            total += output[0].numel() * layer.in_channels * layer.kernel_size[0] ** 2
        elif isinstance(layer, nn.Linear):
            total += layer.weight.numel()

    for layer in net.modules():
        layer.register_forward_hook(count)
    net(torch.randn(1, 3, 16, 8))
    assert net.cost() == total


def test_a_spatial_code_moves_with_the_picture() -> None:
    """Inside the map a shift by four pixels is a shift by one place; a vector code has no places."""
    torch.manual_seed(0)
    net = ConvAutoencoder((1, 32, 32), 3, (4, 4), spatial=True)
    x = torch.zeros(1, 1, 32, 32)
    x[:, :, 12:18, 12:18] = torch.rand(6, 6)
    code, moved = net.encode(x), net.encode(x.roll(4, 3))
    torch.testing.assert_close(moved[..., 2:-2], code.roll(1, 3)[..., 2:-2], atol=1e-6, rtol=1e-5)
    assert (moved - code).abs().max() > 1e-3


def test_norms_and_low_precision() -> None:
    torch.manual_seed(0)
    x = torch.rand(4, 3, 13, 8)
    for norm in ("batch", "group", "layer"):
        net = ConvAutoencoder((3, 13, 8), 6, (8, 8), norm=norm)
        y = net(x)[0]
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.autocast("cpu", torch.bfloat16):
            low = net(x.to(memory_format=torch.channels_last))[0]
        assert low.dtype == torch.bfloat16
        assert (low.float() - y).norm() < 0.1 * y.norm()
        low.float().square().mean().backward()
        assert all(p.grad is not None for p in net.parameters())


def test_no_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one stage"):
        ConvAutoencoder(SHAPE, widths=())


def test_more_stages_than_the_picture_has_halves() -> None:
    net = ConvAutoencoder((1, 8, 5), 3, (16,) * 6)
    assert net(torch.rand(2, 1, 8, 5))[0].shape == (2, 1, 8, 5)
    assert sum(isinstance(layer, Strided) for layer in net.encoder) == 6
