"""From inputs to a number in the target's own units."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.predictor import Field, Predictor
from engram.core.spec import Spec
from engram.inference.outputs import Runner


class Regressor(Predictor):
    """One value per row: the output of `model` (B, 1), which was trained on (target - mean) / std."""

    takes: ClassVar = {"input": Field("input", "one row, a list of rows, a path, an array or a DataFrame")}
    gives: ClassVar = {"value": Field("number", "the predicted value, in the units of the target")}

    def __init__(self, model: nn.Module, spec: Spec, mean: float, std: float, inputs: tuple[str, ...] = ("x",)):
        self.spec, self.mean, self.std = spec, mean, std
        self.runner = Runner(model, inputs)

    def tune(self, *, bf16: bool, channels_last: bool) -> None:
        """See Predictor.tune."""
        self.runner.tune(self.spec.example(), bf16, channels_last)

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"values": (B,)}, and "targets" (B,) when the batch has them, both float64 in the target's units."""
        targets = {"targets": self._in_units(batch["y"].cpu())} if "y" in batch else {}
        return {"values": self._in_units(self.runner(batch))} | targets

    def __call__(self, *, input: Any) -> dict[str, list[Any]]:
        """{"value": one number per row}."""
        return {"value": self.outputs(self.spec.encode(input))["values"].tolist()}

    def _in_units(self, x: Tensor) -> Tensor:
        """(B, 1) standardised to (B,). In float32 times in seconds since 1970, say, would lie 128 apart."""
        return x.squeeze(1).double() * self.std + self.mean
