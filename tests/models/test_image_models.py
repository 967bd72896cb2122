"""What every image model must do: counted cost, low precision, channels_last, compilation, a seeded start."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from engram.models.cnn import CNN
from engram.models.resnet import ResNet
from engram.models.vgg import VGG

SIZE = (19, 22)
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[..., int]]] = {  # make, cost
    "cnn": (lambda: CNN(3, SIZE, 4, (8, 6), (5,), convs_per_stage=2), lambda m: m.cost()),
    "cnn avg gelu group": (
        lambda: CNN(3, SIZE, 4, (8, 6), activation="gelu", norm="group", pool="avg", average=True),
        lambda m: m.cost(),
    ),
    "resnet8": (lambda: ResNet(8, 3, 4, "small", width=4), lambda m: m.cost(SIZE)),
    "resnet8 pad": (lambda: ResNet(8, 3, 4, "small", width=4, shortcut="pad"), lambda m: m.cost(SIZE)),
    "resnet18": (lambda: ResNet(18, 3, 4, "imagenet", width=4), lambda m: m.cost(SIZE)),
    "resnet50": (lambda: ResNet(50, 3, 4, "small", width=4), lambda m: m.cost(SIZE)),
    "vgg11": (lambda: VGG(11, 3, 4, head="small", width=4, size=SIZE), lambda m: m.cost()),
    "vgg13 bn": (lambda: VGG(13, 3, 4, True, "small", width=4, size=SIZE), lambda m: m.cost()),
}


def images() -> Tensor:
    return torch.randn(6, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    made = MODELS[request.param][0]()
    for module in made.modules():  # no dropout, so that two passes agree
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return made


@pytest.mark.parametrize("name", MODELS)
def test_cost_equals_a_count_while_running(name: str) -> None:
    make, cost = MODELS[name]
    model, total = make().eval(), 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):  # per output value: one product per weight of its kernel
            total += output.numel() * layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
        elif isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features

    for layer in model.modules():
        layer.register_forward_hook(count)
    model(images()[:1])
    assert cost(model) == total


def test_published_costs() -> None:
    """Multiply-adds at 224 x 224 in He et al. 2015, table 1, and as torchvision states them (GFLOPS column)."""
    with torch.device("meta"):
        costs = [ResNet(depth).cost((224, 224)) / 1e9 for depth in (18, 34, 50)]
        costs += [VGG(depth).cost() / 1e9 for depth in (11, 16, 19)]
    assert costs == pytest.approx([1.81, 3.66, 4.09, 7.61, 15.47, 19.63], abs=0.01)


def test_bfloat16_autocast_in_channels_last(model: nn.Module) -> None:
    y = model(images())
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as torch documents it
    x = images().to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(x)
        low.float().square().mean().backward()
    assert low.dtype == torch.bfloat16
    assert (low.float() - y).norm() < 0.1 * y.norm()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
    torch.testing.assert_close(model(x), y, atol=1e-4, rtol=1e-3)  # channels_last alone


def test_compiles_whole_and_agrees(model: nn.Module) -> None:
    y = model(images())
    y.square().mean().backward()
    eager = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    names = list(model.state_dict())
    model.zero_grad()
    model.compile(backend="aot_eager", fullgraph=True)
    compiled = model(images())
    compiled.square().mean().backward()
    torch.testing.assert_close(compiled, y, atol=1e-5, rtol=1e-4)
    for p, want in zip(model.parameters(), eager, strict=True):
        torch.testing.assert_close(p.grad, want, atol=1e-4, rtol=1e-3)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("name", MODELS)
def test_start_follows_the_seed(name: str) -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(7)
        made.append(MODELS[name][0]())
    assert all(torch.equal(a, b) for a, b in zip(made[0].parameters(), made[1].parameters(), strict=True))
    assert torch.equal(made[0].eval()(images()), made[1].eval()(images()))
