"""What could not train as asked is refused before the first step."""

from __future__ import annotations

from torch import nn

from engram.core.errors import ConfigError
from engram.core.optim import Optim
from engram.core.plan import Plan
from engram.core.task import Task


def check(task: Task, optims: dict[str, Optim], plan: Plan) -> list[nn.Parameter]:
    """Refuse before the first step what could not train as asked. Raises ConfigError in words."""
    owned: set[int] = set()
    for phase in task.phases():
        if phase.key not in optims:
            raise ConfigError(f"phase {phase.name!r} wants optimizer {phase.key!r}; there are {sorted(optims)}")
        trained = {id(p) for p in phase.parameters()}
        held = {id(p) for p in optims[phase.key].members()}
        if not trained:
            raise ConfigError(f"phase {phase.name!r} has nothing to train: all its parameters are frozen")
        if missing := trained - held:
            raise ConfigError(f"phase {phase.name!r} trains {len(missing)} tensors that optimizer {phase.key!r} does not hold")
        if any({id(p) for p in f.members} - trained for f in optims[phase.key].flat):
            raise ConfigError(
                f"optimizer {phase.key!r} is flat and holds more than phase {phase.name!r} trains; set optim.flat=false"
            )
        if plan.accumulate > 1 and not phase.splits:
            raise ConfigError(
                f"the loss of phase {phase.name!r} cannot be accumulated over micro-batches because {phase.why_whole}; "
                "set accumulate=1"
            )
        owned |= trained
    idle = [name for name, p in task.named_parameters() if p.requires_grad and id(p) not in owned]
    if idle:
        raise ConfigError(f"no phase trains {', '.join(idle[:3])}: freeze them or add a phase")
    return [p for p in task.parameters() if id(p) in owned]
