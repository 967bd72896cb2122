"""Recipe: one experiment. Its fields are the knobs (flags, form, saved), its methods the wiring."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from engram.core.data import Data
from engram.core.errors import ConfigError
from engram.core.knobs import knob
from engram.core.optim import Optim
from engram.core.plan import Plan, Precision
from engram.core.predictor import Predictor
from engram.core.spec import Spec
from engram.core.task import Task


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """Subclass, add fields, and write the five `make_` methods: that is a new experiment.

    `load(run)` calls `make_task` and `make_predictor`, never `make_data`: a run works without its data.
    """

    tiny: ClassVar[dict[str, Any]]  # knobs that train in seconds, for tests and checks
    specs: ClassVar[tuple[type[Spec], ...]]  # the kinds of Spec that its data may have
    watch: ClassVar[tuple[str, Literal["min", "max"]]] = ("loss", "min")  # the metric that chooses the best state
    narrow: ClassVar[bool] = False  # True: bf16 gains nothing here, auto precision stays fp32

    data: Any = knob("", "a built-in data set's name, or the path of your own file or folder")
    epochs: float = knob(10.0, "passes over the training rows", low=0)
    steps: int = knob(0, "optimizer steps; 0 = as epochs say", low=0)
    batch: int = knob(128, "rows per optimizer step, over all ranks and micro-batches", low=1)
    seed: int = knob(0, "seed of weights, order, dropout and augmentation", low=0)
    device: str = knob("auto", "auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "fp32", "bf16"] = knob("auto", "number format of the forward and backward pass")
    compile: Literal["auto", "on", "off"] = knob("auto", "torch.compile; auto only when it saves more time than it costs")
    threads: int = knob(0, "processor threads; 0 = chosen by a probe", low=0)
    accumulate: int = knob(1, "micro-batches per optimizer step", low=1)
    clip: float = knob(1.0, "largest norm of the gradient; 0 = do not clip", low=0)
    ema: float = knob(0.0, "decay of the moving average of the weights; 0 = none", low=0, high=0.999999)
    evals: int = knob(0, "evaluations during the run; 0 = once per epoch, at most 20", low=0)
    saves: int = knob(0, "saved states during the run; 0 = one per evaluation", low=0)
    patience: int = knob(0, "evaluations without improvement before stopping early; 0 = never", low=0)
    start_from: str = knob("", "a run whose weights to start from")

    @abstractmethod
    def make_data(self) -> Data:
        """Read the data. Raises DataError."""

    @abstractmethod
    def make_task(self, spec: Spec) -> Task:
        """Build networks and objective from the Spec alone."""

    @abstractmethod
    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One Optim per phase key; called when the task is on its device."""

    @abstractmethod
    def make_predictor(self, task: Task, spec: Spec) -> Predictor:
        """The trained network in use."""

    def learned(self, spec: Spec) -> str:
        """What is learned, in the words of the knobs' `of`, where the data decides; '' when there is only one thing."""
        return ""

    def make_plan(self, data: Data, *, precision: Precision, channels_last: bool = False, compile: bool = False) -> Plan:
        """Epochs as steps, evaluations and saves as intervals."""
        per_epoch = data.steps_per_epoch
        steps = self.steps or round(self.epochs * per_epoch)
        if steps < 1:
            raise ConfigError(f"epochs={self.epochs} is less than one step of batch={self.batch}; raise epochs or set steps")
        evals = self.evals or max(1, min(20, round(steps / max(per_epoch, 1))))
        eval_every = max(1, -(-steps // evals))
        return Plan(
            steps=steps,
            accumulate=self.accumulate,
            clip=self.clip,
            ema=self.ema,
            precision=precision,
            channels_last=channels_last,
            compile=compile,
            eval_every=eval_every,
            save_every=max(1, -(-steps // self.saves)) if self.saves else eval_every,
            log_every=max(1, steps // 200, min(10, steps // 20)),
            watch=self.watch[0],
            mode=self.watch[1],
            patience=self.patience,
            seed=self.seed,
        )
