"""GPT: a Transformer decoder that predicts the next token.

Papers: Radford et al. 2019 (GPT-2; pre-norm, section 2.3) after Vaswani et al. 2017. The knobs that are leaves:

    positions  "learned" (GPT-2), "rotary" (Su et al. 2021), "sinusoidal" (Vaswani et al. 2017, section 3.5)
    norm       "layer" (GPT-2), "rms" (Zhang & Sennrich 2019)
    ffn        "gelu" (tanh form, as GPT-2), "swiglu" (Shazeer 2020, Eq. 6)
    kv_heads   fewer key-value heads than query heads (Ainslie et al. 2023)
    window     each token sees the last `window` tokens of its row (Beltagy et al. 2020)

With rotary, rms, swiglu, bias=False and tied=False it is the network of Llama (Touvron et al. 2023).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.nn.attention import Attend, causal_mask, document_mask
from engram.nn.cache import KVCache
from engram.nn.positions import restart, rotate, sinusoidal, turns
from engram.nn.rms import RMSNorm


class GPT(nn.Module):
    """Tokens (B, T) to logits (B, T, vocab) of the token after each.

    vocab:      number of different tokens
    context:    most tokens of a row
    layers, heads, width: blocks, query heads of each, numbers per token; heads divides width
    kv_heads:   key-value heads, a divisor of heads; 0 = heads
    hidden:     width inside the feed-forward layers; 0 = 4 width, or 8/3 width for "swiglu", whose cost is then alike
    tied:       the output layer is the token table (Press & Wolf 2017)
    window:     how many tokens, itself included, a token sees; 0 = all before it
    bias:       of the linear layers and layer norms
    dropout:    share set to zero in training: of embeddings and what each branch adds; not of attention weights, which
                would leave the fused kernel (a step of 6 layers of 384 on a processor takes 15 % less)
    """

    def __init__(
        self,
        vocab: int,
        context: int,
        layers: int,
        heads: int,
        width: int,
        *,
        kv_heads: int = 0,
        hidden: int = 0,
        positions: Literal["learned", "rotary", "sinusoidal"] = "learned",
        norm: Literal["layer", "rms"] = "layer",
        ffn: Literal["gelu", "swiglu"] = "gelu",
        tied: bool = True,
        window: int = 0,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        kv_heads = kv_heads or heads
        if width % heads or heads % kv_heads:
            raise ValueError(f"heads must divide width and kv_heads heads; got width {width}, heads {heads}, {kv_heads}")
        if positions == "rotary" and width // heads % 2:
            raise ValueError(f"rotary positions turn pairs, so width / heads must be even; got {width} / {heads}")
        hidden = hidden or (4 * width if ffn == "gelu" else (8 * width // 3 + 63) // 64 * 64)
        self.vocab, self.context, self.heads, self.kv_heads, self.width = vocab, context, heads, kv_heads, width
        self.positions, self.window = positions, window
        self.tokens = nn.Embedding(vocab, width)
        if positions == "learned":
            self.places = nn.Embedding(context, width)
        elif positions == "sinusoidal":
            self.register_buffer("table", sinusoidal(context, width), persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, kv_heads, hidden, norm, ffn, bias, dropout) for _ in range(layers))
        self.norm = _norm(norm, width, bias)
        self.out = None if tied else nn.Linear(width, vocab, bias=False)
        self._initialise()

    def forward(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """(B, T) to (B, T, vocab). With document numbers (B, T) a token sees its own document, whose positions start at 0."""
        return self.head(self.hidden(tokens, documents))

    def hidden(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """(B, T) to (B, T, width), after the last norm: what `head` turns into logits. ValueError above the context."""
        length = tokens.shape[1]
        if length > self.context:
            raise ValueError(f"{length} tokens in a row, and the model's context is {self.context}")
        mask, places = None, torch.arange(length, device=tokens.device)[None]
        if documents is not None:
            mask = document_mask(documents, self.window)
            places = restart(documents)
        elif 0 < self.window < length:
            mask = causal_mask(places, places, self.window)
        x, turn = self._embed(tokens, places)
        for block in self.blocks:
            x = block(x, mask, mask is None, turn)
        return self.norm(x)

    def head(self, hidden: Tensor) -> Tensor:
        """(..., width) to logits (..., vocab)."""
        return F.linear(hidden, self.tokens.weight) if self.out is None else self.out(hidden)

    def new_cache(self, rows: int, capacity: int = 0, dtype: torch.dtype | None = None) -> KVCache:
        """Memory for `rows` texts of at most `capacity` tokens (0 = the context), in the dtype of the weights."""
        weight, width = self.tokens.weight, self.width // self.heads
        return KVCache(
            len(self.blocks), rows, self.kv_heads, min(capacity or self.context, self.context), width,
            window=self.window, dtype=dtype or weight.dtype, device=weight.device,
        )  # fmt: skip

    def step(self, tokens: Tensor, positions: Tensor, cache: KVCache) -> Tensor:
        """The next tokens (B, T) at `positions` (B, T), consecutive in each row, to logits (B, T, vocab).

        A prompt is one step at positions from 0; prompts of different lengths are padded at the right, and the text of
        each continues at its own length. The cache keeps what was read. Raises ValueError when it is full.
        """
        return self.head(self.read(tokens, positions, cache))

    def read(self, tokens: Tensor, positions: Tensor, cache: KVCache) -> Tensor:
        """`step` without the head: (B, T) to (B, T, width). A long prompt needs logits of its last token only."""
        mask, causal = cache.place(positions)
        x, turn = self._embed(tokens, positions)
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, causal, turn, cache, layer)
        return self.norm(x)

    def cost(self) -> int:
        """Multiply-adds per token, the mean over a full context: each weight once, then products with the keys seen."""
        weights = sum(m.weight.numel() for m in self.blocks.modules() if isinstance(m, nn.Linear)) + self.vocab * self.width
        window = min(self.window or self.context, self.context)
        seen = window * (window + 1) // 2 + (self.context - window) * window  # sum over the tokens of a context
        return weights + 2 * len(self.blocks) * self.width * seen // self.context

    def _embed(self, tokens: Tensor, places: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """The input of the first block (B, T, width), and how rotary positions turn queries and keys."""
        x, turn = self.tokens(tokens), None
        if self.positions == "learned":
            x = x + self.places(places)
        elif self.positions == "sinusoidal":
            x = x * self.width**0.5 + self.get_buffer("table")[places]  # the scale of Vaswani et al. 2017, section 3.4
        else:
            turn = turns(places, self.width // self.heads)
        return self.dropout(x), turn

    def _initialise(self) -> None:
        """GPT-2: N(0, 0.02), biases 0, and what a block adds to the sum smaller by sqrt(2 layers) (section 2.3)."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            for layer in (block.get_submodule("attention.out"), block.get_submodule("ffn.down")):
                nn.init.normal_(layer.weight, std=0.02 * (2 * len(self.blocks)) ** -0.5)  # type: ignore[arg-type]


