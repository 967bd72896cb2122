"""Generator and discriminator of a generative adversarial network (Goodfellow et al. 2014) for pictures of 8 to 64 pixels.

The shape is that of DCGAN (Radford et al. 2016, section 3): the generator turns a vector into a small map by one linear
layer and doubles it with transposed 4 x 4 convolutions of stride 2; the discriminator halves the picture with 4 x 4
convolutions of stride 2 and ends in one number. What differs, after ten years of use:

- group norm in the generator and none in the discriminator, where the paper has batch norm in both: a row's picture and
  score then depend on that row alone (batch norm also lets the two kinds of picture leak into each other);
- He's starting weights in place of a fixed 0.02, and a last layer of the discriminator that starts near zero;
- classes: an embedding beside the latent in the generator, and a projection discriminator (Miyato & Koyama 2018, Eq. 3
  and Figure 1d), score = psi(phi(x)) + <embed(y), phi(x)>.

The map is halved until its shorter side has at most 7 pixels, and features double at each halving:
28 x 28 goes through 14 x 14 and 7 x 7, 64 x 64 through 32, 16, 8 and 4. Sides need not be powers of two.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from engram.nn import initialise
from engram.nn import norm as norm_named

SMALL = 7  # longest shorter side of the smallest map
SLOPE = 0.2  # of leaky ReLU, as in DCGAN


def maps(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Heights and widths from the whole picture down to the smallest map; odd sides are rounded up."""
    sizes = [size]
    while min(sizes[-1]) > SMALL:
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    return sizes


class Generator(nn.Module):
    """(B, latent) standard normal numbers, and class numbers (B,) when there are `classes`, to (B, channels, *size) in -1..1.

    channels:  of the picture: 1 grey, 3 colour
    size:      height and width in pixels, each at least 8
    latent:    numbers that a picture is made from
    width:     features at half the size of the picture; twice as many at each smaller map, at most `most`
    classes:   number of classes; 0 makes pictures without any
    norm:      one of `engram.nn.NORMS`, after each layer but the last
    embed:     numbers per class beside the latent
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        latent: int = 64,
        width: int = 64,
        classes: int = 0,
        norm: str = "group",
        embed: int = 32,
        most: int = 512,
    ) -> None:
        super().__init__()
        if min(size) < 8:
            raise ValueError(f"pictures of {size[0]} x {size[1]} are too small for a GAN; take 8 x 8 or more")
        self.latent, self.classes = latent, classes
        self.sizes = maps(size)
        widths = features(width, len(self.sizes) - 1, most)
        (height, breadth), first = self.sizes[-1], widths[-1]
        self.embed = nn.Embedding(classes, embed) if classes else None
        self.start = nn.Linear(latent + (embed if classes else 0), first * height * breadth)
        self.first = nn.Sequential(norm_named(norm, first), nn.ReLU())
        outs = [*reversed(widths[:-1]), channels]
        self.doubles = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, 2, 1) for before, after in zip(reversed(widths), outs, strict=True)
        )
        self.norms = nn.ModuleList(nn.Sequential(norm_named(norm, after), nn.ReLU()) for after in outs[:-1])
        initialise(self, "he_normal", "relu")
        initialise(self.doubles[-1], "lecun_normal")

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, latent), y int64 (B,) to (B, channels, H, W) in -1..1."""
        if self.embed is not None:
            assert y is not None, "a generator with classes needs y"
            z = torch.cat([z, self.embed(y).to(z.dtype)], 1)
        x = self.start(z).unflatten(1, (-1, *self.sizes[-1]))  # (B, C, h, w)
        x = self.first(x)
        for number, double in enumerate(self.doubles):
            height, width = self.sizes[-2 - number]
            x = double(x)[:, :, :height, :width]  # a side that was rounded up loses one pixel
            if number < len(self.norms):
                x = self.norms[number](x)
        return x.tanh()

    def cost(self) -> int:
        """Multiply-adds per picture: a transposed convolution's weights act once per pixel of the map that it reads."""
        total = self.start.weight.numel()
        for layer, size in zip(self.doubles, reversed(self.sizes[1:]), strict=True):
            total += layer.get_parameter("weight").numel() * math.prod(size)
        return total


class Discriminator(nn.Module):
    """Pictures (B, channels, *size), and class numbers (B,) when there are `classes`, to scores (B,): high means real.

    width:   features at half the size of the picture, as in `Generator`
    hidden:  numbers phi(x) that the score is read from
    norm:    one of `engram.nn.NORMS`, after each convolution but the first
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        width: int = 32,
        classes: int = 0,
        norm: str = "none",
        hidden: int = 256,
        most: int = 512,
    ) -> None:
        super().__init__()
        self.classes = classes
        height, breadth = size
        stages: list[nn.Module] = []
        self.pixels: list[int] = []
        for number, out in enumerate(features(width, len(maps(size)) - 1, most)):
            stages += [nn.Conv2d(channels, out, 4, 2, 1), norm_named(norm if number else "none", out), nn.LeakyReLU(SLOPE)]
            channels, height, breadth = out, height // 2, breadth // 2
            self.pixels.append(height * breadth)
        self.stages = nn.Sequential(*stages)
        self.phi = nn.Sequential(nn.Linear(channels * height * breadth, hidden), nn.LeakyReLU(SLOPE))
        self.score = nn.Linear(hidden, 1)
        self.embed = nn.Embedding(classes, hidden) if classes else None
        initialise(self, "he_normal", "relu")
        initialise(self.score, "lecun_normal", scale=0.03)  # scores near zero: it knows nothing yet
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, std=0.03 / math.sqrt(hidden))

    def features(self, x: Tensor) -> Tensor:
        """phi(x), (B, hidden)."""
        return self.phi(self.stages(x).flatten(1))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, channels, H, W), y int64 (B,) to (B,)."""
        phi = self.features(x)
        score = self.score(phi)[:, 0]
        if self.embed is None:
            return score
        assert y is not None, "a discriminator with classes needs y"
        return score + (self.embed(y) * phi).sum(1)

    def by_class(self, x: Tensor) -> Tensor:
        """The score of every picture as each of the classes, (B, classes); (B, 1) without classes."""
        phi = self.features(x)
        score = self.score(phi)  # (B, 1)
        return score if self.embed is None else score + phi @ self.embed.weight.to(phi.dtype).T

    def cost(self) -> int:
        """Multiply-adds per picture."""
        convs = [m for m in self.stages if isinstance(m, nn.Conv2d)]
        total = sum(c.weight.numel() * pixels for c, pixels in zip(convs, self.pixels, strict=True))
        return total + sum(m.weight.numel() for m in [*self.phi, self.score] if isinstance(m, nn.Linear))


def features(width: int, levels: int, most: int) -> list[int]:
    """Features of each map from half the picture's size down: width, 2 width, 4 width ... at most `most`."""
    return [min(width << level, max(most, width)) for level in range(levels)]
