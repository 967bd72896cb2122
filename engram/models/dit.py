"""DiT: a diffusion Transformer over patches of a noisy picture.

Paper: Peebles & Xie 2023, "Scalable diffusion models with Transformers", section 3.2 with adaLN-Zero blocks. A picture is cut
into patches, each becomes a token with fixed sine and cosine positions of its row and column; time and class together give
every block its shifts, scales and gates. The gates and the last layer start at zero: each block starts as the identity and
the network answers zero. Differs: one output per channel (no learned variance), the attention is `engram.nn.attention.Attend`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engram.nn.attention import Attend, join_heads, split_heads
from engram.nn.times import time_features

FREQUENCIES = 256  # width of the sines and cosines of the time, as in the paper's code


class DiT(nn.Module):
    """Noisy pictures (B, channels, *size) at times t to a prediction of the same shape.

    channels, size: of the picture; its height and width must be divisible by `patch`
    classes:        known classes; 0 = none. One more number, `classes`, stands for no class (guidance without a classifier)
    patch:          side of a patch in pixels
    width, layers, heads: numbers per token, blocks, heads of each attention
    ratio:          width of the feed-forward layer in units of `width`
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        classes: int = 0,
        patch: int = 2,
        width: int = 128,
        layers: int = 6,
        heads: int = 4,
        ratio: int = 4,
    ) -> None:
        super().__init__()
        if size[0] % patch or size[1] % patch:
            raise ValueError(f"patch must divide the picture; got patch {patch}, picture {size[0]} x {size[1]}")
        if width % heads or width % 4:
            raise ValueError(f"width must be divisible by heads and by 4; got width {width}, heads {heads}")
        self.channels, self.size, self.classes, self.patch = channels, size, classes, patch
        self.rows, self.columns = size[0] // patch, size[1] // patch
        self.embed = nn.Conv2d(channels, width, patch, patch)
        self.register_buffer("table", grid_positions(self.rows, self.columns, width), persistent=False)
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.blocks = nn.ModuleList(Block(width, heads, ratio * width) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.out = nn.Linear(width, patch * patch * channels)
        self._initialise()

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, channels, *size), times (B,), class numbers (B,) or none to (B, channels, *size)."""
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.get_buffer("table")  # (B, N, D)
        given = self.time(time_features(t, FREQUENCIES).to(tokens.dtype))  # (B, D)
        if self.label is not None:
            given = given + self.label(torch.full_like(t, self.classes, dtype=torch.long) if condition is None else condition)
        for block in self.blocks:
            tokens = block(tokens, given)
        shift, scale = self.modulate(given).chunk(2, dim=1)
        return self._picture(self.out(modulated(self.norm(tokens), shift, scale)))

    def cost(self) -> int:
        """Multiply-adds per picture: token weights once per token, those of time once, then products with keys and values."""
        count = self.rows * self.columns
        given = [m for part in (self.time, self.modulate) for m in part.modules() if isinstance(m, nn.Linear)]
        per_token = self.embed.weight.numel() + self.out.weight.numel()
        pairs = 0
        for block in self.blocks:
            given += [m for m in block.get_submodule("modulate").modules() if isinstance(m, nn.Linear)]
            inner = [m for n, m in block.named_modules() if isinstance(m, nn.Linear) and not n.startswith("modulate")]
            per_token += sum(m.weight.numel() for m in inner)
            pairs += 2 * count * count * self.embed.out_channels
        return per_token * count + sum(m.weight.numel() for m in given) + pairs

    def _picture(self, tokens: Tensor) -> Tensor:
        """(B, N, patch * patch * channels) to (B, channels, *size)."""
        x = tokens.unflatten(2, (self.patch, self.patch, self.channels)).unflatten(1, (self.rows, self.columns))
        return x.permute(0, 5, 1, 3, 2, 4).reshape(len(x), self.channels, *self.size)  # from (B, rows, columns, p, p, C)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.embed.weight.view(self.embed.out_channels, -1))  # as the linear layer that it is
        nn.init.zeros_(self.embed.bias)  # type: ignore[arg-type]
        for layer in self.time:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.02)
        last = [self.out, self.modulate[1], *(block.get_submodule("modulate.1") for block in self.blocks)]
        for layer in last:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]


class Block(nn.Module):
    """Self-attention and feed-forward; what is given sets shift, scale and gate of both (adaLN-Zero, figure 3)."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.qkv, self.attend, self.join = nn.Linear(width, 3 * width), Attend(), nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.ffn = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        """Tokens (B, N, D) and what is given (B, D) to (B, N, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulate(given).chunk(6, dim=1)
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(modulated(self.norm1(x), shift1, scale1)).chunk(3, -1))
        x = x + gate1[:, None] * self.join(join_heads(self.attend(q, k, v)))
        return x + gate2[:, None] * self.ffn(modulated(self.norm2(x), shift2, scale2))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (B, N, D) times 1 + scale (B, D), plus shift (B, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]


def grid_positions(rows: int, columns: int, width: int) -> Tensor:
    """(rows * columns, width): a quarter each of sine and cosine of the column, then of the row, as in `sinusoidal`."""
    rate = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    parts = [f(place.flatten()[:, None] * rate) for place in (column, row) for f in (torch.sin, torch.cos)]
    return torch.cat(parts, dim=1).float()
