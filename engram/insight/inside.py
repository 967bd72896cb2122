"""What happens inside a network for one input: attention maps, and how much its answer hangs on each token.

Training keeps the fused attention kernel; here the weights of the asked input alone are computed again from the arguments of
each `Attend`. The saliency of a token is |gradient . embedding|: the change of the answer's score when its embedding grows or
shrinks by a small share (gradient times input, Shrikumar et al. 2016, section 2.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engram.nn.attention import Attend, attention_weights


@dataclass(frozen=True)
class Inside:
    """`attention` maps the name of a layer to weights (H, T, S); `saliency` (T,) belongs to the tokens that were looked at."""

    output: Tensor
    score: float
    attention: dict[str, Tensor]
    saliency: Tensor | None


def look_inside(network: nn.Module, run: Callable[[], Tensor], tokens: Tensor, score: Callable[[Tensor], Tensor]) -> Inside:
    """Call `run`, which runs `network` on the one row `tokens` (1, T); see every attention and the embedding of `tokens`.

    `score` picks the number of the output that the saliency explains. Weights, gradients and modes are left as they were.
    """
    maps: dict[str, Tensor] = {}
    found: list[Tensor] = []

    def see(name: str) -> Callable[..., None]:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
            given = dict(zip(("q", "k", "v", "mask", "causal"), args, strict=False)) | kwargs
            with torch.no_grad():
                weights = attention_weights(
                    given["q"].float(), given["k"].float(), given.get("mask"), given.get("causal", False), module.scale
                )
            maps[name] = weights[0].cpu()

        return hook

    def embed(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor | None:
        if found or not args or args[0].shape != tokens.shape or not torch.equal(args[0], tokens):
            return None
        found.append(out.detach().requires_grad_())
        return found[0]

    handles = [m.register_forward_hook(see(n), with_kwargs=True) for n, m in network.named_modules() if isinstance(m, Attend)]
    handles += [m.register_forward_hook(embed) for m in network.modules() if isinstance(m, nn.Embedding)]
    training = network.training
    try:
        network.eval()
        with torch.enable_grad():
            output = run()
            value = score(output)
            gradient = torch.autograd.grad(value, found[0])[0] if found and value.requires_grad else None
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    saliency = (gradient * found[0]).sum(-1).abs()[0].detach().cpu() if gradient is not None else None
    return Inside(output.detach(), float(value.detach()), maps, saliency)
