"""ResNet against transformers' ResNet, a functional reference from the paper, and published parameter counts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification

from engram.models.resnet import Basic, Bottleneck, ResNet
from engram.nn.strided import Strided


@pytest.mark.parametrize(("depth", "count"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_published_parameter_counts(depth: int, count: int) -> None:
    """As torchvision states them for 1000 classes."""
    with torch.device("meta"):
        assert sum(p.numel() for p in ResNet(depth).parameters()) == count


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_parameter_counts_of_table_six(depth: int, millions: float) -> None:
    with torch.device("meta"):
        net = ResNet(depth, outputs=10, stem="small", shortcut="pad")
    count = sum(p.numel() for p in net.parameters()) / 1e6
    assert count == pytest.approx(millions, abs=0.006 if depth < 110 else 0.06)
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in net.modules()) == depth


def their_name(name: str) -> str:
    """A parameter's or buffer's name in transformers."""
    part, _, rest = name.partition(".")
    if part == "fc":
        return f"classifier.1.{rest}"
    kinds = {"conv": "convolution", "bn": "normalization"}
    if part in ("conv1", "bn1"):
        return f"resnet.embedder.embedder.{kinds[part[:-1]]}.{rest}"
    block, layer, rest = rest.split(".", 2)
    prefix = f"resnet.encoder.stages.{int(part[-1]) - 1}.layers.{block}"
    if layer == "downsample":
        index, rest = rest.split(".")
        return f"{prefix}.shortcut.{('convolution', 'normalization')[int(index)]}.{rest}"
    return f"{prefix}.layer.{int(layer[-1]) - 1}.{kinds[layer[:-1]]}.{rest}"


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("depth", [18, 34, 50])
def test_equals_transformers(depth: int, mode: str) -> None:
    """Eight channels wide, float64: outputs and running statistics to 1e-10, gradients to 1e-8 of their largest."""
    torch.manual_seed(0)
    ours = ResNet(depth, 3, 5, width=8, zero_init=False).double()
    config = ResNetConfig(
        num_channels=3,
        embedding_size=8,
        hidden_sizes=[(32 if depth == 50 else 8) * 2**i for i in range(4)],
        depths=[2, 2, 2, 2] if depth == 18 else [3, 4, 6, 3],
        layer_type="bottleneck" if depth == 50 else "basic",
        num_labels=5,  # type: ignore[call-arg]
    )
    theirs = ResNetForImageClassification(config).double()
    state = {name: torch.rand_like(v) + 0.5 if v.dim() == 1 else v for name, v in ours.state_dict().items()}
    ours.load_state_dict(state)
    theirs.load_state_dict({their_name(name): v for name, v in state.items()})
    ours.train(mode == "train")
    theirs.train(mode == "train")

    x = torch.randn(3, 3, 45, 64, dtype=torch.float64)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = ours(a), theirs(b).logits
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)
    for out in (y, expected):
        out.square().sum().backward()
    named = dict(theirs.named_parameters())
    pairs = [("input", a, b), *((name, p, named[their_name(name)]) for name, p in ours.named_parameters())]
    assert len(pairs) == len(named) + 1
    for name, got, want in pairs:
        assert got.grad is not None
        assert want.grad is not None
        assert (got.grad - want.grad).abs().max() <= 1e-8 * want.grad.abs().max(), name
    buffers = dict(theirs.named_buffers())
    for name, value in ours.named_buffers():
        torch.testing.assert_close(value, buffers[their_name(name)], atol=1e-10, rtol=1e-10, msg=name)


def functional(weights: dict[str, Tensor], x: Tensor, n: int, shortcut: str) -> Tensor:
    """Section 4.2: 3 x 3 convolution, 3 stages of n blocks on maps of 1, 1/2, 1/4 the size, mean, dense; train mode."""

    def conv_norm(x: Tensor, conv: str, bn: str, stride: int) -> Tensor:
        kernel = weights[f"{conv}.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[2] // 2)
        return F.batch_norm(x, None, None, weights[f"{bn}.weight"], weights[f"{bn}.bias"], True)

    x = conv_norm(x, "conv1", "bn1", 1).relu()
    for stage in (1, 2, 3):
        for block in range(n):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = conv_norm(x, f"{name}.conv1", f"{name}.bn1", stride).relu()
            y = conv_norm(y, f"{name}.conv2", f"{name}.bn2", 1)
            if stride == 2 and shortcut == "pad":
                thin = F.max_pool2d(x, 1, 2)  # every second pixel
                x = torch.cat([thin, torch.zeros_like(thin)], 1)
            elif stride == 2:
                x = conv_norm(x, f"{name}.downsample.0", f"{name}.downsample.1", 2)
            x = (x + y).relu()
    return F.linear(x.mean((2, 3)), weights["fc.weight"], weights["fc.bias"])


@pytest.mark.parametrize("shortcut", ["projection", "pad"])
@pytest.mark.parametrize("depth", [8, 14])
def test_small_variant_equals_the_paper_in_functional_calls(depth: int, shortcut: str) -> None:
    """Outputs to 1e-10, gradients to 1e-9."""
    torch.manual_seed(0)
    net = ResNet(depth, 1, 4, "small", width=4, shortcut=shortcut).double()
    for p in net.parameters():
        nn.init.normal_(p, std=0.5)
    weights = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    x = torch.randn(3, 1, 14, 11, dtype=torch.float64)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = net(a), functional(weights, b, (depth - 2) // 6, shortcut)
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)
    got = torch.autograd.grad(y.square().mean(), [a, *net.parameters()])
    want = torch.autograd.grad(expected.square().mean(), [b, *weights.values()])
    for name, g, w in zip(["input", *weights], got, want, strict=True):
        torch.testing.assert_close(g, w, atol=1e-9, rtol=1e-9, msg=name)


def test_names_are_those_of_torchvision() -> None:
    bn = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    expected = ["conv1.weight", *(f"bn1.{b}" for b in bn)]
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            prefix = f"layer{stage}.{block}"
            for i in (1, 2):
                expected += [f"{prefix}.conv{i}.weight", *(f"{prefix}.bn{i}.{b}" for b in bn)]
            if stage > 1 and block == 0:
                expected += [f"{prefix}.downsample.0.weight", *(f"{prefix}.downsample.1.{b}" for b in bn)]
    with torch.device("meta"):
        assert list(ResNet(18).state_dict()) == [*expected, "fc.weight", "fc.bias"]


@pytest.mark.parametrize("depth", [8, 50])
def test_zero_init_makes_each_block_the_identity(depth: int) -> None:
    torch.manual_seed(0)
    for zero in (True, False):
        net = ResNet(depth, 1, 2, "small", width=4, zero_init=zero)
        for block in net.modules():
            if isinstance(block, (Basic, Bottleneck)) and isinstance(block.downsample, nn.Identity):
                x = torch.rand(2, block.conv1.in_channels, 5, 5)
                assert torch.equal(block(x), x) == zero


def test_errors() -> None:
    for depth in (7, 2, 21):
        with pytest.raises(ValueError, match=f"no ResNet of depth {depth}"):
            ResNet(depth)
    with pytest.raises(ValueError, match="unknown stem"):
        ResNet(8, stem="cifar")
    with pytest.raises(ValueError, match="unknown shortcut"):
        ResNet(8, shortcut="A")


@pytest.mark.parametrize("block", [Basic, Bottleneck])
def test_a_map_of_one_place_goes_on(block: type[Basic] | type[Bottleneck]) -> None:
    torch.manual_seed(0)
    net, x = block(8, 8, 2, "B").eval(), torch.randn(3, 8, 1, 1)
    assert [m.kernel_size for m in net.modules() if isinstance(m, Strided) and m.stride == (2, 2)] == [(3, 3)]
    big = net(F.pad(x, (0, 1, 0, 1)))  # the taps that see more of this map see zeros alone
    torch.testing.assert_close(net(x), big, rtol=0, atol=1e-6)
