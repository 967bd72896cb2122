"""`Columns`: the numeric and categorical columns of a table as one vector per row.

Paper: Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep Learning". A number x with bin edges
b_0 < ... < b_T becomes T numbers e_t, its piecewise linear encoding (Eq. 1):

    e_t = (x - b_{t-1}) / (b_t - b_{t-1}), held at 0 from below unless t = 1, held at 1 from above unless t = T

so a network reads off at once in which quantile x lies. Differs: the standardised value stands beside its encoding, and
bins of unequal number are padded, so that no Python loop over features runs. Categories are embedded with
min(16, ceil(1.6 card^0.56)) numbers each (the rule of fastai, here with a lower limit on width).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Columns(nn.Module):
    """Numeric (B, N) float and categorical (B, C) int64 to (B, out_features). N or C may be zero, not both.

    edges:          per numeric column its strictly increasing bin edges (quantiles of the training rows, in the
                    standardised unit of the input); fewer than two edges give no bins, only the value
    cardinalities:  per categorical column its number of indices, counting index 0, which means unknown or missing
    embed:          width of a linear + ReLU embedding of each numeric column with weights of its own; None for none
    width:          width of every category embedding; None for the rule above

    Raises ValueError for edges that do not increase, cardinalities below 1, or no column at all.
    """

    left: Tensor  # (N, T) lower edge of each bin
    per_width: Tensor  # (N, T) 1 / width of each bin, 0 where padded
    low: Tensor  # (N, T) where each bin is held from below
    high: Tensor  # (N, T) and from above
    used: Tensor  # indices into N * (1 + T) that are not padding
    sizes: Tensor  # (C,) cardinalities

    def __init__(
        self,
        edges: Sequence[Sequence[float]],
        cardinalities: Sequence[int],
        embed: int | None = None,
        width: int | None = None,
    ) -> None:
        super().__init__()
        if not edges and not cardinalities:
            raise ValueError("Columns needs at least one numeric or categorical column")
        self.embed = embed if edges else None
        self._store_edges(edges)
        numbers, bins = self.left.shape
        self.out_features = len(self.used)
        if self.embed is not None:
            # Uniform within 1 / sqrt(inputs that are in use), torch's own rule for a linear layer.
            bound = torch.tensor([1 / math.sqrt(1 + max(len(column) - 1, 0)) for column in edges]).view(-1, 1, 1)
            self.weight = nn.Parameter((torch.rand(numbers, 1 + bins, self.embed) * 2 - 1) * bound)
            self.bias = nn.Parameter((torch.rand(numbers, self.embed) * 2 - 1) * bound[:, 0])
            self.out_features = numbers * self.embed
        self._make_tables(cardinalities, width)

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        """(B, N) float and (B, C) int64 to (B, out_features). A category outside its range counts as unknown."""
        parts: list[Tensor] = []
        if len(self.left):
            parts.append(self._embed_numbers(numeric))
        if len(self.sizes):
            known = torch.where((categorical >= 0) & (categorical < self.sizes), categorical, 0)
            parts += [table(known) for table in self.tables]
        return torch.cat(parts, dim=1)

    def cost(self) -> int:
        """Multiply-adds per row of the numeric embedding; looking categories up costs none."""
        return 0 if self.embed is None else self.weight.numel()

    def encode(self, numeric: Tensor) -> Tensor:
        """(B, N) to (B, N, T), Eq. 1 of the paper; zero in the padding."""
        inside = (numeric[:, :, None] - self.left) * self.per_width
        return inside.clamp(self.low, self.high)

    def _embed_numbers(self, numeric: Tensor) -> Tensor:
        x = torch.cat([numeric[:, :, None], self.encode(numeric)], dim=2)  # (B, N, 1 + T)
        if self.embed is None:
            return x.flatten(1)[:, self.used]
        return torch.relu(torch.einsum("bnt,ntd->bnd", x, self.weight) + self.bias).flatten(1)

    def _store_edges(self, edges: Sequence[Sequence[float]]) -> None:
        numbers, bins = len(edges), max([len(column) - 1 for column in edges] + [0])
        unlimited = torch.finfo(torch.float32).max  # finite, so that checks for infinite weights stay quiet
        left, per_width, low = (torch.zeros(numbers, bins) for _ in range(3))
        high, used = torch.ones(numbers, bins), torch.zeros(numbers, 1 + bins, dtype=torch.bool)
        for row, column in enumerate(edges):
            edge = torch.tensor(column, dtype=torch.float64)
            count = max(len(column) - 1, 0)
            if not bool((edge.diff() > 0).all()):
                raise ValueError(f"edges of numeric column {row} must be strictly increasing, got {column}")
            used[row, : 1 + count] = True
            if count:
                left[row, :count] = edge[:-1]
                per_width[row, :count] = 1 / edge.diff()
                low[row, 0], high[row, count - 1] = -unlimited, unlimited
        for name, value in dict(left=left, per_width=per_width, low=low, high=high).items():
            self.register_buffer(name, value)
        self.register_buffer("used", used.flatten().nonzero()[:, 0])

    def _make_tables(self, cardinalities: Sequence[int], width: int | None) -> None:
        if any(size < 1 for size in cardinalities):
            raise ValueError(f"cardinalities count the unknown index 0, so they are at least 1; got {cardinalities}")
        widths = [category_width(size) if width is None else width for size in cardinalities]
        self.register_buffer("sizes", torch.tensor(cardinalities, dtype=torch.int64))
        self.tables = nn.ModuleList()
        for one in sorted(set(widths)):
            columns = [column for column, other in enumerate(widths) if other == one]
            self.tables.append(_Table(columns, [cardinalities[column] for column in columns], one))
        self.out_features += sum(widths)


class _Table(nn.Module):
    """The embeddings of all columns of one width, stacked, so that they are read at once and not column by column."""

    columns: Tensor  # (G,) which columns
    offsets: Tensor  # (G,) where the rows of each begin

    def __init__(self, columns: list[int], cardinalities: Sequence[int], width: int) -> None:
        super().__init__()
        ends = torch.tensor(cardinalities).cumsum(0)
        self.register_buffer("columns", torch.tensor(columns))
        self.register_buffer("offsets", ends - torch.tensor(cardinalities))
        self.embedding = nn.Embedding(sum(cardinalities), width)
        # Unit variance shared among the numbers of one category, so a category weighs about as much as a number.
        nn.init.normal_(self.embedding.weight, std=width**-0.5)

    def forward(self, categorical: Tensor) -> Tensor:
        """(B, C) int64 to (B, G * width)."""
        return self.embedding(categorical[:, self.columns] + self.offsets).flatten(1)


def category_width(cardinality: int) -> int:
    """Numbers that a category of `cardinality` values is embedded in: min(16, ceil(1.6 cardinality^0.56))."""
    return min(16, math.ceil(1.6 * cardinality**0.56))
