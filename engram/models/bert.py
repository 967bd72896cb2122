"""BERT: a Transformer encoder that sees both sides of every token, and small heads for its uses.

Paper: Devlin et al. 2019, section 3 and appendix A; the blocks are post-norm after Vaswani et al. 2017, with GELU in its
exact form, learned positions and segments, and norms with eps 1e-12 as published. Weights start as N(0, 0.02).
Differs: the pooler belongs to the head that needs it, not to the encoder.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.nn.attention import Attend, lengths_mask

EPS = 1e-12


class BERT(nn.Module):
    """Tokens (B, T) to features (B, T, width).

    vocab, context: numbers of different tokens and of positions
    layers, heads, width: blocks, heads of each, numbers per token; heads divides width
    hidden:   width inside the feed-forward layers; 0 = 4 width
    segments: how many kinds of text a row may hold, as a question and its passage
    dropout:  share set to zero in training: of embeddings, attention weights and what each branch adds
    """

    def __init__(
        self,
        vocab: int,
        context: int,
        layers: int,
        heads: int,
        width: int,
        hidden: int = 0,
        segments: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide width; got width {width}, heads {heads}")
        hidden = hidden or 4 * width
        self.context, self.width = context, width
        self.tokens = nn.Embedding(vocab, width)
        self.places = nn.Embedding(context, width)
        self.segments = nn.Embedding(segments, width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, hidden, dropout) for _ in range(layers))
        self.apply(_initialise)

    def forward(self, tokens: Tensor, lengths: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """Tokens (B, T), lengths (B,), segment numbers (B, T) to (B, T, width). ValueError above the context.

        Without lengths every row is full; without segments all is segment 0. What stands at padding means nothing.
        """
        length = tokens.shape[1]
        if length > self.context:
            raise ValueError(f"{length} tokens in a row, and the model's context is {self.context}")
        kinds = self.segments.weight[0] if segments is None else self.segments(segments)
        x = self.dropout(self.norm(self.tokens(tokens) + self.places.weight[:length] + kinds))
        mask = None if lengths is None else lengths_mask(lengths, length)
        for block in self.blocks:
            x = block(x, mask)
        return x

    def cost(self) -> int:
        """Multiply-adds per token of a full context, without a head: each weight once, then products with all keys."""
        weights = sum(m.weight.numel() for m in self.blocks.modules() if isinstance(m, nn.Linear))
        return weights + 2 * len(self.blocks) * self.width * self.context


class Block(nn.Module):
    """norm(x + attention(x)), then norm(x + ffn(x))."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)  # queries, keys, values, in this order
        self.attend = Attend(dropout)
        self.out = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, width), bool mask (B, 1, 1, T) or None, to (B, T, width)."""
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        y = self.attend(q, k, v, mask).transpose(1, 2).flatten(2)  # (B, T, width)
        x = self.norm1(x + self.dropout(self.out(y)))
        return self.norm2(x + self.dropout(self.down(F.gelu(self.up(x)))))


class MaskedHead(nn.Module):
    """Features to logits of the hidden tokens: dense, GELU, norm, then the encoder's own token table and a bias."""

    def __init__(self, width: int, vocab: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.bias = nn.Parameter(torch.zeros(vocab))
        self.apply(_initialise)

    def forward(self, features: Tensor, table: Tensor) -> Tensor:
        """(..., width) and the table (vocab, width), `bert.tokens.weight`, to (..., vocab). Give it masked places only."""
        return F.linear(self.norm(F.gelu(self.dense(features))), table, self.bias)


class PoolHead(nn.Module):
    """Features of a row to logits of its class: tanh(dense(first token)), dropout, linear."""

    def __init__(self, width: int, outputs: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, outputs)
        self.apply(_initialise)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, width) to (B, outputs)."""
        return self.out(self.dropout(torch.tanh(self.dense(features[:, 0]))))


class TokenHead(nn.Module):
    """Features to logits of every token: tags, or the two numbers from which an answer's first and last word are chosen."""

    def __init__(self, width: int, outputs: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, outputs)
        self.apply(_initialise)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, width) to (B, T, outputs)."""
        return self.out(self.dropout(features))


class MaskedModel(nn.Module):
    """An encoder and the head for hidden tokens."""

    def __init__(self, encoder: BERT, vocab: int) -> None:
        super().__init__()
        self.encoder, self.masked = encoder, MaskedHead(encoder.width, vocab)

    def forward(self, tokens: Tensor, lengths: Tensor | None, places: Tensor) -> Tensor:
        """Tokens (B, T), lengths (B,) or None, places (B, T) bool to logits (N, vocab) of the N places set, row by row."""
        return self.masked(self.encoder(tokens, lengths)[places], self.encoder.tokens.weight)


class TextModel(nn.Module):
    """An encoder and the head for classes of whole rows; each row is read behind the token `start`."""

    def __init__(self, encoder: BERT, classes: int, start: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder, self.start = encoder, start
        self.pooled = PoolHead(encoder.width, classes, dropout)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Tokens (B, T) with T below the context, lengths (B,), to (B, classes)."""
        return self.pooled(self.encoder(F.pad(tokens, (1, 0), value=self.start), lengths + 1))


class WordModel(nn.Module):
    """An encoder and the head for tags of words: that of a word is read at its first piece (section 5.3)."""

    def __init__(self, encoder: BERT, tags: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder, self.tagged = encoder, TokenHead(encoder.width, tags, dropout)

    def forward(self, pieces: Tensor, lengths: Tensor, firsts: Tensor) -> Tensor:
        """Pieces (B, P), how many of each row (B,), and the place of each word's first piece (B, T), to (B, T, tags)."""
        features = self.encoder(pieces, lengths)
        return self.tagged(features.gather(1, firsts[:, :, None].expand(-1, -1, features.shape[2])))


class SpanModel(nn.Module):
    """An encoder and two numbers per token: where an answer begins, and where it ends (section 4.2)."""

    def __init__(self, encoder: BERT, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder, self.spans = encoder, TokenHead(encoder.width, 2, dropout)

    def forward(self, tokens: Tensor, lengths: Tensor, segments: Tensor) -> Tensor:
        """Tokens and segments (B, T), lengths (B,), to (B, T, 2); -inf but at token 0 and in the text (odd segments)."""
        logits = self.spans(self.encoder(tokens, lengths, segments))
        allowed = (segments % 2 == 1) & lengths_mask(lengths, tokens.shape[1])[:, 0, 0]
        allowed = torch.cat([torch.ones_like(allowed[:, :1]), allowed[:, 1:]], 1)
        return logits.masked_fill(~allowed[:, :, None], -torch.inf)


class EmbedModel(nn.Module):
    """An encoder whose features are averaged over the tokens of a row: one unit vector per text."""

    def __init__(self, encoder: BERT) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Tokens (B, T), lengths (B,), to (B, width) of length 1."""
        real = lengths_mask(lengths, tokens.shape[1])[:, 0, 0, :, None]
        return F.normalize((self.encoder(tokens, lengths) * real).sum(1) / lengths[:, None], dim=1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
