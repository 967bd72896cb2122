"""Recurrent networks for language: RecurrentLM (next token), RecurrentEncoder (one class per text), RecurrentTagger.

Papers: Mikolov et al. 2010 and Zaremba et al. 2014 (language model; dropout outside the recurrence), Press & Wolf 2017 (the
output layer is the token table), Huang et al. 2015 (bidirectional tagger), Ma & Hovy 2016, section 2.1 (a convolution over
the characters of each word). Differs: when table and state differ in width, a linear layer without bias joins them.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.nn.gram_votes import GramVotes
from engram.nn.recurrent import Recurrent, State


class RecurrentCache:
    """The hidden state of each row: what a KVCache is to a Transformer, of one size however long the text.

    lengths:   (rows,) tokens read so far
    capacity:  as the caller asked for; nothing here grows with it
    rewinds:   False: the past is not kept, so a row goes on at its length and nowhere before it
    """

    rewinds = False

    def __init__(self, state: State, lengths: Tensor, capacity: int = 0) -> None:
        self.state, self.lengths, self.capacity = state, lengths, capacity

    @property
    def rows(self) -> int:
        return len(self.lengths)

    def reorder(self, index: Tensor) -> None:
        """Row i becomes what row index[i] was; rows may be repeated or left out."""
        s = self.state
        self.state = (s[0][:, index], s[1][:, index]) if isinstance(s, tuple) else s[:, index]
        self.lengths = self.lengths[index]

    def put(self, rows: Tensor, other: RecurrentCache) -> None:
        """Replace some rows by all rows of another cache, in this order."""
        s, o = self.state, other.state
        if isinstance(s, tuple) and isinstance(o, tuple):
            self.state = (s[0].index_copy(1, rows, o[0]), s[1].index_copy(1, rows, o[1]))
        elif isinstance(s, Tensor) and isinstance(o, Tensor):
            self.state = s.index_copy(1, rows, o)
        self.lengths = self.lengths.index_copy(0, rows, other.lengths)


class RecurrentLM(nn.Module):
    """Tokens (B, T) to logits (B, T, vocab) of the token after each.

    vocab:    number of different tokens
    width:    of the state
    cell:     "rnn", "lstm" or "gru"
    embed:    width of the token table; 0 = width
    tied:     the output layer is the token table
    dropout:  share set to zero in training: of embeddings, between layers and of the last outputs
    """

    def __init__(
        self,
        vocab: int,
        width: int,
        layers: int,
        cell: str = "lstm",
        embed: int = 0,
        tied: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        embed = embed or width
        self.embed = _table(vocab, embed)
        self.dropout = nn.Dropout(dropout)
        self.recurrent = Recurrent(cell, embed, width, layers, dropout=dropout)
        self.bridge = nn.Linear(width, embed, bias=False) if tied and embed != width else nn.Identity()
        self.out = None if tied else nn.Linear(width, vocab, bias=False)
        self.bias = nn.Parameter(torch.zeros(vocab))

    def forward(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """(B, T) to (B, T, vocab). With document numbers (B, T) the state restarts at zero where they change."""
        return self.head(self.hidden(tokens, documents))

    def hidden(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """(B, T) to (B, T, features): what `head` turns into logits."""
        x = self.dropout(self.embed(tokens))
        y = self.recurrent(x)[0] if documents is None else self.recurrent.separate(x, documents)
        return self.bridge(self.dropout(y))

    def head(self, hidden: Tensor) -> Tensor:
        """(..., features) to logits (..., vocab)."""
        return F.linear(hidden, self.embed.weight if self.out is None else self.out.weight, self.bias)

    def new_cache(self, rows: int, capacity: int = 0, dtype: torch.dtype | None = None) -> RecurrentCache:
        """A state of zeros for `rows` texts, in the dtype of the weights.

        `capacity` and `dtype` are there for callers that drive a Transformer too: the state has one size and one dtype.
        """
        weight = self.embed.weight
        state = self.recurrent.initial(rows, weight)
        return RecurrentCache(state, torch.zeros(rows, dtype=torch.int64, device=weight.device), capacity)

    def step(self, tokens: Tensor, positions: Tensor, cache: RecurrentCache) -> Tensor:
        """The next tokens (B, T) at `positions` (B, T), to logits (B, T, vocab).

        A prompt is one step at positions from 0; prompts of different lengths are padded at the right, where `positions`
        is -1, and what stands there changes nothing. ValueError when a row would go on anywhere but at its length.
        """
        return self.head(self.read(tokens, positions, cache))

    def read(self, tokens: Tensor, positions: Tensor, cache: RecurrentCache) -> Tensor:
        """`step` without the head: (B, T) to (B, T, features). A long prompt needs logits of its last token only."""
        lengths = (positions >= 0).sum(1)
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        expected = torch.where(steps < lengths[:, None], cache.lengths[:, None] + steps, -1)
        if not torch.equal(positions.to(expected.dtype), expected):
            raise ValueError("a recurrent state goes on at its length only: give the positions that follow, -1 for padding")
        y, cache.state = self.recurrent(self.embed(tokens), lengths, cache.state)
        cache.lengths = cache.lengths + lengths
        return self.bridge(y)

    def cost(self) -> int:
        """Multiply-adds per token: each weight once, the token table as the output layer."""
        bridge = self.bridge.weight.numel() if isinstance(self.bridge, nn.Linear) else 0
        return _weights(self.recurrent) + bridge + (self.embed.weight if self.out is None else self.out.weight).numel()


class RecurrentEncoder(nn.Module):
    """Texts (B, T) of `lengths` (B,) to logits (B, classes).

    embed:  width of the token table; 0 = width
    pool:   "max" or "mean" of the outputs over the words, or "last": the last output of each direction
    grams:  numbers that n-grams are hashed to (see engram.nn.gram_votes), whose votes are added; 0 without
    """

    def __init__(
        self,
        vocab: int,
        width: int,
        layers: int = 1,
        cell: str = "lstm",
        bidirectional: bool = True,
        embed: int = 0,
        dropout: float = 0.0,
        classes: int = 2,
        pool: Literal["max", "mean", "last"] = "max",
        grams: int = 0,
    ) -> None:
        super().__init__()
        if pool not in ("max", "mean", "last"):
            raise ValueError(f"unknown pool {pool!r}: choose from max, mean, last")
        self.pool = pool
        self.embed = _table(vocab, embed or width)
        self.dropout = nn.Dropout(dropout)
        self.recurrent = Recurrent(cell, embed or width, width, layers, bidirectional, dropout)
        self.grams = GramVotes(grams, classes) if grams else None
        self.head = nn.Linear(width * self.recurrent.directions, classes)

    def forward(self, tokens: Tensor, lengths: Tensor, grams: Tensor | None = None) -> Tensor:
        """(B, T), (B,), n-grams (B, G) to (B, classes). What is beyond the lengths changes nothing; an empty text is zeros."""
        outputs, state = self.recurrent(self.dropout(self.embed(tokens)), lengths)
        logits = self.head(self.dropout(self._pooled(outputs, state, lengths)))
        return logits if self.grams is None else logits + self.grams(grams)

    def cost(self) -> int:
        """Multiply-adds per token, the classifier left out: it acts once per text."""
        return _weights(self.recurrent)

    def _pooled(self, outputs: Tensor, state: State, lengths: Tensor) -> Tensor:
        if self.pool == "last":
            h = state[0] if isinstance(state, tuple) else state
            return h[-self.recurrent.directions :].transpose(0, 1).flatten(1)  # (B, width * directions)
        lengths = lengths.clamp(min=1)[:, None]
        if self.pool == "mean":
            return outputs.sum(1) / lengths  # outputs are 0 beyond the lengths
        padded = torch.arange(outputs.shape[1], device=outputs.device) >= lengths
        return outputs.masked_fill(padded[..., None], -torch.inf).amax(1)


class RecurrentTagger(nn.Module):
    """Words (B, T) of `lengths` (B,), and the characters (B, T, C) of each, to scores (B, T, tags).

    embed:       width of the word table; 0 = width
    characters:  size of the character alphabet, number 0 of which pads; 0 = words only
    spelling:    channels of the convolution over a word's characters
    """

    def __init__(
        self,
        vocab: int,
        width: int,
        layers: int = 1,
        cell: str = "lstm",
        bidirectional: bool = True,
        embed: int = 0,
        dropout: float = 0.0,
        tags: int = 2,
        characters: int = 0,
        spelling: int = 30,
    ) -> None:
        super().__init__()
        self.embed = _table(vocab, embed or width)
        self.spell = Spelling(characters, spelling, dropout) if characters else None
        self.dropout = nn.Dropout(dropout)
        inputs = (embed or width) + (spelling if characters else 0)
        self.recurrent = Recurrent(cell, inputs, width, layers, bidirectional, dropout)
        self.head = nn.Linear(width * self.recurrent.directions, tags)

    def forward(self, tokens: Tensor, lengths: Tensor, characters: Tensor | None = None) -> Tensor:
        """(B, T), (B,) and (B, T, C) to (B, T, tags); what stands beyond the lengths changes nothing."""
        x = self.embed(tokens)
        if self.spell is not None:
            if characters is None:
                raise ValueError("this tagger reads the characters of each word too: give characters (B, T, C)")
            x = torch.cat([x, self.spell(characters)], -1)
        return self.head(self.dropout(self.recurrent(self.dropout(x), lengths)[0]))

    def cost(self) -> int:
        """Multiply-adds per word, the convolution over its characters left out."""
        return _weights(self.recurrent) + self.head.weight.numel()


class Spelling(nn.Module):
    """Characters (B, T, C), 0 for padding, to (B, T, channels): a convolution over three characters, then the maximum."""

    def __init__(self, characters: int, channels: int, dropout: float, embed: int = 30) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, embed, padding_idx=0)
        nn.init.uniform_(self.embed.weight[1:], -((3 / embed) ** 0.5), (3 / embed) ** 0.5)  # Ma & Hovy 2016, section 3.2
        self.dropout = nn.Dropout(dropout)
        self.conv = nn.Conv1d(embed, channels, 3, padding=1)

    def forward(self, characters: Tensor) -> Tensor:
        flat = characters.flatten(0, 1)  # (B * T, C)
        y = self.conv(self.dropout(self.embed(flat)).transpose(1, 2))  # (B * T, channels, C)
        y = y.masked_fill((flat == 0)[:, None], -torch.inf).amax(2)
        return y.masked_fill(y == -torch.inf, 0).view(*characters.shape[:2], -1)


def _table(tokens: int, width: int) -> nn.Embedding:
    table = nn.Embedding(tokens, width)
    nn.init.uniform_(table.weight, -0.1, 0.1)
    return table


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.dim() > 1)
