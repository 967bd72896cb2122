"""The principal axes of the training pictures on their way from the data to the network.

They go by way of the Spec at hand, but are not saved in it: the Spec of a run has none, and needs none, because the weights of
the run hold them.
"""

from __future__ import annotations

import dataclasses

import torch

from engram.core.data import Data
from engram.core.spec import Spec
from engram.nn.principal import Principal, principal

ROWS = 1000  # pictures that the axes are fitted to, of as many as there are
BYTES = 128 << 20  # of these pictures as float32


def survey(data: Data, latent: int, classes: int = 0) -> Principal:
    """The axes of the first pictures of training. What these promise too much shrinks as more are trained on."""
    whole = data.size("train")
    x, y, count = [], [], 0
    for batch in data.batches("train"):
        most = min(ROWS, whole, max(2, BYTES // (4 * batch["x"][0].numel())))
        x.append(batch["x"][: most - count].flatten(1).float())
        y.append(batch["y"][: most - count] if classes else torch.empty(0))
        count += len(x[-1])
        if count >= most:
            break
    found = principal(torch.cat(x), latent, torch.cat(y) if classes else None, classes)
    return dataclasses.replace(found, unseen=found.seen + (found.unseen - found.seen) * count / whole)


def hold(spec: Spec, found: Principal) -> None:
    """Keep the axes at hand, outside of the fields."""
    object.__setattr__(spec, "principal", found)


def held(spec: Spec) -> Principal | None:
    """The axes that were just found; None for the Spec of a run."""
    return getattr(spec, "principal", None)
