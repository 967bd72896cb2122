"""From texts to classes, or to none of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.predictor import Field, Figure, Scores
from engram.core.spec import Spec
from engram.inference.classify import Classifier


class IntentClassifier(Classifier):
    """As Classifier; the last of `classes` stands for texts that belong to no other.

    Without `threshold` that class is an output of the network like any other. With it the network has no such output: the class
    then takes part with the score of the threshold, so that it wins exactly where the largest probability is below.
    """

    gives: ClassVar = Classifier.gives | {"out_of_scope": Field("number", "the probability that it is none of the classes")}

    def __init__(
        self,
        model: nn.Module,
        spec: Spec,
        classes: tuple[str, ...],
        inputs: tuple[str, ...] = ("x",),
        threshold: Tensor | None = None,
    ):
        super().__init__(model, spec, classes, inputs)
        self.threshold = threshold

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """See Classifier.outputs; the last column is out of scope."""
        found = super().outputs(batch)
        if self.threshold is None:
            return found
        p = found["probabilities"]
        both = torch.cat([p, self.threshold.to(p).expand(len(p), 1)], 1)
        return found | {"probabilities": both / both.sum(1, keepdim=True)}

    def scores(self, batches: Iterable[Batch], rows: Iterable[list[Any]]) -> Scores | None:
        """Accuracy of the rows in scope among all classes, and recall of those out of scope (Larson et al. 2019, section 4)."""
        parts = []
        for batch in batches:
            found = self.outputs(batch)
            if "targets" not in found:
                return None
            targets, last = found["targets"], len(self.classes) - 1
            right, outside = found["probabilities"].argmax(1) == targets, targets == last
            closed = found["probabilities"][:, :last].argmax(1) == targets
            parts.append(torch.stack([right & ~outside, ~outside, right & outside, outside, closed], 1).double())
        if not parts:
            return None
        figures = {
            "in_scope_accuracy": Figure("right on texts in scope", lambda s: s[:, 0] / s[:, 1], "percent"),
            "out_of_scope_recall": Figure("texts out of scope found", lambda s: s[:, 2] / s[:, 3], "percent"),
            "closed_accuracy": Figure(
                "right on texts in scope when nothing may be out of scope", lambda s: s[:, 4] / s[:, 1], "percent"
            ),
        }
        return Scores(figures, torch.cat(parts), "texts")

    def __call__(self, *, input: Any) -> dict[str, list[Any]]:
        """As Classifier, and out_of_scope."""
        out = super().__call__(input=input)
        return out | {"out_of_scope": [p[self.classes[-1]] for p in out["probabilities"]]}
