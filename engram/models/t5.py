"""T5: an encoder-decoder Transformer whose positions are a learned bias for each distance between two tokens.

Paper: Raffel et al. 2020, section 2.1: pre-norm with RMSNorm, no biases, products not divided by sqrt(D), one bias table
per stack shared by its layers. `gated` and `tied=False` give version 1.1 (Shazeer 2020, Eq. 6: GELU-gated feed-forward).
Weights start as in the published code (mesh tensorflow): N(0, 1 / inputs), queries smaller by sqrt(head_width) in place
of the division.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.nn.attention import Attend, join_heads, lengths_mask, split_heads
from engram.nn.cache import KVCache
from engram.nn.cross_cache import CrossCache, State
from engram.nn.distance import DistanceBias
from engram.nn.rms import RMSNorm

EPS = 1e-6


class T5(nn.Module):
    """Source (B, S) and target tokens (B, T) to logits (B, T, vocab) of the token after each target token.

    vocab:      number of different tokens, one table for both sides
    layers, heads, width: blocks of each stack, heads of each attention, numbers per token
    head_width: numbers per head; heads * head_width need not be the width
    hidden:     width inside the feed-forward layers
    buckets, furthest: how many biases a head has per stack, and the distance from which on they do not change
    gated:      gelu(a) * b in place of relu inside the feed-forward layers
    tied:       the output layer is the token table, divided by sqrt(width)
    """

    def __init__(
        self,
        vocab: int,
        layers: int,
        heads: int,
        width: int,
        head_width: int,
        hidden: int,
        *,
        buckets: int = 32,
        furthest: int = 128,
        gated: bool = False,
        tied: bool = True,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if buckets < 4 or buckets % 4 or furthest <= buckets // 2:
            raise ValueError(f"buckets must be a multiple of 4, and furthest above their half; got {buckets} and {furthest}")
        self.heads, self.head_width, self.width = heads, head_width, width
        self.tokens = nn.Embedding(vocab, width)
        self.dropout = nn.Dropout(dropout)
        self.encoder_bias = DistanceBias(buckets, heads, furthest, both=True)
        self.decoder_bias = DistanceBias(buckets, heads, furthest, both=False)
        sizes = (width, heads, head_width, hidden, gated, dropout)
        self.encoder = nn.ModuleList(EncoderBlock(*sizes) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderBlock(*sizes) for _ in range(layers))
        self.encoder_norm = RMSNorm(width, EPS)
        self.decoder_norm = RMSNorm(width, EPS)
        self.out = None if tied else nn.Linear(width, vocab, bias=False)
        self._initialise()

    def forward(self, source: Tensor, source_lengths: Tensor | None, target_in: Tensor) -> Tensor:
        """(B, S), (B,), (B, T) to (B, T, vocab). Without lengths every source fills its row."""
        memory = self.encode(source, source_lengths)
        return self.head(self.decode(memory, _mask(source, source_lengths), target_in))

    def encode(self, source: Tensor, source_lengths: Tensor | None = None) -> Tensor:
        """(B, S) to (B, S, width)."""
        place = torch.arange(source.shape[1], device=source.device)
        bias = self.encoder_bias(place, place)  # (1, H, S, S)
        mask = _mask(source, source_lengths)
        if mask is not None:
            bias = bias.masked_fill(~mask, -torch.inf)  # (B, H, S, S)
        x = self.dropout(self.tokens(source))
        for block in self.encoder:
            x = block(x, bias)
        return self.dropout(self.encoder_norm(x))

    def decode(self, memory: Tensor, mask: Tensor | None, target_in: Tensor) -> Tensor:
        """Memory (B, S, width), its mask (B, 1, 1, S), target tokens (B, T) to (B, T, width), what `head` takes."""
        place = torch.arange(target_in.shape[1], device=target_in.device)
        bias = self.decoder_bias(place, place)
        bias = bias.masked_fill(place > place[:, None], -torch.inf)  # (1, H, T, T)
        x = self.dropout(self.tokens(target_in))
        for block in self.decoder:
            x = block(x, bias, memory, mask)
        return self.dropout(self.decoder_norm(x))

    def head(self, hidden: Tensor) -> Tensor:
        """(..., width) to logits (..., vocab)."""
        if self.out is not None:
            return self.out(hidden)
        return F.linear(hidden * self.width**-0.5, self.tokens.weight)

    def start(self, source: Tensor, source_lengths: Tensor | None = None) -> State:
        """Read the sources (B, S); the state from which `step` writes B targets."""
        memory = self.encode(source, source_lengths)
        pairs = [torch.stack(block.get_submodule("cross").keys_values(memory)) for block in self.decoder]  # type: ignore[operator]
        lengths = source.new_full((len(source),), source.shape[1]) if source_lengths is None else source_lengths
        cache = KVCache(
            len(self.decoder), len(source), self.heads, 32, self.head_width, dtype=memory.dtype, device=memory.device
        )
        return State(cache, CrossCache(torch.stack(pairs).detach(), lengths_mask(lengths, source.shape[1])))

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """The last token (B,) of each target to logits (B, vocab) of the next, and the state after it."""
        if state.length == state.cache.capacity:
            state.cache.grow()
        place = torch.arange(state.length + 1, device=tokens.device)
        bias = self.decoder_bias(place[-1:], place)  # (1, H, 1, S)
        state.cache.place(place[-1:].expand(len(tokens), 1))
        x = self.dropout(self.tokens(tokens[:, None]))
        for layer, block in enumerate(self.decoder):
            x = block.step(x, bias, layer, state)  # type: ignore[operator]
        return self.head(self.dropout(self.decoder_norm(x)))[:, 0], State(state.cache, state.cross, state.length + 1)

    def cost(self, source: int = 32, target: int = 32) -> int:
        """Multiply-adds for one pair of `source` and `target` tokens: weights once per token, then products with keys."""
        inner = self.heads * self.head_width
        encoder = sum(m.weight.numel() for m in self.encoder.modules() if isinstance(m, nn.Linear))
        decoder = sum(m.weight.numel() for m in self.decoder.modules() if isinstance(m, nn.Linear)) + self.tokens.weight.numel()
        cross = len(self.decoder) * 2 * self.width * inner  # keys and values come from the source's tokens
        pairs = source * source + target * (target + 1) // 2 + target * source
        return encoder * source + cross * source + (decoder - cross) * target + 2 * len(self.encoder) * inner * pairs

    def _initialise(self) -> None:
        nn.init.normal_(self.tokens.weight, std=1.0)
        for table in (self.encoder_bias, self.decoder_bias):
            nn.init.normal_(table.weight, std=self.width**-0.5)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        for module in self.modules():
            if isinstance(module, SelfAttention | CrossAttention):
                queries = (module.qkv if isinstance(module, SelfAttention) else module.q).weight
                with torch.no_grad():
                    queries[: self.heads * self.head_width] *= self.head_width**-0.5


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + feed(norm(x))."""

    def __init__(self, width: int, heads: int, head_width: int, hidden: int, gated: bool, dropout: float) -> None:
        super().__init__()
        self.norm1, self.attention = RMSNorm(width, EPS), SelfAttention(width, heads, head_width, dropout)
        self.norm2, self.feed = RMSNorm(width, EPS), Feed(width, hidden, gated, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), bias))
        return x + self.dropout(self.feed(self.norm2(x)))


