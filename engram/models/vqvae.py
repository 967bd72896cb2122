"""Vector-quantised autoencoder: a picture becomes a small grid of codes from a codebook, and the grid a picture again.

Paper: van den Oord et al. 2017, "Neural discrete representation learning", section 4.1: strided 4 x 4 convolutions, two
residual blocks (ReLU, 3 x 3, ReLU, 1 x 1), and the mirror image of it. Differs: any size goes in (a side that a stride does not
divide is made good on the way back), a 1 x 1 convolution brings the features to the width of the codes, and the codes are
moving averages (`engram.nn.codebook`), which the paper gives in appendix A.1.

The training of it (`engram.tasks.vector_quantise`) calls `encode`, `codebook` and `decode` one by one.
"""

from __future__ import annotations

from torch import Tensor, nn

from engram.nn import initialise
from engram.nn.codebook import Codebook


class VQVAE(nn.Module):
    """(B, channels, height, width) to the same shape, by way of codes (B, *grid).

    codes:       vectors in the codebook
    code_width:  numbers in each
    widths:      channels of each stage; every stage halves height and width
    blocks:      residual blocks at the smallest size, in the encoder and in the decoder
    decay:       of the codebook's moving averages
    least:       codes used less than this share of the mean are restarted
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        codes: int = 512,
        code_width: int = 64,
        widths: tuple[int, ...] = (64, 128),
        blocks: int = 2,
        decay: float = 0.99,
        least: float = 0.03,
    ) -> None:
        super().__init__()
        sizes = [(height >> n, width >> n) for n in range(len(widths) + 1)]
        if min(sizes[-1]) < 1:
            raise ValueError(f"{len(widths)} stages of halving leave nothing of {height} x {width} pixels; use fewer widths")
        self.size, self.grid = sizes[0], sizes[-1]
        inner, ins = widths[-1], (channels, *widths)
        down = [layer for a, b in zip(ins[:-1], widths, strict=True) for layer in (nn.Conv2d(a, b, 4, 2, 1), nn.ReLU())]
        # Two halvings of 7 rows leave 1; `output_padding` gives back the row that a halving dropped.
        odd = [(h % 2, w % 2) for h, w in sizes[:-1]]
        up = [
            layer
            for a, b, more in zip(widths[::-1], (*widths[-2::-1], channels), odd[::-1], strict=True)
            for layer in (nn.ReLU(), nn.ConvTranspose2d(a, b, 4, 2, 1, output_padding=more))
        ]
        self.encoder = nn.Sequential(
            *down, nn.Conv2d(inner, inner, 3, padding=1), *(_Block(inner) for _ in range(blocks)), nn.ReLU(),
            nn.Conv2d(inner, code_width, 1),
        )  # fmt: skip
        self.codebook = Codebook(codes, code_width, decay, least)
        self.decoder = nn.Sequential(
            nn.Conv2d(code_width, inner, 3, padding=1), *(_Block(inner) for _ in range(blocks)), *up
        )  # fmt: skip
        initialise(self.encoder, "auto", "relu")
        initialise(self.decoder, "auto", "relu")
        initialise(self.decoder[-1], "auto", "linear", scale=0.1)  # untrained, it gives nearly the mean picture

    def forward(self, x: Tensor) -> Tensor:
        """The picture as its codes tell it, (B, channels, height, width)."""
        return self.decode(self.codebook(self.encode(x))[0])

    def encode(self, x: Tensor) -> Tensor:
        """(B, channels, height, width) to vectors before they are quantised, (B, code_width, *grid)."""
        return self.encoder(x)

    def decode(self, q: Tensor) -> Tensor:
        """Codes as vectors (B, code_width, *grid) to (B, channels, height, width)."""
        return self.decoder(q)

    def encode_ids(self, x: Tensor) -> Tensor:
        """Pictures to code numbers (B, *grid) int64, 0 to codes - 1."""
        return self.codebook(self.encode(x))[1]

    def decode_ids(self, ids: Tensor) -> Tensor:
        """Code numbers (B, *grid) to pictures (B, channels, height, width)."""
        return self.decode(self.codebook.lookup(ids))

    def cost(self) -> int:
        """Multiply-adds per picture: a convolution's weights act once per pixel of the smaller of its two maps."""
        (height, width), total = self.size, 0
        for layer in self.encoder.modules():
            if isinstance(layer, nn.Conv2d):
                height, width = (height // 2, width // 2) if layer.stride[0] == 2 else (height, width)
                total += layer.weight.numel() * height * width
        total += self.codebook.vectors.numel() * height * width
        for layer in self.decoder.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                total += layer.weight.numel() * height * width
                if isinstance(layer, nn.ConvTranspose2d):
                    height, width = 2 * height + layer.output_padding[0], 2 * width + layer.output_padding[1]
        return total


class _Block(nn.Module):
    """x + conv 1 x 1 (relu (conv 3 x 3 (relu x))), (B, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, channels, 3, padding=1)
        self.narrow = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The input and what the two convolutions add to it."""
        return x + self.narrow(self.wide(x.relu()).relu())
