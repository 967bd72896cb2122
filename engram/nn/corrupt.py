"""Pictures made worse, so that a network can learn to clean them: Gaussian noise, hidden pixels, salt and pepper.

Vincent et al. 2010, "Stacked denoising autoencoders", section 3.3 names the three. Pictures have pixels from 0 to 1 and
stay in that range, since a noisy picture on file does too. All randomness comes in as `noise`, one entry per pixel:

    gaussian          x + amount * noise, clipped to 0..1             noise (B, C, H, W) standard normal
    masking           0 where noise < amount                          noise (B, 1, H, W) uniform in [0, 1)
    salt_and_pepper   0 where noise < amount / 2, 1 where amount / 2 <= noise < amount          likewise uniform

The last two hit all colours of a pixel together.
"""

from __future__ import annotations

from torch import Tensor

from engram.nn.activations import unknown

CORRUPTIONS = ("gaussian", "masking", "salt_and_pepper")


def corrupt(x: Tensor, kind: str, amount: float, noise: Tensor) -> Tensor:
    """Pictures (B, C, H, W) of 0..1 made worse.

    `amount`: for gaussian the deviation of the noise, else the share of the pixels that are hit. Raises ValueError for an
    unknown kind.
    """
    if kind == "gaussian":
        return (x + amount * noise).clamp(0, 1)
    if kind == "masking":
        return x.masked_fill(noise < amount, 0.0)
    if kind == "salt_and_pepper":
        return x.masked_fill(noise < amount, 1.0).masked_fill(noise < amount / 2, 0.0)
    raise unknown("corruption", kind, CORRUPTIONS)


def noise_of(kind: str, shape: tuple[int, int, int]) -> tuple[str, tuple[int, int, int]]:
    """("normal" or "uniform", the shape per picture) of the numbers that a corruption of pictures (C, H, W) takes."""
    if kind not in CORRUPTIONS:
        raise unknown("corruption", kind, CORRUPTIONS)
    return ("normal", shape) if kind == "gaussian" else ("uniform", (1, *shape[1:]))