class DecoderBlock(nn.Module):
    """As the encoder's, with attention to the memory in between."""

    def __init__(self, width: int, heads: int, head_width: int, hidden: int, gated: bool, dropout: float) -> None:
        super().__init__()
        self.norm1, self.attention = RMSNorm(width, EPS), SelfAttention(width, heads, head_width, dropout)
        self.norm2, self.cross = RMSNorm(width, EPS), CrossAttention(width, heads, head_width, dropout)
        self.norm3, self.feed = RMSNorm(width, EPS), Feed(width, hidden, gated, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), bias))
        x = x + self.dropout(self.cross(self.norm2(x), memory, mask))
        return x + self.dropout(self.feed(self.norm3(x)))

    def step(self, x: Tensor, bias: Tensor, layer: int, state: State) -> Tensor:
        """One token of each row (B, 1, width) to the same shape."""
        x = x + self.dropout(self.attention(self.norm1(x), bias, state.cache, layer))
        x = x + self.dropout(self.cross.step(self.norm2(x), layer, state.cross))
        return x + self.dropout(self.feed(self.norm3(x)))


class SelfAttention(nn.Module):
    """Queries, keys and values of the same tokens from one linear layer, in this order; `bias` is (B or 1, H, T, S)."""

    def __init__(self, width: int, heads: int, head_width: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.attend = Attend(dropout, scale=1.0)
        self.out = nn.Linear(heads * head_width, width, bias=False)

    def forward(self, x: Tensor, bias: Tensor, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        bias = bias.to(q.dtype)
        y = self.attend(q, k, v, bias) if cache is None else cache.look(layer, self.attend, q, k, v, bias)
        return self.out(join_heads(y).to(x.dtype))


class CrossAttention(nn.Module):
    """Queries of the target's tokens; keys and values of the source's from one linear layer. No bias for distance."""

    def __init__(self, width: int, heads: int, head_width: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, heads * head_width, bias=False)
        self.kv = nn.Linear(width, 2 * heads * head_width, bias=False)
        self.attend = Attend(dropout, scale=1.0)
        self.out = nn.Linear(heads * head_width, width, bias=False)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, width) to keys and values (B, H, S, D)."""
        k, v = self.kv(memory).chunk(2, dim=-1)
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        return self.out(join_heads(self.attend(split_heads(self.q(x), self.heads), *self.keys_values(memory), mask)))

    def step(self, x: Tensor, layer: int, cross: CrossCache) -> Tensor:
        """One token of each row (B, 1, width) to the same shape."""
        return self.out(join_heads(cross.look(layer, self.attend, split_heads(self.q(x), self.heads))).to(x.dtype))


class Feed(nn.Module):
    """down(relu(up(x))), or down(gelu(gate(x)) * up(x)) where gate and up are one linear layer, in this order."""

    def __init__(self, width: int, hidden: int, gated: bool, dropout: float) -> None:
        super().__init__()
        self.gated = gated
        self.up = nn.Linear(width, 2 * hidden if gated else hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        if not self.gated:
            return self.down(self.dropout(self.up(x).relu()))
        gate, up = self.up(x).chunk(2, dim=-1)
        return self.down(self.dropout(F.gelu(gate, approximate="tanh") * up))


def _mask(source: Tensor, lengths: Tensor | None) -> Tensor | None:
    return None if lengths is None else lengths_mask(lengths, source.shape[1])
