"""What the two commonest predictors share: running a model on encoded batches."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.inference.fold import fold


class Runner:
    """A model in eval mode on its device. Inputs are the named tensors of a batch; outputs are float32 on the CPU."""

    def __init__(self, model: nn.Module, inputs: tuple[str, ...]):
        self.model, self.inputs = model, inputs
        self.dtype = torch.float32
        self.layout = torch.contiguous_format

    def tune(self, example: Batch, bf16: bool, channels_last: bool) -> None:
        """Compute with a copy of the model: norms folded, in bfloat16, channels-last. The model itself stays as it is."""
        device = next(self.model.parameters()).device
        images = any(isinstance(m, nn.Conv2d) for m in self.model.modules())
        model = fold(self.model, tuple(noise(example[name]).to(device) for name in self.inputs)) if images else self.model
        if bf16:
            self.dtype = torch.bfloat16
            model = copy.deepcopy(model).to(torch.bfloat16)
        if channels_last and images:
            self.layout = torch.channels_last
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = model

    def __call__(self, batch: Batch) -> Tensor:
        """One row per row of the batch."""
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            return self.model(*(self._given(batch[name].to(device)) for name in self.inputs)).float().cpu()

    def _given(self, x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x
        return x.to(self.dtype, memory_format=self.layout) if x.dim() == 4 else x.to(self.dtype)


def noise(x: Tensor) -> Tensor:
    """Normal numbers of the shape of `x`, the same every time; integers stay."""
    if not x.is_floating_point():
        return x
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
