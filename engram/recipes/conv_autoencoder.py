"""Pictures through a code and back with convolutions: cleaned pictures, odd pictures, codes.

engram train conv_autoencoder data=photos/
engram train conv_autoencoder data=mnist noise=gaussian spatial=true code=16
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from engram.core.knobs import knob
from engram.models.conv_autoencoder import ConvAutoencoder
from engram.recipes._autoencoder import AutoencoderRecipe


@dataclass(frozen=True, kw_only=True)
class AutoencoderConv(AutoencoderRecipe):
    """Convolutions down to a code and transposed ones back (Masci et al. 2011), denoising and sparse where asked."""

    tiny: ClassVar = {"widths": (16, 32), "code": 32, "epochs": 4, "batch": 128, "optim.lr": 4e-3}

    widths: tuple[int, ...] = knob((32, 64), "channels of each stage; each halves the sides", low=1)
    convs_per_stage: int = knob(1, "convolutions at each size", low=1)
    spatial: bool = knob(False, "the code is a map with `code` channels, which keeps where things are")

    def make_model(self, shape: tuple[int, int, int], code_activation: str) -> nn.Module:
        """Convolutions."""
        return ConvAutoencoder(
            shape, self.code, self.widths, self.convs_per_stage, self.spatial, self.activation, code_activation, self.norm,
            self.init,
        )  # fmt: skip
