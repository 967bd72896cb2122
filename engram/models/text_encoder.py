"""A small Transformer that reads the words of a caption, for networks that draw what it says.

Papers: Vaswani et al. 2017, with the norm before each branch (Xiong et al. 2020). In latent diffusion (Rombach et al. 2022,
section 3.3) such an encoder is trained together with the network that draws; Stable Diffusion takes a frozen one in its place.
A learned mark stands before the words, so that the empty caption is something too: it is what guidance leads away from.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engram.nn.attention import Attend, join_heads, lengths_mask, split_heads


class TextEncoder(nn.Module):
    """Words (B, T) to vectors (B, 1 + T, width + 1), the first of which stands for the beginning.

    vocab:   numbers of different words
    context: most words of a caption
    width, layers, heads: numbers per word, blocks, heads of each attention
    """

    def __init__(self, vocab: int, context: int, width: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide width; got width {width}, heads {heads}")
        self.context, self.width = context, width
        self.words = nn.Embedding(vocab, width)
        self.mark = nn.Parameter(torch.empty(width))
        self.places = nn.Parameter(torch.empty(1 + context, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        for table in (self.words.weight, self.mark, self.places):
            nn.init.normal_(table, std=0.5 if table is not self.places else 0.1)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Words (B, T) and how many are not padding (B,) to (B, 1 + T, width + 1).

        The last number of a vector is 1 for a word and 0 for padding, whose other numbers mean nothing. ValueError when there
        are more words than `context`.
        """
        if tokens.shape[1] > self.context:
            raise ValueError(f"a caption of {tokens.shape[1]} words, and the encoder reads at most {self.context}")
        mask = lengths_mask(lengths + 1, 1 + tokens.shape[1])
        x = torch.cat([self.mark.expand(len(tokens), 1, -1), self.words(tokens)], 1) + self.places[: 1 + tokens.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        return torch.cat([self.norm(x), mask[:, 0, 0, :, None].to(x.dtype)], 2)

    def cost(self, words: int = 8) -> int:
        """Multiply-adds for one caption of `words` words: weights once per word, then products with keys and values."""
        length = 1 + words
        weights = sum(m.weight.numel() for m in self.blocks.modules() if isinstance(m, nn.Linear))
        return weights * length + 2 * len(self.blocks) * self.width * length**2


class Block(nn.Module):
    """Self-attention, feed-forward; the norm before each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.attend = nn.LayerNorm(width), nn.Linear(width, 3 * width), Attend()
        self.join, self.norm2 = nn.Linear(width, width), nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        x = x + self.join(join_heads(self.attend(q, k, v, mask)))
        return x + self.ffn(self.norm2(x))
