"""Where an encoder-decoder looks: the weight of every source token for every target token, of one pair.

Of a recurrent network (Bahdanau et al. 2014, figure 3) these are the weights of its attention, with the context vectors that
they make; of a Transformer those of each layer and head that look from the target at the source. The fused kernels stay in
use: the weights are computed from the queries and keys of this one pair (see engram.nn.attention).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from engram.nn.attention import Attend, attention_weights


@runtime_checkable
class Attending(Protocol):
    """A recurrent encoder-decoder: logits, weights (B, T, S), contexts (B, T, C)."""

    def attend(self, source: Tensor, source_lengths: Tensor | None, target_in: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...


@dataclass(frozen=True)
class Alignment:
    """Pieces of the source (S) and of the target (T), both with </s>; weights (layers, heads, T, S), each row sums to 1.

    contexts: (T, C) what the decoder read for each target token; empty (T, 0) for a Transformer, which has one per head.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    weights: Tensor
    contexts: Tensor

    def mean(self, layer: int | None = None, head: int | None = None) -> Tensor:
        """(T, S): the mean over all layers and heads, or over those asked for. IndexError when there is no such one."""
        some = self.weights if layer is None else self.weights[layer][None]
        return (some if head is None else some[:, head][:, None]).mean((0, 1))

    def to_json(self, *, contexts: bool = False) -> dict[str, Any]:
        """{"source", "target", "weights": T lists of S numbers (the mean), "layers": [layer][head][T][S]}, and the contexts."""
        rounded = {"weights": _rounded(self.mean()), "layers": _rounded(self.weights)}
        return (
            {"source": list(self.source), "target": list(self.target)}
            | rounded
            | ({"contexts": _rounded(self.contexts)} if contexts else {})
        )


@torch.no_grad()
def alignment(
    model: nn.Module, source: Sequence[int], target: Sequence[int], pieces: tuple[Sequence[str], Sequence[str]]
) -> Alignment:
    """Of ids of a source with </s>, and of a target with <s> and </s>; `pieces` are what people read for source and target[1:].

    Raises ValueError for a model without attention to its source.
    """
    device = next(model.parameters()).device
    given = torch.tensor([list(source)], device=device), None, torch.tensor([list(target)[:-1]], device=device)
    model.eval()
    crosses = [m for name, m in model.named_modules() if isinstance(m, Attend) and "cross" in name.split(".")]
    if crosses:
        seen: list[Tensor] = []
        hooks = [m.register_forward_hook(_keep(seen)) for m in crosses]
        try:
            model(*given)
        finally:
            for hook in hooks:
                hook.remove()
        weights, contexts = torch.cat(seen), torch.zeros(len(target) - 1, 0)
    elif isinstance(model, Attending):
        _, looks, read = model.attend(*given)
        weights, contexts = looks[:, None], read[0]
    else:
        raise ValueError(f"{type(model).__name__} does not attend to a source")
    return Alignment(tuple(pieces[0]), tuple(pieces[1]), weights.float().cpu(), contexts.float().cpu())


def _keep(seen: list[Tensor]) -> Any:
    """A hook that keeps the weights (1, heads, T, S) of an `Attend`."""

    def hook(module: nn.Module, given: tuple[Any, ...], out: Tensor) -> None:
        q, k, *rest = given
        mask: Tensor | None = rest[1] if len(rest) > 1 else None
        causal = bool(rest[2]) if len(rest) > 2 else False
        assert isinstance(module, Attend)
        seen.append(attention_weights(q.float(), k.float(), mask, causal, module.scale))

    return hook


def _rounded(values: Tensor) -> Any:
    return (values.double() * 1e6).round().div(1e6).tolist()


__all__ = ["Alignment", "alignment"]
