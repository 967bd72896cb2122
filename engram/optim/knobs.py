"""The optimizer knobs that every recipe shares, and what each optimizer takes when a knob is left open."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from engram.core.knobs import knob


class Usual(NamedTuple):
    """Values that an optimizer takes for open knobs."""

    lr: float
    momentum: float = 0.0
    beta2: float = 0.999
    weight_decay: float = 0.0


# The rates are those of the papers or of torch where these work across problems, else what trains small networks reliably.
USUAL: dict[str, Usual] = {
    "sgd": Usual(0.1),
    "momentum": Usual(0.05, momentum=0.9, weight_decay=5e-4),
    "nesterov": Usual(0.05, momentum=0.9, weight_decay=5e-4),
    "rmsprop": Usual(1e-3, beta2=0.99),
    "adagrad": Usual(1e-2),
    "adadelta": Usual(1.0, beta2=0.9),
    "adam": Usual(1e-3),
    "nadam": Usual(1e-3, weight_decay=1e-2),
    "adamw": Usual(1e-3, weight_decay=1e-2),
    "muon": Usual(1e-3, momentum=0.95, weight_decay=1e-2),  # the update's size is matched to AdamW's, so its rate is too
    "lbfgs": Usual(1.0),
}
DECOUPLED = ("nadam", "adamw", "muon")


@dataclass(frozen=True, kw_only=True)
class OptimKnobs:
    """Optimizer, learning rate and its schedule.

    An open knob (`lr=0`, others `none`) takes the optimizer's usual value; a recipe's own values stay with the recipe's own
    optimizer:

    | name     | lr    | momentum | beta2 | weight_decay |
    |----------|-------|----------|-------|--------------|
    | sgd      | 0.1   |          |       | 0            |
    | momentum | 0.05  | 0.9      |       | 0.0005       |
    | nesterov | 0.05  | 0.9      |       | 0.0005       |
    | rmsprop  | 0.001 | 0        | 0.99  | 0            |
    | adagrad  | 0.01  |          |       | 0            |
    | adadelta | 1.0   |          | 0.9   | 0            |
    | adam     | 0.001 |          | 0.999 | 0            |
    | nadam    | 0.001 |          | 0.999 | 0.01         |
    | adamw    | 0.001 |          | 0.999 | 0.01         |
    | muon     | 0.001 | 0.95     | 0.999 | 0.01         |
    | lbfgs    | 1.0   |          |       | 0            |

    Weight decay is decoupled (Loshchilov & Hutter 2019) for nadam, adamw and muon, and added to the gradient (L2) otherwise.
    Neither decay nor L1 touches biases and normalisation layers.
    """

    name: Literal[
        "sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adadelta", "adam", "nadam", "adamw", "muon", "lbfgs"
    ] = knob("adamw", "optimizer")
    lr: float = knob(0.0, "base learning rate; 0 = the optimizer's usual", low=0)
    momentum: float | None = knob(
        None, "momentum of momentum, nesterov, rmsprop and muon; none = the optimizer's usual", low=0, high=0.9999
    )
    beta1: float = knob(0.9, "decay of the mean gradient (adam, nadam, adamw, and muon's AdamW part)", low=0, high=0.9999)
    beta2: float | None = knob(
        None, "decay of the mean squared gradient (Adam family, rmsprop, adadelta); none = usual", low=0, high=0.999999
    )
    weight_decay: float | None = knob(None, "decay of weights, not of biases and norms; none = the optimizer's usual", low=0)
    l1: float = knob(0.0, "L1 penalty of weights, not of biases and norms", low=0)
    schedule: Literal["constant", "step", "cosine", "linear", "onecycle"] = knob(
        "cosine", "how the rate moves over the run (lbfgs: always constant)"
    )
    warmup: float | None = knob(
        None, "rising start: fraction of the steps, or steps from 1 on; none = 0.05 (onecycle 0.3, lbfgs 0)", low=0
    )
    step_every: float = knob(0.3, "step schedule: fraction of the steps, or steps from 1 on, between drops", low=1e-9)
    step_factor: float = knob(0.1, "step schedule: factor of each drop", low=0, high=1)
    final: float = knob(0.0, "cosine, linear, onecycle: last rate as a fraction of lr", low=0, high=1)
    flat: bool = knob(True, "keep each group's parameters in one buffer (faster; not for muon and lbfgs)")

    def following(self, asked: Mapping[str, Any]) -> OptimKnobs:
        """A recipe's knobs where the user asks for another optimizer: what was tuned for the recipe's own and means something
        else to the new one is open again, so that it takes the new one's usual value."""
        name = str(asked.get("name", self.name)).lower()
        if name == self.name or name not in USUAL:
            return self
        alike = USUAL[name].lr == USUAL[self.name].lr  # a step of about the same size
        adam = {name, self.name} <= {"adam", "nadam", "adamw", "muon"}
        decoupled = (name in DECOUPLED) == (self.name in DECOUPLED) and name != "lbfgs"
        return dataclasses.replace(
            self,
            lr=self.lr if alike else 0.0,
            momentum=None,
            beta2=self.beta2 if adam else None,
            weight_decay=self.weight_decay if decoupled else None,
        )

    def settled(self) -> OptimKnobs:
        """The same knobs with every open one filled in."""
        usual = USUAL[self.name]
        warmup = {"onecycle": 0.3}.get(self.schedule, 0.05) if self.name != "lbfgs" else 0.0
        return dataclasses.replace(
            self,
            lr=self.lr or usual.lr,
            momentum=usual.momentum if self.momentum is None else self.momentum,
            beta2=usual.beta2 if self.beta2 is None else self.beta2,
            weight_decay=usual.weight_decay if self.weight_decay is None else self.weight_decay,
            schedule="constant" if self.name == "lbfgs" else self.schedule,
            warmup=warmup if self.warmup is None else self.warmup,
        )
