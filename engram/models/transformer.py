"""The Transformer of Vaswani et al. 2017: an encoder that reads the source, a decoder that writes the target.

Embeddings times sqrt(width) (section 3.4) plus sinusoids (3.5); post-norm blocks, LayerNorm(x + branch(x)) (3.1), ReLU
feed-forward layers (Eq. 2); dropout of embeddings and of what each branch gives (5.4). `norm_first` puts the norm before
the branch, with one more at the end of each stack (Xiong et al. 2020): post-norm needs a warm-up and trains badly when deep.
Weights start by Glorot's rule, embeddings as N(0, 1 / width).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.nn.attention import Attend, join_heads, lengths_mask, split_heads
from engram.nn.cache import KVCache
from engram.nn.cross_cache import CrossCache, State
from engram.nn.positions import sinusoidal


class Transformer(nn.Module):
    """Source (B, S) and target tokens (B, T) to logits (B, T, target_vocab) of the token after each target token.

    source_vocab, target_vocab: numbers of different tokens, the same when the table is shared
    layers, heads, width: blocks of each stack, heads of each attention, numbers per token
    hidden:     width inside the feed-forward layers
    shared:     one token table for source and target
    tied:       the output layer is the target's table
    norm_first: pre-norm in place of post-norm
    context:    most tokens of a text
    """

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        layers: int,
        heads: int,
        width: int,
        hidden: int,
        *,
        shared: bool = True,
        tied: bool = True,
        norm_first: bool = False,
        dropout: float = 0.1,
        context: int = 1024,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide width; got width {width}, heads {heads}")
        if shared and source_vocab != target_vocab:
            raise ValueError(f"a shared table needs one vocabulary, not {source_vocab} and {target_vocab}; or shared=False")
        self.width, self.heads, self.context = width, heads, context
        self.target = nn.Embedding(target_vocab, width)
        self.source = None if shared else nn.Embedding(source_vocab, width)
        self.register_buffer("table", sinusoidal(context, width), persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.ModuleList(EncoderBlock(width, heads, hidden, norm_first, dropout) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderBlock(width, heads, hidden, norm_first, dropout) for _ in range(layers))
        self.encoder_norm = nn.LayerNorm(width) if norm_first else nn.Identity()
        self.decoder_norm = nn.LayerNorm(width) if norm_first else nn.Identity()
        self.out = None if tied else nn.Linear(width, target_vocab, bias=False)
        self._initialise()

    def forward(self, source: Tensor, source_lengths: Tensor | None, target_in: Tensor) -> Tensor:
        """(B, S), (B,), (B, T) to (B, T, target_vocab). Without lengths every source fills its row."""
        memory = self.encode(source, source_lengths)
        return self.head(self.decode(memory, _mask(source, source_lengths), target_in))

    def encode(self, source: Tensor, source_lengths: Tensor | None = None) -> Tensor:
        """(B, S) to (B, S, width). ValueError above the context."""
        mask = _mask(source, source_lengths)
        x = self._embed(self.target if self.source is None else self.source, source)
        for block in self.encoder:
            x = block(x, mask)
        return self.encoder_norm(x)

    def decode(self, memory: Tensor, mask: Tensor | None, target_in: Tensor) -> Tensor:
        """Memory (B, S, width), its mask (B, 1, 1, S), target tokens (B, T) to (B, T, width), what `head` takes."""
        x = self._embed(self.target, target_in)
        for block in self.decoder:
            x = block(x, memory, mask)
        return self.decoder_norm(x)

    def head(self, hidden: Tensor) -> Tensor:
        """(..., width) to logits (..., target_vocab)."""
        return F.linear(hidden, self.target.weight if self.out is None else self.out.weight)

    def start(self, source: Tensor, source_lengths: Tensor | None = None) -> State:
        """Read the sources (B, S); the state from which `step` writes B targets."""
        memory = self.encode(source, source_lengths)
        pairs = [torch.stack(block.get_submodule("cross").keys_values(memory)) for block in self.decoder]  # type: ignore[operator]
        lengths = source.new_full((len(source),), source.shape[1]) if source_lengths is None else source_lengths
        cache = KVCache(
            len(self.decoder), len(source), self.heads, 32, self.width // self.heads, dtype=memory.dtype, device=memory.device
        )
        return State(cache, CrossCache(torch.stack(pairs).detach(), lengths_mask(lengths, source.shape[1])))

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """The last token (B,) of each target to logits (B, target_vocab) of the next, and the state after it."""
        if state.length == state.cache.capacity:
            state.cache.grow()
        places = torch.full((len(tokens), 1), state.length, device=tokens.device)
        state.cache.place(places)
        x = self._embed(self.target, tokens[:, None], state.length)
        for layer, block in enumerate(self.decoder):
            x = block.step(x, layer, state)  # type: ignore[operator]
        return self.head(self.decoder_norm(x))[:, 0], State(state.cache, state.cross, state.length + 1)

    def cost(self, source: int = 32, target: int = 32) -> int:
        """Multiply-adds for one pair of `source` and `target` tokens: weights once per token, then products with keys."""
        encoder = sum(m.weight.numel() for m in self.encoder.modules() if isinstance(m, nn.Linear))
        decoder = sum(m.weight.numel() for m in self.decoder.modules() if isinstance(m, nn.Linear)) + self.target.weight.numel()
        cross = len(self.decoder) * 2 * self.width**2  # keys and values come from the source's tokens
        pairs = source * source + target * (target + 1) // 2 + target * source
        return encoder * source + cross * source + (decoder - cross) * target + 2 * len(self.encoder) * self.width * pairs

    def _embed(self, table: nn.Embedding, tokens: Tensor, start: int = 0) -> Tensor:
        end = start + tokens.shape[1]
        if end > self.context:
            raise ValueError(f"a text of {end} tokens, and the model's context is {self.context}")
        return self.dropout(table(tokens) * self.width**0.5 + self.get_buffer("table")[start:end])

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=self.width**-0.5)


class EncoderBlock(nn.Module):
    """Self-attention, feed-forward."""

    def __init__(self, width: int, heads: int, hidden: int, norm_first: bool, dropout: float) -> None:
        super().__init__()
        self.attention, self.around1 = SelfAttention(width, heads), Around(width, norm_first, dropout)
        self.ffn, self.around2 = feed(width, hidden), Around(width, norm_first, dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.around1(x, lambda y: self.attention(y, mask, False))
        return self.around2(x, self.ffn)


class DecoderBlock(nn.Module):
    """Causal self-attention, attention to the memory, feed-forward."""

    def __init__(self, width: int, heads: int, hidden: int, norm_first: bool, dropout: float) -> None:
        super().__init__()
        self.attention, self.around1 = SelfAttention(width, heads), Around(width, norm_first, dropout)
        self.cross, self.around2 = CrossAttention(width, heads), Around(width, norm_first, dropout)
        self.ffn, self.around3 = feed(width, hidden), Around(width, norm_first, dropout)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        x = self.around1(x, lambda y: self.attention(y, None, True))
        x = self.around2(x, lambda y: self.cross(y, memory, mask))
        return self.around3(x, self.ffn)

    def step(self, x: Tensor, layer: int, state: State) -> Tensor:
        """One token of each row (B, 1, width) to the same shape."""
        x = self.around1(x, lambda y: self.attention(y, None, False, state.cache, layer))
        x = self.around2(x, lambda y: self.cross.step(y, layer, state.cross))
        return self.around3(x, self.ffn)


class Around(nn.Module):
    """norm(x + branch(x)), or x + branch(norm(x)) with `norm_first`; dropout of what the branch gives."""

    def __init__(self, width: int, norm_first: bool, dropout: float) -> None:
        super().__init__()
        self.norm, self.dropout, self.norm_first = nn.LayerNorm(width), nn.Dropout(dropout), norm_first

    def forward(self, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        if self.norm_first:
            return x + self.dropout(branch(self.norm(x)))
        return self.norm(x + self.dropout(branch(x)))


class SelfAttention(nn.Module):
    """Queries, keys and values of the same tokens from one linear layer, in this order."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.attend, self.out = nn.Linear(width, 3 * width), Attend(), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None, causal: bool, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        y = self.attend(q, k, v, mask, causal) if cache is None else cache.look(layer, self.attend, q, k, v, mask, causal)
        return self.out(join_heads(y).to(x.dtype))


class CrossAttention(nn.Module):
    """Queries of the target's tokens; keys and values of the source's from one linear layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.attend, self.out = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            Attend(),
            nn.Linear(width, width),
        )

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, width) to keys and values (B, H, S, D)."""
        k, v = self.kv(memory).chunk(2, dim=-1)
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        return self.out(join_heads(self.attend(split_heads(self.q(x), self.heads), *self.keys_values(memory), mask)))

    def step(self, x: Tensor, layer: int, cross: CrossCache) -> Tensor:
        """One token of each row (B, 1, width) to the same shape."""
        return self.out(join_heads(cross.look(layer, self.attend, split_heads(self.q(x), self.heads))).to(x.dtype))


def feed(width: int, hidden: int) -> nn.Sequential:
    """Eq. 2: linear, ReLU, linear."""
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))


def _mask(source: Tensor, lengths: Tensor | None) -> Tensor | None:
    return None if lengths is None else lengths_mask(lengths, source.shape[1])
