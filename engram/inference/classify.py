"""From inputs to classes with their probabilities."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.predictor import Field, Predictor
from engram.core.spec import Spec
from engram.inference.outputs import Runner


class Classifier(Predictor):
    """One label per row: softmax over the logits of `model` (B, classes), or a sigmoid of one logit for two classes."""

    takes: ClassVar = {"input": Field("input", "one row or image, a list of them, a path, an array or a DataFrame")}
    gives: ClassVar = {
        "label": Field("label", "the most probable class"),
        "probability": Field("number", "its probability, 0 to 1"),
        "probabilities": Field("probabilities", "the probability of every class"),
    }

    def __init__(self, model: nn.Module, spec: Spec, classes: tuple[str, ...], inputs: tuple[str, ...] = ("x",)):
        self.spec, self.classes = spec, classes
        self.runner = Runner(model, inputs)

    def tune(self, *, bf16: bool, channels_last: bool) -> None:
        """See Predictor.tune."""
        self.runner.tune(self.spec.example(), bf16, channels_last)

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"probabilities": (B, classes)}; with "targets" (B,) when the batch has them."""
        logits = self.runner(batch)
        if logits.shape[1] == 1 and len(self.classes) == 2:
            positive = logits.sigmoid()
            probabilities = torch.cat([1 - positive, positive], 1)
        else:
            probabilities = logits.softmax(1)
        return {"probabilities": probabilities} | ({"targets": batch["y"].cpu()} if "y" in batch else {})

    def __call__(self, *, input: Any) -> dict[str, list[Any]]:
        """Lists with one entry per row: label, probability, probabilities {class: probability}."""
        probabilities = self.outputs(self.spec.encode(input))["probabilities"]
        best, index = probabilities.max(1)
        rows = [dict(zip(self.classes, map(float, row), strict=True)) for row in probabilities]
        return {
            "label": [self.classes[i] for i in index.tolist()],
            "probability": best.tolist(),
            "probabilities": rows,
        }
