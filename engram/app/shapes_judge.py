"""The judge of drawn shapes: a CNN that says which shape, colour, place and size a picture shows, or that it shows none.

It is trained by a fixed recipe on pictures drawn for it, never on those that a run has made, and kept in the cache. "None of
these" it learns from empty pictures and pictures of two things.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.checkpoint.files import read_tensors, write_tensors
from engram.core.errors import RunError
from engram.core.snapshot import Snapshot
from engram.data import shapes
from engram.data.sources import cache_folder
from engram.models.cnn import CNN

VERSION = 1  # of the recipe: raise it when a change would change the judge
HEADS = {"shape": len(shapes.SHAPES) + 1, "colour": len(shapes.COLOURS), "place": len(shapes.PLACES), "size": len(shapes.SIZES)}
ASKED = ("shape", "colour", "place")  # what must agree; sizes are told beside it, since not every prompt names one
STEPS, BATCH, RATE = 800, 96, 3e-3
NOISE = 0.05  # deviation, of pixels in -1..1
JUNK = 8  # pictures of each batch that show nothing that has a name
Look = Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Judge:
    """`look`: uint8 pictures (B, C, H, W) to what they show (B,), by head."""

    about: str
    look: Look
    accuracy: dict[str, float]


def shapes_judge(side: int, say: Callable[[str], None] = lambda _: None) -> Judge:
    """A CNN that names shape, colour, place and size, trained on pictures drawn for it (about two minutes on one core)."""
    net = _network(side)
    path = kept_at("shapes", side, VERSION, STEPS, BATCH)
    facts = recall(path, net)
    if not facts:
        say(f"training the judge of shapes: {STEPS} steps, then kept in {path.parent}")
        net = learn_shapes(side)
        facts = _accuracy(net, side)
        keep(path, net, facts, say)
    about = (
        f"a CNN of our own, trained on {STEPS * BATCH:,} pictures drawn for it alone; of {facts['rows']:,} other ones with "
        f"combinations that runs hold out it gets shape, colour and place of {facts['all']:.2%} right"
    )
    return Judge(about, lambda x: see(net.eval(), x), {k: v for k, v in facts.items() if k != "rows"})


def learn_shapes(side: int, steps: int = STEPS, seed: int = 0) -> CNN:
    """By a fixed recipe: AdamW, one cycle, new pictures at every step, a little blur and noise. Random state is left alone."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        net = _network(side).train()
        optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
        combos = np.array([c for split in ("train", "val", "test") for c in shapes.combinations(split)])[:, :3]
        rng = np.random.default_rng([seed, 11])
        for _ in range(steps):
            x, scenes = _lesson(combos, rng, side)
            logits = net(_rough(x)).split(list(HEADS.values()), 1)
            optimizer.zero_grad()
            torch.stack(
                [F.cross_entropy(z, y, ignore_index=-1) for z, y in zip(logits, scenes.unbind(1), strict=True)]
            ).sum().backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def _lesson(combos: np.ndarray, rng: np.random.Generator, side: int) -> tuple[Tensor, Tensor]:
    """Pictures uint8 (BATCH, 3, side, side) and what they show (BATCH, 4); the last JUNK of them nothing that has a name."""

    def scenes(count: int) -> np.ndarray:
        return np.concatenate([combos[rng.integers(len(combos), size=count)], rng.integers(3, size=(count, 1))], 1)

    y = scenes(BATCH)
    jitter = rng.random((BATCH, 6), np.float32)
    x = shapes.render(y, jitter, side)
    junk = x[-JUNK:]
    empty, two = np.split(np.arange(JUNK), [JUNK // 4])
    junk[empty] = np.array(shapes.GROUND, np.uint8)[:, None, None]
    other = y[-JUNK:].copy()
    other[two] = scenes(len(two))
    other[two, 2] = (y[-JUNK:][two, 2] + 1 + rng.integers(8, size=len(two))) % 9  # another place
    second = shapes.render(other, jitter[-JUNK:], side)
    junk[two] = np.maximum(junk[two], second[two])
    y[-JUNK:] = -1
    y[-JUNK:, 0] = len(shapes.SHAPES)
    return torch.from_numpy(x), torch.from_numpy(y)


def _rough(x: Tensor) -> Tensor:
    """As the network reads them, some a little blurred, all a little noisy: pictures that are made are never quite clean."""
    x = _signed(x)
    blur = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = torch.rand(len(x), 1, 1, 1) * (torch.rand(len(x), 1, 1, 1) < 0.5)
    return x.lerp(blur, share) + NOISE * torch.randn_like(x)


@torch.no_grad()
def see(net: CNN, x: Tensor) -> dict[str, Tensor]:
    """What uint8 pictures (N, 3, H, W) show, (N,) by head; shape 6 is none of these.

    The same faint noise is laid on every picture: the judge has learned on noisy ones, and of ground without any it makes less.
    """
    faint = NOISE * torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0))
    logits = torch.cat([net(_signed(part) + faint) for part in x.split(256)])
    return dict(zip(HEADS, (z.argmax(1) for z in logits.split(list(HEADS.values()), 1)), strict=True))


def _accuracy(net: CNN, side: int, rows: int = 1920) -> dict[str, Any]:
    """Shares right on other drawn pictures of combinations that runs hold out."""
    drawn = shapes.draw("test", rows, seed=1234, side=side)
    seen, truth = see(net, torch.from_numpy(drawn.pixels)), torch.from_numpy(drawn.scenes)
    agree = {head: seen[head] == truth[:, i] for i, head in enumerate(HEADS)}
    whole = torch.stack([agree[h] for h in ASKED]).all(0)
    return {"rows": rows, "all": float(whole.double().mean())} | {h: float(a.double().mean()) for h, a in agree.items()}


def _network(side: int) -> CNN:
    return CNN(3, (side, side), sum(HEADS.values()), (16, 32, 64), (128,), dropout=0.1)


def _signed(x: Tensor) -> Tensor:
    return x.float() / 127.5 - 1


def kept_at(*key: Any) -> Path:
    """Where the cache keeps the judge of that name, data and recipe."""
    return cache_folder() / "judges" / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.safetensors"


def recall(path: Path, net: nn.Module) -> dict[str, Any]:
    """The facts of the judge kept there, whose weights `net` takes; {} where there is none or it is damaged."""
    with contextlib.suppress(RunError):
        kept = read_tensors(path)
        net.load_state_dict(kept.tensors)
        return kept.facts
    return {}


def keep(path: Path, net: nn.Module, facts: dict[str, Any], say: Callable[[str], None]) -> None:
    """Weights and facts into the cache; where that cannot be, a line says so."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, Snapshot(net.state_dict(), facts))
    except (OSError, RunError) as error:
        say(f"the judge could not be kept ({error}); it is trained again next time")
