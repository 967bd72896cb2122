"""A convolution that halves a map equals torch's, and its gradients in bfloat16 are those of float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engram.nn.strided import Strided


def gradients(layer: nn.Conv2d, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and the weights, of a fixed gradient of the output; in float32."""
    x = x.detach().requires_grad_()
    y = layer(x)
    y.backward(torch.cos(torch.arange(y.numel())).view_as(y).to(y.dtype))
    assert x.grad is not None
    assert layer.weight.grad is not None
    return [y.detach().float(), x.grad.float(), layer.weight.grad.float()]


@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (7, 1), (1, 4), (5, 6)])
def test_equals_torch(kernel: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer, plain = Strided(4, 6, kernel), nn.Conv2d(4, 6, kernel, 2, kernel // 2)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(3, 4, *size)
    for a, b in zip(gradients(layer, x), gradients(plain, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize("height", [1, 2, 5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_in_bfloat16_is_written(kernel: int, height: int, layout: torch.memory_format) -> None:
    """oneDNN leaves the gradient of a stride over a map one place wide as it finds the memory; see it full of large numbers."""
    torch.manual_seed(0)
    whole = Strided(16, 32, kernel)
    low = Strided(16, 32, kernel).to(torch.bfloat16).to(memory_format=layout)  # type: ignore[call-overload]
    low.load_state_dict(whole.state_dict())
    x = torch.randn(4, 16, height, 1).contiguous(memory_format=layout)
    want = gradients(whole, x)
    found = []
    for _ in range(3):
        low.weight.grad = None
        left = [torch.full((whole.weight.numel() // n,), 1e30) for n in (1, 2, 4)]
        del left
        found.append(gradients(low, x.to(torch.bfloat16)))
    for got in found:
        for a, b in zip(got, want, strict=True):
            assert (a - b).abs().max() < 0.03 * b.abs().max()
