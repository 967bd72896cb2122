"""Both networks of the GAN against an independent DCGAN script in plain torch, and the properties that the recipe relies on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.models.gan import Discriminator, Generator, maps

F64 = torch.float64


class ScriptGenerator(nn.Module):
    """As a tutorial writes it: every layer by hand for 12 x 12, one class table, group norm in 4 and 2 groups."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 5)
        self.main = nn.Sequential(
            nn.ConvTranspose2d(6 + 5, 8, 6, 1, 0), nn.GroupNorm(4, 8), nn.ReLU(), nn.ConvTranspose2d(8, 2, 4, 2, 1), nn.Tanh()
        )

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.main(torch.cat([z, self.table(y)], 1)[:, :, None, None])


class ScriptDiscriminator(nn.Module):
    """28 x 28 to 14 to 7, and the projection of Miyato & Koyama as an explicit sum."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 4, 2, 1), nn.Conv2d(4, 8, 4, 2, 1)
        self.phi, self.psi = nn.Linear(8 * 7 * 7, 6), nn.Linear(6, 1)
        self.table = nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = F.leaky_relu(self.two(F.leaky_relu(self.one(x), 0.2)), 0.2)
        phi = F.leaky_relu(self.phi(x.reshape(len(x), -1)), 0.2)
        return torch.stack([self.psi(row)[0] + torch.dot(row, self.table[int(k)]) for row, k in zip(phi, y, strict=True)])


def drawn(net: nn.Module) -> nn.Module:
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    return net.double()


def same(ours: nn.Module, script: nn.Module, inputs: tuple[Tensor, Tensor], pairs: dict[str, str]) -> None:
    """Outputs to 1e-10 and the gradients of all weights and of the input to 1e-9."""
    a, b = (inputs[0].clone().requires_grad_() for _ in range(2))
    y, expected = ours(a, inputs[1]), script(b, inputs[1])
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, atol=1e-9, rtol=1e-9)
    theirs = dict(script.named_parameters())
    for name, p in ours.named_parameters():
        want = theirs[pairs[name]].grad
        assert want is not None
        assert p.grad is not None
        if name == "start.weight":  # (out * h * w, in) against a transposed convolution's (in, out, h, w)
            want = want.permute(1, 2, 3, 0).reshape(p.shape)
        if name == "start.bias":  # the script has one bias per feature, ours one per feature and pixel
            torch.testing.assert_close(p.grad.view(len(want), -1).sum(1), want, atol=1e-9, rtol=1e-9)
            continue
        torch.testing.assert_close(p.grad, want, atol=1e-9, rtol=1e-9, msg=name)


def test_generator_equals_a_script() -> None:
    torch.manual_seed(0)
    ours, script = Generator(2, (12, 12), 6, 8, 3, embed=5).double(), drawn(ScriptGenerator())
    pairs = {
        "embed.weight": "table.weight", "start.weight": "main.0.weight", "start.bias": "main.0.bias",
        "first.0.weight": "main.1.weight", "first.0.bias": "main.1.bias",
        "doubles.0.weight": "main.3.weight", "doubles.0.bias": "main.3.bias",
    }  # fmt: skip
    given = dict(script.named_parameters())
    with torch.no_grad():
        for name, p in ours.named_parameters():
            source = given[pairs[name]]
            if name == "start.weight":
                source = source.permute(1, 2, 3, 0).reshape(p.shape)
            elif name == "start.bias":
                source = source.repeat_interleave(36)
            p.copy_(source)
    same(ours, script, (torch.randn(4, 6, dtype=F64), torch.tensor([0, 2, 1, 2])), pairs)


def test_discriminator_equals_a_script() -> None:
    torch.manual_seed(0)
    ours, script = Discriminator(1, (28, 28), 4, 3, hidden=6).double(), drawn(ScriptDiscriminator())
    pairs = {"stages.0": "one", "stages.3": "two", "phi.0": "phi", "score": "psi"}
    names = {f"{a}.{w}": f"{b}.{w}" for a, b in pairs.items() for w in ("weight", "bias")} | {"embed.weight": "table"}
    given = dict(script.named_parameters())
    with torch.no_grad():
        for name, p in ours.named_parameters():
            p.copy_(given[names[name]])
    x, y = torch.randn(4, 1, 28, 28, dtype=F64), torch.tensor([0, 2, 1, 2])
    same(ours, script, (x, y), names)
    by_class = ours.by_class(x)
    torch.testing.assert_close(by_class[torch.arange(4), y], ours(x, y))
    torch.testing.assert_close(by_class[:, 0], script(x, torch.zeros(4)))


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (28, 28), (31, 31), (64, 64), (16, 40)])
@pytest.mark.parametrize("classes", [0, 4])
def test_any_size(size: tuple[int, int], classes: int) -> None:
    """Also odd and oblong pictures, in colour; values in -1..1, and every weight gets a gradient."""
    torch.manual_seed(0)
    generator, discriminator = Generator(3, size, 5, 4, classes), Discriminator(3, size, 4, classes, hidden=8)
    y = torch.tensor([0, classes - 1]) if classes else None
    x = generator(torch.randn(2, 5), y)
    assert x.shape == (2, 3, *size)
    assert x.abs().max() <= 1
    score = discriminator(x, y)
    assert score.shape == (2,)
    score.square().sum().backward()
    networks = [*generator.parameters(), *discriminator.parameters()]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in networks)


def test_features_double_as_the_map_halves() -> None:
    assert maps((64, 64)) == [(64, 64), (32, 32), (16, 16), (8, 8), (4, 4)]
    assert maps((28, 28)) == [(28, 28), (14, 14), (7, 7)]
    generator = Generator(3, (64, 64), 10, 64, most=256)
    assert [d.in_channels for d in generator.doubles] == [256, 256, 128, 64]  # type: ignore[union-attr]


def test_rows_stand_alone_and_classes_count() -> None:
    """A picture and its score depend on their own row only, and on its class; a fresh discriminator knows nothing."""
    torch.manual_seed(0)
    generator, discriminator = Generator(1, (28, 28), 8, 8, 5).double(), Discriminator(1, (28, 28), 8, 5).double()
    z, y = torch.randn(3, 8, dtype=F64), torch.tensor([0, 1, 2])
    x = generator(z, y)
    torch.testing.assert_close(generator(z[1:2], y[1:2]), x[1:2])
    torch.testing.assert_close(discriminator(x[1:2], y[1:2]), discriminator(x, y)[1:2])
    assert not torch.allclose(generator(z, y.flip(0))[0], x[0])
    assert not torch.allclose(discriminator(x, y.flip(0))[0], discriminator(x, y)[0])
    assert discriminator(torch.randn(64, 1, 28, 28, dtype=F64), torch.arange(64) % 5).abs().max() < 0.5


def test_cost_counts_multiply_adds() -> None:
    """Against torch's own counter of floating-point operations, two per multiply-add."""
    from torch.utils.flop_counter import FlopCounterMode

    generator, discriminator = Generator(1, (31, 28), 8, 8), Discriminator(1, (31, 28), 8)
    for net, x in ((generator, torch.randn(1, 8)), (discriminator, torch.randn(1, 1, 31, 28))):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(x)
        assert net.cost() == counter.get_total_flops() / 2


def test_errors() -> None:
    with pytest.raises(ValueError, match="7 x 20 are too small"):
        Generator(1, (7, 20))
    with pytest.raises(ValueError, match="unknown norm"):
        Generator(1, (8, 8), norm="spectral")
