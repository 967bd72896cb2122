"""What this machine does best: device, number format, threads, memory. Each choice is said, and saved for a bitwise resume."""

from __future__ import annotations

import copy
import ctypes
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from engram.core.batch import Batch, to_device
from engram.core.data import Data
from engram.core.errors import ConfigError
from engram.core.plan import Precision
from engram.core.recipe import Recipe
from engram.core.task import Ctx, Task
from engram.tasks.regress import Regress

TURN = 0.08  # seconds: length of a turn of the probe for threads
COMPILING, SAVED = 60.0, 0.25  # seconds that torch.compile takes on a GPU, and the share of a step that it saves there


@dataclass(frozen=True)
class Machine:
    """The choices of one run, and why."""

    device: str
    precision: Precision
    channels_last: bool
    threads: int
    compile: bool
    why: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For run.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Machine:
        """The inverse of `to_json`."""
        given: dict[str, Any] = {**values, "why": tuple(values.get("why", ()))}
        return cls(**given)


def choose_device(wish: str) -> torch.device:
    """'auto' takes an accelerator when there is one. Raises ConfigError when the asked one is not there."""
    if wish == "auto":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        return torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(wish)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise ConfigError(f"device={wish} is not on this machine; set device=auto or device=cpu") from None
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; without it bf16 is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def choose_precision(recipe: Recipe, task: Task, device: torch.device) -> tuple[Precision, str]:
    """bf16 where the machine has it and the network is wide enough to gain; and the reason in words."""
    if recipe.precision != "auto":
        return recipe.precision, f"{recipe.precision} (as asked)"
    if isinstance(task, Regress):
        return "fp32", "fp32 (bf16 would cost the predicted numbers digits)"
    if recipe.narrow or not _wide(task):
        return "fp32", "fp32 (bf16 gains nothing on layers this narrow)"
    if has_bf16(device):
        return "bf16", f"bf16 (this {'GPU' if device.type == 'cuda' else 'processor'} has bf16 instructions)"
    return "fp32", "fp32 (this processor has no bf16 instructions)"


def _wide(task: Task) -> bool:
    return any(
        isinstance(m, nn.Conv2d)
        or (isinstance(m, nn.Linear) and min(m.weight.shape) >= 256)
        or (isinstance(m, nn.LSTM) and m.hidden_size >= 256)  # oneDNN's fused layer: 84 ms a step to 47
        for m in task.modules()
    )


def convolutional(task: Task) -> bool:
    """Whether the channels-last layout can pay."""
    return any(isinstance(m, nn.Conv2d) for m in task.modules())


def keep_memory() -> None:
    """Let the C library keep freed blocks: large activations then stop costing page faults (Linux with glibc only)."""
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, 1 << 30)
        libc.mallopt(m_top_pad, 64 << 20)


def choose_threads(wish: int, task: Task, data: Data, device: torch.device, precision: Precision) -> tuple[int, str]:
    """As many threads as help now: a probe times steps with all cores, half of them ... and one, in turn.

    A busy neighbour makes several threads far slower than one, because they wait for each other at every layer.
    """
    cores = available_cores()
    if wish:
        return wish, f"{wish} thread{'s' if wish > 1 else ''} (as asked)"
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():  # torchrun shares the cores out this way
        return int(os.environ["OMP_NUM_THREADS"]), f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}"
    if device.type != "cpu" or cores == 1:
        return cores, f"{cores} threads"
    torch.set_num_threads(cores)
    trial = copy.deepcopy(task)
    batch = next(data.batches("train"))
    options = [cores]
    while options[-1] > 1:
        options.append(options[-1] // 2)
    steps, seconds = dict.fromkeys(options, 0), dict.fromkeys(options, 0.0)
    for turn in range(4):  # turns of some length: in a short one a neighbour may happen to sleep
        for threads in options:
            torch.set_num_threads(threads)
            begun, done = time.perf_counter(), 0
            while not done or (turn and time.perf_counter() - begun < TURN):
                _step(trial, to_device(batch, device), device, precision)
                done += 1
            if turn:  # the first turn is one step to warm up
                steps[threads] += done
                seconds[threads] += time.perf_counter() - begun
        if sum(seconds.values()) > 10 * TURN:
            break
    each = {threads: seconds[threads] / steps[threads] for threads in options}
    chosen = min(options, key=lambda threads: each[threads])
    torch.set_num_threads(chosen)
    times = ", ".join(f"{threads}: {each[threads] * 1e3:.1f} ms" for threads in options)
    return chosen, f"{chosen} thread{'s' if chosen > 1 else ''} (a step takes with {times})"


def available_cores() -> int:
    """Cores that this process may use (containers and taskset included)."""
    return len(os.sched_getaffinity(0)) if platform.system() == "Linux" else os.cpu_count() or 1


def _step(task: Task, batch: Batch, device: torch.device, precision: Precision) -> None:
    task.train()
    for phase in task.phases():
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss, _ = phase.loss(batch, Ctx())
        loss.backward()


def step_seconds(task: Task, data: Data, device: torch.device, precision: Precision) -> float:
    """Seconds that a step takes: the median of five on a copy, after two to warm up."""
    trial, batch, times = copy.deepcopy(task), to_device(next(data.batches("train")), device), []
    for _ in range(7):
        begun = time.perf_counter()
        _step(trial, batch, device, precision)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    return sorted(times[2:])[2]


def choose_compile(wish: str, steps: int, device: torch.device, seconds: Callable[[], float]) -> tuple[bool, str]:
    """'auto' compiles only where the time that it will save exceeds the time that it costs; `seconds()` measures a step.

    On processors torch.compile slows most training steps down (measured 0.57 to 1.06 of eager), so auto leaves it off there.
    """
    if wish != "auto":
        return wish == "on", f"compile {wish} (as asked)"
    if device.type != "cuda":
        return False, ""
    saved = SAVED * steps * seconds()
    why = f"it would save about {saved:.0f} s and costs about {COMPILING:.0f}"
    return (True, f"compiled ({why})") if saved > COMPILING else (False, f"not compiled ({why})")


def describe() -> dict[str, str]:
    """Versions and processor, for run.json."""
    import numpy

    from engram import __version__

    return {
        "engram": __version__, "python": platform.python_version(), "torch": torch.__version__,
        "numpy": numpy.__version__, "system": platform.platform(), "processor": processor(),
    }  # fmt: skip


def processor() -> str:
    """The processor's model name."""
    return next(_cpu_names(), platform.processor() or platform.machine())


def _cpu_names() -> Iterator[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            yield from (line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except OSError:
        return
