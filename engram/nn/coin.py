"""How likely black or white pixels are, in few passes over them: a tenth of a small network's training step.

log p(x | l) = x l - softplus(l) for log-odds l. torch's softplus takes an exponential and a logarithm of every pixel, and its
gradient another exponential. Here the sigmoid s serves the value and the gradient, and 16 pixels share one logarithm:
softplus(l) = max(l, 0) - log(max(s, 1 - s)), and a product of 16 numbers of 1/2 to 1 is far from running out of range.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

GROUP = 16


def log_coin(x: Tensor, logit: Tensor) -> Tensor:
    """(..., N) twice, broadcast, to (...): the sum over the last dimension of x l - softplus(l), in nats; x of 0 to 1.

    Computed in the wider of the two dtypes; the error is a rounding per pixel, however large the log-odds.
    """
    dtype = torch.promote_types(x.dtype, logit.dtype)
    x, logit = x.to(dtype), logit.to(dtype)
    if x.shape != logit.shape:
        x, logit = torch.broadcast_tensors(x, logit)
    return _LogCoin.apply(x, logit)  # type: ignore[return-value]


class _LogCoin(torch.autograd.Function):
    """Gradients: l for x, x - s for l; they can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, logit: Tensor) -> Tensor:
        s = logit.sigmoid()
        ctx.save_for_backward(x, logit, s)
        sure = (s - 0.5).abs_().add_(0.5)
        if sure.shape[-1] % GROUP == 0:
            sure = sure.reshape(*sure.shape[:-1], GROUP, sure.shape[-1] // GROUP).prod(-2)
        linear = torch.addcmul(logit.clamp(min=0), x, logit, value=-1)
        return sure.log_().sum(-1).sub_(linear.sum(-1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, logit, s = ctx.saved_tensors
        (g,) = grads
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted
            s = logit.sigmoid()
        to_x = g[..., None] * logit if ctx.needs_input_grad[0] else None
        to_logit = (x - s) * g[..., None] if ctx.needs_input_grad[1] else None
        return to_x, to_logit
