"""Inception-v3: size and names of the published network, its two variants, and what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.models.inception import BlockA, BlockE, Inception, from_weights


@pytest.fixture(scope="module")
def network() -> Inception:
    torch.manual_seed(0)
    made = Inception("plain", 1000, aux=True)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[operator, union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[operator, union-attr]
            nn.init.normal_(module.bias, 0, 0.1)
    return made


def test_size_and_names_are_the_published_ones(network: Inception) -> None:
    assert sum(p.numel() for p in network.parameters()) == 27_161_264  # torchvision's page on inception_v3
    names = network.state_dict()
    assert len(names) == 580
    for name, shape in {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6e.branch7x7dbl_2.conv.weight": (192, 192, 7, 1),
        "Mixed_7c.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "AuxLogits.conv1.bn.running_var": (768,),
        "fc.weight": (1000, 2048),
    }.items():
        assert names[name].shape == shape


@torch.no_grad()
def test_variants_differ_in_their_pools_only(network: Inception) -> None:
    weights = network.state_dict()
    plain = from_weights(weights)
    fid = from_weights(weights | {"fc.weight": torch.zeros(1008, 2048)})
    assert (plain.variant, fid.variant) == ("plain", "fid")
    x = torch.rand(1, 3, 75, 75) * 2 - 1
    a, b = plain(x), fid(x)
    assert a.shape == (1, 2048)
    assert not torch.allclose(a, b, rtol=1e-3)
    torch.testing.assert_close(a, plain(F.interpolate(x, (299, 299), mode="bilinear")))
    grey = x[:, :1]
    torch.testing.assert_close(plain(grey), plain(grey.expand(-1, 3, -1, -1)))
    ones = torch.ones(1, 1, 3, 3)
    pools = {
        n: [m.pool(ones) for m in net.modules() if isinstance(m, BlockA | BlockE)] for n, net in (("p", plain), ("f", fid))
    }
    assert all(float(t[0, 0, 0, 0]) == pytest.approx(4 / 9) for t in pools["p"])
    assert all(float(t[0, 0, 0, 0]) == 1.0 for t in pools["f"])
    falling = -torch.arange(9.0).view(1, 1, 3, 3)
    tops = [m.pool(falling)[0, 0, 1, 1] for m in fid.modules() if isinstance(m, BlockE)]
    assert [float(t) for t in tops] == [-4.0, 0.0]  # the mean, then the largest


@torch.no_grad()
def test_a_block_is_its_branches_side_by_side(network: Inception) -> None:
    block = network.Mixed_7b
    x = torch.randn(2, 1280, 8, 8)

    def unit(name: str, x: Tensor, pad: tuple[int, int] = (0, 0)) -> Tensor:
        w = {k.removeprefix(f"{name}."): v for k, v in block.state_dict().items() if k.startswith(f"{name}.")}
        y = F.conv2d(x, w["conv.weight"], padding=pad)
        y = (y - w["bn.running_mean"].view(-1, 1, 1)) / (w["bn.running_var"].view(-1, 1, 1) + 0.001).sqrt()
        return (y * w["bn.weight"].view(-1, 1, 1) + w["bn.bias"].view(-1, 1, 1)).relu()

    three, double = unit("branch3x3_1", x), unit("branch3x3dbl_2", unit("branch3x3dbl_1", x), (1, 1))
    wanted = [
        unit("branch1x1", x),
        unit("branch3x3_2a", three, (0, 1)), unit("branch3x3_2b", three, (1, 0)),
        unit("branch3x3dbl_3a", double, (0, 1)), unit("branch3x3dbl_3b", double, (1, 0)),
        unit("branch_pool", F.avg_pool2d(x, 3, 1, 1)),
    ]  # fmt: skip
    torch.testing.assert_close(block(x), torch.cat(wanted, 1), rtol=1e-4, atol=1e-4)


def test_other_weights_are_refused(network: Inception) -> None:
    weights = network.state_dict()
    without = {n: t for n, t in weights.items() if not n.startswith("Mixed_6a.branch3x3.")}
    with pytest.raises(ValueError, match=r"Mixed_6a.branch3x3.conv.weight is missing"):
        from_weights(without)
    with pytest.raises(ValueError, match=r"has shape \(1, 2\), Inception-v3 needs"):
        from_weights(weights | {"Mixed_5b.branch1x1.conv.weight": torch.zeros(1, 2)})
    from_weights({n: t for n, t in weights.items() if "num_batches" not in n})  # files without counters
    with pytest.raises(ValueError, match="unknown variant"):
        Inception("tf")
