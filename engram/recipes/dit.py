"""New pictures out of noise: a Transformer over patches learns to remove noise. Diffusion, or flow matching.

engram train dit
engram sample runs/dit-digits-001 --n 16 --seed 0 --class 3 -o threes.png
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from engram.core.errors import ConfigError
from engram.core.knobs import knob
from engram.data.image_spec import ImageSpec
from engram.models.dit import DiT
from engram.recipes._diffusion import DiffusionRecipe


@dataclass(frozen=True, kw_only=True)
class Dit(DiffusionRecipe):
    """Denoising diffusion with a Transformer (Peebles & Xie 2023), its schedule, prediction and sampler chosen by name."""

    tiny: ClassVar = {"width": 32, "layers": 2, "heads": 2, "epochs": 2, "batch": 64, "sample_steps": 4}
    narrow: ClassVar = True  # measured at widths 96 and 128: bf16 takes 1.1 to 1.6 times as long

    epochs: float = knob(60.0, "passes over the training rows", low=0)
    patch: int = knob(2, "side of the squares of pixels that become tokens; half the side is four times the tokens", low=1)
    width: int = knob(96, "numbers per token", low=4)
    layers: int = knob(4, "blocks", low=1)
    heads: int = knob(4, "heads of each attention", low=1)
    ratio: int = knob(4, "width of the feed-forward layers in units of width", low=1)

    def make_network(self, spec: ImageSpec, classes: int) -> nn.Module:
        """A DiT."""
        size = (spec.height, spec.width)
        try:
            return DiT(spec.channels, size, classes, self.patch, self.width, self.layers, self.heads, self.ratio)
        except ValueError as wrong:
            raise ConfigError(f"{wrong}; see the knobs width and heads") from None
