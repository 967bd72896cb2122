"""From a network to the guess of the clean picture that samplers ask for, with classifier-free guidance.

Ho & Salimans 2022, "Classifier-free diffusion guidance", Eq. 6, with their 1 + w as `guidance`: output = without + guidance
(with - without), where "without" is what the network says under the null condition, or under what the picture should not show
(negative prompt). Both come from one call of the network on twice the rows. 1 asks once, with the condition only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engram.inference.samplers import Guess
from engram.nn.schedule import Schedule

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def guided(
    network: Network,
    schedule: Schedule,
    condition: Tensor | None = None,
    without: Tensor | None = None,
    guidance: float = 1.0,
    limits: tuple[float, float] | None = None,
) -> Guess:
    """The guess of x0 by `network(x, t, condition)`, which predicts what `schedule.prediction` says.

    condition:  (B, ...) what the pictures should show, as the network takes it; None: nothing is asked
    without:    (B, ...) the null condition, or what they should not show; needed when guidance is not 1
    limits:     the guess is kept within them: the range of the data where it has one
    """
    if guidance != 1 and (condition is None or without is None):
        raise ValueError("guidance other than 1 needs a condition, and what to guide away from")

    def guess(x: Tensor, t: Tensor) -> Tensor:
        inputs = schedule.network_input(x, t)
        if guidance == 1 or condition is None or without is None:
            output = network(inputs, t, condition).float()
        else:
            twice = network(torch.cat([inputs, inputs]), torch.cat([t, t]), torch.cat([condition, without]))
            output, plain = twice.float().chunk(2)
            output = torch.lerp(plain, output, guidance)
        x0 = schedule.x0(output, x, t)
        return x0 if limits is None else x0.clamp(*limits)

    return guess
