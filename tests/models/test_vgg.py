"""VGG against layers built from the paper's table 1 in this file, and published parameter counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engram.models.vgg import VGG

TABLE_1 = {
    11: "64 M 128 M 256 256 M 512 512 M 512 512 M",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}


@pytest.mark.parametrize(
    ("depth", "batch_norm", "count"),
    [
        (11, False, 132_863_336),
        (13, False, 133_047_848),
        (16, False, 138_357_544),
        (16, True, 138_365_992),
        (19, False, 143_667_240),
    ],
)
def test_published_parameter_counts(depth: int, batch_norm: bool, count: int) -> None:
    """As torchvision states them for 1000 classes."""
    with torch.device("meta"):
        net = VGG(depth, batch_norm=batch_norm)
    assert sum(p.numel() for p in net.parameters()) == count
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in net.modules()) == depth


@pytest.mark.parametrize(
    ("batch_norm", "convs"), [(False, [0, 3, 6, 8, 11, 13, 16, 18]), (True, [0, 4, 8, 11, 15, 18, 22, 25])]
)
def test_names_are_those_of_torchvision(batch_norm: bool, convs: list[int]) -> None:
    with torch.device("meta"):
        names = list(VGG(11, batch_norm=batch_norm).state_dict())
    found = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
    normed = [f"features.{i + j}" for i in convs for j in ((0, 1) if batch_norm else (0,))]
    assert found == [*normed, "classifier.0", "classifier.3", "classifier.6"]


def reference(depth: int, channels: int, outputs: int, batch_norm: bool, divide: int, pools: int) -> nn.Sequential:
    """Table 1 with every width divided, only the first `pools` pools, and the mean over the map before the end."""
    layers: list[nn.Module] = []
    for word in TABLE_1[depth].split():
        if word == "M":
            layers += [nn.MaxPool2d(2, 2)] if pools > 0 else []
            pools -= 1
            continue
        width = int(word) // divide
        layers.append(nn.Conv2d(channels, width, (3, 3), (1, 1), "same"))
        layers += [nn.BatchNorm2d(width)] if batch_norm else []
        layers.append(nn.ReLU())
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(channels, outputs))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("depth", "size"), [(11, 28), (13, 32), (16, 33), (19, 8)])
def test_equals_table_one(depth: int, size: int, batch_norm: bool) -> None:
    """Outputs to 1e-10, gradients to 1e-9, float64, an eighth of the width."""
    torch.manual_seed(0)
    ours = VGG(depth, 1, 3, batch_norm, "small", width=8, size=(size, size), dropout=0).double()
    pools = {28: 4, 32: 5, 33: 5, 8: 3}[size]  # until one pixel is left
    theirs = reference(depth, 1, 3, batch_norm, 8, pools).double()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        if mine.dim() == 1:
            nn.init.uniform_(mine, 0.5, 1)
        other.data.copy_(mine)
    x = torch.randn(3, 1, size, size, dtype=torch.float64)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = ours(a), theirs(b)
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)
    got = torch.autograd.grad(y.square().mean(), [a, *ours.parameters()])
    want = torch.autograd.grad(expected.square().mean(), [b, *theirs.parameters()])
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, atol=1e-9, rtol=1e-9)


def test_imagenet_head_equals_its_layers_and_shrinks_with_the_image() -> None:
    torch.manual_seed(0)
    net = VGG(11, 3, 2, width=1, size=(64, 96)).eval()
    x = torch.randn(2, 3, 64, 96)
    h = net.features(x)
    assert h.shape == (2, 8, 2, 3)
    dense = [m for m in net.classifier if isinstance(m, nn.Linear)]
    h = (h.flatten(1) @ dense[0].weight.T + dense[0].bias).relu()
    h = (h @ dense[1].weight.T + dense[1].bias).relu()
    torch.testing.assert_close(net(x), h @ dense[2].weight.T + dense[2].bias)
    assert net(torch.randn(2, 3, 96, 128)).shape == (2, 2)  # a larger image is averaged to the same map
    with torch.device("meta"):
        first = VGG(11, size=(448, 448)).classifier[0]
    assert isinstance(first, nn.Linear)
    assert first.in_features == 512 * 7 * 7


def test_signals_keep_their_size_through_nineteen_layers() -> None:
    torch.manual_seed(0)
    net = VGG(19, 3, 10, head="small", width=16, size=(32, 32)).eval()
    y = net.features(torch.randn(4, 3, 32, 32))
    assert 0.05 < y.std().item() < 20  # He's scheme; torch's default leaves 1e-5


def test_errors() -> None:
    with pytest.raises(ValueError, match="no VGG of depth 12: choose from 11, 13, 16, 19"):
        VGG(12)
    with pytest.raises(ValueError, match="unknown head 'tiny'"):
        VGG(11, head="tiny")
