"""What the two commonest predictors share: running a model on encoded batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engram.core.batch import Batch


class Runner:
    """A model in eval mode on its device. Inputs are the named tensors of a batch; outputs are float32 on the CPU."""

    def __init__(self, model: nn.Module, inputs: tuple[str, ...]):
        self.model, self.inputs = model, inputs
        self.bf16 = False

    def tune(self, bf16: bool, channels_last: bool) -> None:
        """Compute in bfloat16 and in the channels-last layout from here on."""
        self.bf16 = bf16
        if channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, batch: Batch) -> Tensor:
        """One row per row of the batch."""
        device = next(self.model.parameters()).device
        given = [batch[name].to(device) for name in self.inputs]
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            return self.model(*given).float().cpu()
