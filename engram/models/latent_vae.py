"""The autoencoder of latent diffusion: pictures to a small grid of numbers and back.

Paper: Rombach et al. 2022, "High-resolution image synthesis with latent diffusion models", section 3.1, with the small KL
term ("KL-reg") and codes brought to unit variance (appendix G). Differs: every channel of the codes has its own mean and
deviation, measured while training; no adversarial and no perceptual loss, which need a network trained elsewhere; pixels are
folded into channels (Shi et al. 2016) where others use strides and interpolation, so no large map is ever made.

Down:  fold 2 x 2 -> convolution -> residual block, once per width; then mean and log variance of each number of the code
Up:    convolution -> residual block -> convolution -> unfold 2 x 2, once per width in reverse
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.nn.norm import norm


class LatentVAE(nn.Module):
    """Pictures (B, channels, *size) to codes (B, code, h, w) and back, where h and w are `size` / 2 ** len(widths).

    channels, size: of the pictures; the size must be divisible by 2 ** len(widths)
    code:           numbers at each place of the grid
    widths:         channels of the maps, from the largest map to the smallest
    """

    def __init__(self, channels: int, size: tuple[int, int], code: int = 4, widths: tuple[int, ...] = (32, 64)) -> None:
        super().__init__()
        factor = 2 ** len(widths)
        if size[0] % factor or size[1] % factor:
            raise ValueError(f"{len(widths)} widths need pictures whose sides {factor} divides; got {size[0]} x {size[1]}")
        self.size, self.code = size, code
        self.grid = (size[0] // factor, size[1] // factor)
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        before = channels
        for width in widths:
            down += [nn.PixelUnshuffle(2), nn.Conv2d(4 * before, width, 3, padding=1), Residual(width)]
            last = [norm("group", width), nn.SiLU(), nn.Conv2d(width, 4 * before, 3, padding=1), nn.PixelShuffle(2)]
            up = [Residual(width), *last, *up]
            before = width
        self.down = nn.Sequential(*down, norm("group", before), nn.SiLU(), nn.Conv2d(before, 2 * code, 1))
        self.up = nn.Sequential(nn.Conv2d(code, before, 3, padding=1), *up)
        self.moments: Tensor
        self.register_buffer("moments", torch.zeros(3, code))  # sums of 1, z and z^2 over the codes seen lately
        with torch.no_grad():
            up[-2].weight.mul_(0.5)  # type: ignore[operator]  # an untrained network answers about the mean picture
            self.down[-1].weight[code:] *= 0.1  # type: ignore[index]
            self.down[-1].bias[code:] = -4.0  # type: ignore[index]  # codes start with little noise

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures to mean and log variance of their codes, each (B, code, h, w), as the decoder reads them."""
        mean, spread = self.down(x).chunk(2, dim=1)
        return mean, spread.clamp(-20.0, 10.0)

    def decode(self, z: Tensor) -> Tensor:
        """Codes as the decoder reads them to pictures."""
        return self.up(z)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures to unit codes (B, code, h, w): those of the mean, of mean 0 and deviation 1 per channel."""
        mean, deviation = self.statistics()
        return (self.encode(x)[0] - mean) / deviation

    def pictures(self, codes: Tensor) -> Tensor:
        """Unit codes, as `forward` gives them, to pictures."""
        mean, deviation = self.statistics()
        return self.decode(codes * deviation + mean)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the codes, each (code, 1, 1); 0 and 1 before anything was measured."""
        count, total, squares = self.moments
        mean = total / count.clamp(min=1e-6)
        variance = (squares / count.clamp(min=1e-6) - mean.square()).clamp(min=1e-6)
        deviation = torch.where(count > 0, variance.sqrt(), torch.ones_like(variance))
        return mean[:, None, None], deviation[:, None, None]

    def cost(self) -> int:
        """Multiply-adds per picture, there and back."""
        total, (height, width) = 0, self.size
        for layer in (*self.down, *self.up):
            if isinstance(layer, nn.PixelUnshuffle):
                height, width = height // 2, width // 2
            elif isinstance(layer, nn.PixelShuffle):
                height, width = height * 2, width * 2
            total += sum(m.weight.numel() for m in layer.modules() if isinstance(m, nn.Conv2d)) * height * width
        return total


class Residual(nn.Module):
    """x + convolution(act(norm(convolution(act(norm(x)))))), the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm("group", width), nn.Conv2d(width, width, 3, padding=1)
        self.norm2, self.conv2 = norm("group", width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(y)))
