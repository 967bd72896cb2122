"""The time of a diffusion as features: cosines and sines of many wavelengths.

Papers: Vaswani et al. 2017, section 3.5, for times as in Ho et al. 2020, appendix B; the order, cosines first, is that of
Peebles & Xie 2023. Times run from 0 to 1 and count as 0 to 1000 here, so that wavelengths suit them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def time_features(t: Tensor, width: int, scale: float = 1000.0) -> Tensor:
    """Times (B,) to (B, width): cosines, then sines of `scale` * t, wavelengths from 2 pi to 10000 * 2 pi; `width` even."""
    rate = torch.exp(torch.arange(width // 2, device=t.device) * (-math.log(10000.0) / (width // 2)))
    angle = scale * t.float()[:, None] * rate
    return torch.cat([angle.cos(), angle.sin()], dim=1)


__all__ = ["time_features"]