class Block(nn.Module):
    """x + attention(norm(x)), then x + ffn(norm(x))."""

    def __init__(
        self, width: int, heads: int, kv_heads: int, hidden: int, norm: str, ffn: str, bias: bool, dropout: float
    ) -> None:
        super().__init__()
        self.norm1 = _norm(norm, width, bias)
        self.attention = Attention(width, heads, kv_heads, bias)
        self.norm2 = _norm(norm, width, bias)
        self.ffn = GELUFeed(width, hidden, bias) if ffn == "gelu" else SwiGLUFeed(width, hidden, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        causal: bool,
        turn: tuple[Tensor, Tensor] | None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), mask, causal, turn, cache, layer))
        return x + self.dropout(self.ffn(self.norm2(x)))


class Attention(nn.Module):
    """Self-attention of `heads` heads; queries, keys and values come from one linear layer, in this order."""

    def __init__(self, width: int, heads: int, kv_heads: int, bias: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, width // heads
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * self.size, bias=bias)
        self.attend = Attend()
        self.out = nn.Linear(width, width, bias=bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        causal: bool,
        turn: tuple[Tensor, Tensor] | None,
        cache: KVCache | None,
        layer: int,
    ) -> Tensor:
        b, t, _ = x.shape
        qkv = self.qkv(x).view(b, t, -1, self.size)  # (B, T, heads + 2 kv_heads, D)
        qk, v = qkv.split([self.heads + self.kv_heads, self.kv_heads], dim=2)
        if turn is not None:
            qk = rotate(qk, *turn)
        q, k = qk.transpose(1, 2).split([self.heads, self.kv_heads], dim=1)  # (B, H, T, D), (B, G, T, D)
        v = v.transpose(1, 2)  # (B, G, T, D)
        if cache is None:
            y = self.attend(q, k, v, mask, causal)  # (B, H, T, D)
        else:
            y = cache.look(layer, self.attend, q, k, v, mask, causal)
        return self.out(y.transpose(1, 2).reshape(b, t, -1).to(x.dtype))


class GELUFeed(nn.Module):
    """down(gelu(up(x))), gelu in the tanh form (Hendrycks & Gimpel 2016, section 2)."""

    def __init__(self, width: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class SwiGLUFeed(nn.Module):
    """down(silu(gate(x)) * up(x)); gate and up are one linear layer, in this order."""

    def __init__(self, width: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


def _norm(name: str, width: int, bias: bool) -> nn.Module:
    return RMSNorm(width) if name == "rms" else nn.LayerNorm(width, bias=bias)
