"""New pictures out of noise: a U-Net learns to remove noise, step by step. Diffusion, or flow matching.

engram train ddpm
engram sample runs/ddpm-digits-001 --n 16 --seed 0 --class 3 -o threes.png
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from engram.core.knobs import knob
from engram.data.image_spec import ImageSpec
from engram.models.unet import UNet
from engram.optim.knobs import OptimKnobs
from engram.recipes._diffusion import DiffusionRecipe


@dataclass(frozen=True, kw_only=True)
class Ddpm(DiffusionRecipe):
    """Denoising diffusion with a U-Net (Ho et al. 2020), its schedule, prediction and sampler chosen by name."""

    tiny: ClassVar = {"widths": (8, 16), "epochs": 2, "batch": 64, "sample_steps": 4}

    epochs: float = knob(120.0, "passes over the training rows", low=0)
    widths: tuple[int, ...] = knob((32, 64), "channels at each resolution; each has half the side of the one before", low=1)
    blocks: int = knob(1, "residual blocks per resolution, down and again up", low=1)
    attend: int = knob(8, "largest side of a map with attention after its blocks; 0 = only in the middle", low=0)
    heads: int = knob(4, "heads of each attention", low=1)
    dropout: float = knob(0.0, "share of features dropped in each block", low=0, high=0.95)
    patch: int = knob(1, "side of the squares of pixels that become channels; 2 is four times as fast", low=1)
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=2e-3), "optimizer and schedule")

    def make_network(self, spec: ImageSpec, classes: int) -> nn.Module:
        """A U-Net."""
        return UNet(
            spec.channels, (spec.height, spec.width), classes, self.widths, self.blocks, self.attend, self.heads, self.dropout,
            self.patch,
        )  # fmt: skip
