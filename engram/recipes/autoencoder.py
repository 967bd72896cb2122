"""Pictures through a narrow code and back with layers of neurons: codes, odd pictures, cleaned pictures.

engram train autoencoder
engram train autoencoder data=mnist odd=4 code=8
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from engram.core.knobs import knob
from engram.models.autoencoder import Autoencoder
from engram.recipes._autoencoder import AutoencoderRecipe


@dataclass(frozen=True, kw_only=True)
class AutoencoderDense(AutoencoderRecipe):
    """Dense encoder and decoder (Hinton & Salakhutdinov 2006), denoising and sparse where asked."""

    tiny: ClassVar = {"hidden": (64,), "code": 16, "epochs": 4, "batch": 128, "optim.lr": 3e-3}
    narrow: ClassVar = True

    bounded: bool = knob(True, "mse: a sigmoid keeps pixels in 0 to 1; without it they are clipped in use")
    hidden: tuple[int, ...] = knob((512, 256), "widths of the encoder's layers; the decoder's are the same backwards", low=1)

    def make_model(self, shape: tuple[int, int, int], code_activation: str) -> nn.Module:
        """Linear layers."""
        return Autoencoder(shape, self.code, self.hidden, self.activation, code_activation, self.norm, self.init)
