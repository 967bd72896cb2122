"""Folding and tuning change the speed of a model, not what it says."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from engram.data.image_spec import ImageSpec
from engram.inference.classify import Classifier
from engram.inference.fold import Halve, fold
from engram.inference.outputs import Runner
from engram.inference.regress import Regressor
from engram.models.cnn import CNN
from engram.models.resnet import ResNet


def lived_in(model: nn.Module, x: Tensor) -> nn.Module:
    """Running statistics that are not the initial ones."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    model.train()
    for _ in range(3):
        model(x + torch.randn_like(x))
    return model.eval()


class Swapped(nn.Module):
    """Defined convolution first, run the other way round: folding would be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x)).mean((2, 3))


@pytest.mark.parametrize("make", [lambda: CNN(3, (16, 16), 5), lambda: ResNet(8, 3, 5, stem="small", width=8)])
def test_folded_models_say_the_same_with_fewer_layers(make) -> None:
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    model = lived_in(make(), x)
    before = copy.deepcopy(model.state_dict())
    folded = fold(model, (x,))
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in folded.modules())
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_layers_that_run_in_another_order_are_left_alone() -> None:
    x = torch.randn(4, 3, 8, 8)
    model = lived_in(Swapped(), x)
    folded = fold(model, (x,))
    assert any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(folded(x), model(x))


class Reads(nn.Module):
    """Reads the input of a ReLU again: overwriting it would be wrong. `first` puts the ReLU on the caller's own tensor."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first, self.relu, self.conv = first, nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            return self.conv(self.relu(x)).mean((2, 3))
        y = self.conv(x)
        return (self.relu(y) + 2 * y).mean((2, 3))


@pytest.mark.parametrize("first", [True, False])
def test_a_relu_overwrites_only_what_nobody_else_reads(first: bool) -> None:
    x = torch.randn(4, 3, 8, 8)
    folded = fold(Reads(first).eval(), (x,))
    assert not folded.get_submodule("relu").inplace
    plain = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2)).eval()
    assert fold(plain, (x,)).get_submodule("1").inplace
    assert not plain.get_submodule("1").inplace


def test_tuning_stays_within_the_number_format() -> None:
    x = torch.randn(8, 1, 12, 12)
    model = lived_in(CNN(1, (12, 12), 4), x)
    runner, plain = Runner(model, ("x",)), Runner(model, ("x",))
    runner.tune({"x": torch.zeros(2, 1, 12, 12)}, bf16=True, channels_last=True)
    fast, slow = runner({"x": x}), plain({"x": x})
    assert fast.dtype == torch.float32
    assert next(model.parameters()).dtype == torch.float32, "the model itself stays as it is"
    torch.testing.assert_close(fast, slow, rtol=0.05, atol=0.05 * float(slow.abs().max()))
    assert not torch.equal(fast, slow)


def spec(classes: tuple[str, ...]) -> ImageSpec:
    return ImageSpec(channels=1, height=4, width=4, mean=(0.5,), std=(0.5,), classes=classes, class_counts=(1, 1))


def test_one_logit_is_the_probability_of_the_second_class() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 1)).eval()
    classifier = Classifier(model, spec(("no", "yes")), ("no", "yes"))
    batch = {"x": torch.randn(3, 1, 4, 4), "y": torch.tensor([0, 1, 1])}
    out = classifier.outputs(batch)
    torch.testing.assert_close(out["probabilities"][:, 1], model(batch["x"]).sigmoid().squeeze(1).detach())
    torch.testing.assert_close(out["probabilities"].sum(1), torch.ones(3))
    assert out["targets"].tolist() == [0, 1, 1]


def test_values_come_back_in_the_units_of_the_target() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 1)).eval()
    regressor = Regressor(model, spec(("no", "yes")), mean=100.0, std=20.0)
    batch = {"x": torch.randn(3, 1, 4, 4), "y": torch.tensor([[0.0], [1.0], [-1.0]])}
    out = regressor.outputs(batch)
    expected = model(batch["x"]).squeeze(1).detach().double() * 20 + 100  # in float64, for targets far from 0
    torch.testing.assert_close(out["values"], expected)
    assert out["targets"].tolist() == [100.0, 120.0, 80.0]


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pool_by_two_is_the_same_to_the_bit(size: tuple[int, int], dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, *size).to(dtype)
    x[0, 0, 0, 0] = float("nan")
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(Halve()(given), nn.functional.max_pool2d(given, 2), rtol=0, atol=0, equal_nan=True)


POOLS = [
    nn.MaxPool2d(2),
    nn.MaxPool2d(2, ceil_mode=True),
    nn.MaxPool2d(3),
    nn.MaxPool2d(2, 1),
    nn.MaxPool2d(2, padding=1),
    nn.AvgPool2d(2),
]


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_relu_moves_behind_a_max_pool_only(pool: nn.Module) -> None:
    x = torch.randn(4, 3, 19, 19)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), pool, nn.Tanh(), copy.deepcopy(pool)).eval()
    folded = fold(model, (x,))
    kinds = [type(m) for m in folded.children()]
    assert torch.equal(folded(x), model(x))
    assert (kinds[2] is nn.ReLU) == isinstance(pool, nn.MaxPool2d)
    assert (Halve in kinds) == (pool is POOLS[0])


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_two_maxima_are_the_pool_in_either_layout(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    for layout in (torch.contiguous_format, torch.channels_last):
        assert torch.equal(Halve()(x.contiguous(memory_format=layout)), nn.MaxPool2d(2)(x))
