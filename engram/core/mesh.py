"""The processes of one run. `Mesh` is one process; `training.mesh.Ranks` speaks for several."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


class Mesh:
    """One process: sums and gathers are the identity."""

    rank: int = 0
    world: int = 1

    def sum(self, value: Tensor) -> Tensor:
        """The sum of `value` over all processes."""
        return value

    def gather(self, value: Tensor) -> Tensor:
        """The rows of every process, in order of rank; gradients flow back to each (contrastive losses)."""
        return value

    def sum_gradients(self, tensors: Iterable[Tensor]) -> None:
        """Add up `.grad` of the same tensors over all processes, in place."""

    def barrier(self) -> None:
        """Wait until every process is here."""
