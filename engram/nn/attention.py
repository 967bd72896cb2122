"""Scaled dot-product attention in one place, so that it can be looked into, and the masks that go with it.

Paper: Vaswani et al. 2017, Eq. 1; grouped key-value heads, Ainslie et al. 2023. Every attention of every model calls an
`Attend`, which runs torch's fused kernel. Whoever wants to see weights registers a forward hook on it: the hook gets the
arguments (q, k, v, mask, causal), from which `attention_weights` computes them for that one input.

In training in bfloat16 on a processor `Attend` writes the products out: there the fused kernel's backward pass is slow. Forward
and backward on one thread (AMD EPYC, torch 2.13), B x H x T x D: 128 x 4 x 16 x 32 takes 33 ms fused and 5 written out,
16 x 6 x 256 x 64 takes 101 and 68; in float32 the fused kernel is the faster one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WRITTEN = 2**24  # most weights (B, H, T, S) that are written out: 32 MB in bfloat16


class Attend(nn.Module):
    """softmax(q k^T * scale + mask) v, without parameters.

    dropout:  share of weights set to zero in training; above 0 torch's CPU leaves its fused kernel
    scale:    of the products; None = 1 / sqrt(D)
    """

    def __init__(self, dropout: float = 0.0, scale: float | None = None) -> None:
        super().__init__()
        self.dropout, self.scale = dropout, scale

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """q (B, H, T, D); k, v (B, G, S, D), where G divides H and query head h looks at head h // (H / G); to (B, H, T, D).

        mask: broadcastable to (B, H, T, S); bool, True = may look, or numbers that are added to the products.
        causal: query i looks at keys 0 to i, together with the mask.
        """
        if mask is not None and causal:
            mask, causal = _both(mask, q, k), False
        dropout = self.dropout if self.training else 0.0
        grouped = q.shape[1] != k.shape[1]
        if not (dropout or grouped) and _written(q, k, mask):
            return _write_out(q, k, v, _both(mask, q, k) if causal else mask, self.scale)
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, causal, scale=self.scale, enable_gqa=grouped)

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}, scale={self.scale}"


def attention_weights(
    q: Tensor, k: Tensor, mask: Tensor | None = None, causal: bool = False, scale: float | None = None
) -> Tensor:
    """The weights (B, H, T, S) that `Attend` uses for the same arguments, written out; each (b, h, t) sums to 1."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    products = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        mask = _both(mask, q, k)
    if mask is not None:
        products = products.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else products + mask
    return products.softmax(-1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, heads * D) to (B, heads, T, D)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B, H, T, D) to (B, T, H * D)."""
    return x.transpose(1, 2).flatten(2)


def lengths_mask(lengths: Tensor, total: int) -> Tensor:
    """(B,) lengths to (B, 1, 1, total) bool: True where there is a token and not padding."""
    return (torch.arange(total, device=lengths.device) < lengths[:, None])[:, None, None]


def causal_mask(queries: Tensor, keys: Tensor, window: int = 0) -> Tensor:
    """Positions (B, T) and (B, S) to (B, 1, T, S) bool: no later key, and of the past the last `window` keys (0 = all)."""
    distance = queries[:, :, None] - keys[:, None]  # (B, T, S)
    seen = distance >= 0
    return (seen & (distance < window) if window else seen)[:, None]


def document_mask(documents: Tensor, window: int = 0) -> Tensor:
    """Document numbers (B, T) to (B, 1, T, T) bool: as `causal_mask`, and only within the same document."""
    place = torch.arange(documents.shape[1], device=documents.device)[None]
    return causal_mask(place, place, window) & (documents[:, :, None] == documents[:, None])[:, None]


def _written(q: Tensor, k: Tensor, mask: Tensor | None) -> bool:
    """Whether writing the products out trains faster than the fused kernel."""
    trains = torch.is_grad_enabled() and q.requires_grad and q.device.type == "cpu" and q.dtype == torch.bfloat16
    return trains and (mask is None or mask.dtype == torch.bool) and q.shape[:3].numel() * k.shape[2] <= WRITTEN


def _write_out(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """As the fused kernel, a query that may look at nothing included: it gets zeros."""
    products = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)
    if mask is None:
        return products.softmax(-1) @ v
    looked = products.masked_fill(~mask, torch.finfo(products.dtype).min).softmax(-1) @ v
    return looked.masked_fill(~mask.any(-1, keepdim=True), 0)


def _both(mask: Tensor | None, q: Tensor, k: Tensor) -> Tensor:
    """`mask` and causal as one mask."""
    causal = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    if mask is None:
        return causal
    return mask & causal if mask.dtype == torch.bool else mask.masked_fill(~causal, -torch.inf)


__all__ = ["Attend", "attention_weights", "causal_mask", "document_mask", "join_heads", "lengths_mask", "split_heads"]
