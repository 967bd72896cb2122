"""Judges: networks that look at generated pictures and real ones, for engram.app.fidelity.

The features behind the usual FID are those of a network trained on 1.3 million photographs (Inception-v3), which this
package neither holds nor downloads. Its own judge is a small CNN trained here, on the training pictures of the run's data: to
tell their classes apart, or, without classes, their turns and mirror images (Gidaris et al. 2018). The recipe is fixed, and
the judge is kept in the cache by the data's checksum, so all runs on the same data are measured by the same network. Figures
of different judges do not compare.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.app.run import Run, load
from engram.checkpoint.files import read_tensors, write_tensors
from engram.core.data import Data
from engram.core.errors import DataError, RunError
from engram.core.recipe import Recipe
from engram.core.snapshot import Snapshot
from engram.data.augment import Augment
from engram.data.sources import cache_folder
from engram.models.cnn import CNN

VERSION = 1  # of the recipe below: raise it when a change would change the features
STEPS, PASSES, BATCH, RATE, DECAY = 800, 30, 128, 6e-3, 0.05  # STEPS, or PASSES over the pictures if that is less
FEATURES = 128
MOST = 60_000  # training pictures
CHUNK = 250  # pictures looked at together

Say = Callable[[str], None]
Look = Callable[[Tensor], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Judge:
    """`look`: uint8 pictures (B, C, H, W) to features (B, D) and class probabilities (B, classes), or None without classes."""

    about: str  # what it is, for people
    look: Look
    classes: tuple[str, ...] = ()
    accuracy: float | None = None  # on the test pictures

    @torch.no_grad()
    def see(self, pictures: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (N, D) float32, and class numbers (N,) or None, of uint8 pictures (N, C, H, W), in chunks."""
        found = [self.look(part) for part in pictures.split(CHUNK)]
        features = torch.cat([f.float().cpu() for f, _ in found])
        return features, torch.cat([p.argmax(1).cpu() for _, p in found if p is not None]) if self.classes else None


class Eye(nn.Module):
    """A small CNN on uint8 pictures (B, C, H, W): logits (B, outputs), and the features (B, 128) before them."""

    def __init__(self, shape: tuple[int, int, int], outputs: int):
        super().__init__()
        channels, height, width = shape
        stages = max(3, min(height, width).bit_length() - 2)  # down to a map of about 4 x 4
        widths = (24, 48, *[96] * (stages - 2))
        net = CNN(channels, (height, width), outputs, widths, (FEATURES,), dropout=0.25)
        self.scale = nn.Buffer(torch.ones(()))  # so that features have mean square 1 over the training pictures
        self.cnn: CNN = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.6 times as fast on CPU

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.cnn(_signed(x))

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(features, logits)."""
        seen = self.cnn.dense(self.cnn.pool(self.cnn.stages(_signed(x))).flatten(1))
        return seen * self.scale, self.cnn.head(seen)

    @torch.no_grad()
    def rescale(self, x: Tensor) -> None:
        """Choose `scale` by pictures (N, C, H, W): distances in the space of the features then have a unit."""
        squares = torch.stack([self.features(part)[0].square().mean() for part in x.split(CHUNK)])
        self.scale.mul_(squares.mean().clamp_min(1e-12).rsqrt())


def learn(x: Tensor, y: Tensor, outputs: int, *, seed: int = 0, steps: int = 0) -> Eye:
    """A classifier of uint8 pictures x (N, C, H, W) with class numbers y (N,), by a fixed recipe: AdamW, warm-up and cosine.

    The same pictures give the same network on the same machine. The global random state is left as it was. `steps`: 0 for those
    of the recipe.
    """
    steps = steps or min(STEPS, PASSES * -(-len(x) // BATCH))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        eye = Eye((x.shape[1], x.shape[2], x.shape[3]), outputs)
        optimizer = torch.optim.AdamW(eye.parameters(), RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(steps):
            if len(order) < min(BATCH, len(x)):
                order = torch.cat([order, torch.randperm(len(x))])
            rows, order = order[:BATCH], order[BATCH:]
            optimizer.zero_grad()
            F.cross_entropy(eye(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return eye.eval()


@torch.no_grad()
def right(eye: Eye, x: Tensor, y: Tensor) -> int:
    """How many of the pictures get their class."""
    return sum(int((eye(a).argmax(1) == b).sum()) for a, b in zip(x.split(CHUNK), y.split(CHUNK), strict=True))


def judge_named(name: str | None, recipe: Recipe, data: Data, say: Say = lambda _: None) -> Judge:
    """The judge that was asked for: a run's folder, a file of Inception weights, or None for our own. Raises RunError."""
    if name and name.endswith(".safetensors"):
        from engram.app.judge_inception import inception_judge

        return inception_judge(Path(name), own_judge(recipe, data, say))
    return run_judge(load(name)) if name else own_judge(recipe, data, say)


def own_judge(recipe: Recipe, data: Data, say: Say = lambda _: None) -> Judge:
    """The judge of a run's data: from the cache, or trained now (about a minute for MNIST on one core) and kept there."""
    spec: Any = data.spec
    shape = (spec.channels, spec.height, spec.width)
    key = repr((data.summary.sha256, shape, spec.classes, VERSION))
    path = cache_folder() / "judges" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    classes, turns = tuple(spec.classes), _turns(shape)
    with contextlib.suppress(RunError):  # missing, or damaged: trained again
        kept = read_tensors(path)
        eye = Eye(shape, len(classes) or turns).eval()
        eye.load_state_dict(kept.tensors)
        return _judge(eye, classes, turns, kept.facts)
    say(f"training the judge of {data.summary.title}, which is then kept in {path.parent}")
    held = plain_data(recipe, seed=0, batch=64)  # whatever the run's seed was, for its accuracy too: no row is in both splits
    x, y = gather(held, "train", MOST)
    x_test, y_test = gather(held, "test" if held.size("test") else "val", MOST)
    if classes and y is not None and y_test is not None:
        eye = learn(x, y, len(classes))
    else:
        x, y = turned(x, turns)
        x_test, y_test = turned(x_test, turns)
        eye = learn(x, y, turns)
    eye.rescale(x[:10_000])
    facts = {"rows": len(x), "accuracy": right(eye, x_test, y_test) / len(x_test), "version": VERSION}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, Snapshot(eye.state_dict(), facts))
    except (OSError, RunError) as error:
        say(f"the judge could not be kept ({error}); it is trained again next time")
    return _judge(eye, classes, turns, facts)


def _judge(eye: Eye, classes: tuple[str, ...], turns: int, facts: dict[str, Any]) -> Judge:
    task = f"{len(classes)} classes" if classes else f"{turns} turns and mirror images"
    about = (
        f"our own CNN with {FEATURES} features, trained on {facts['rows']:,} training pictures to tell {task} apart "
        f"({facts['accuracy']:.1%} of the test pictures right); not Inception, so these figures compare only with each other"
    )

    def look(x: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = eye.features(x)
        return features, logits.softmax(1) if classes else None

    return Judge(about, look, classes, facts["accuracy"])


def run_judge(run: Run) -> Judge:
    """A trained image classifier as the judge: the features are what its last linear layer reads.

    Raises RunError when the run does not classify pictures.
    """
    spec, model = run.spec, run.model
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1:]
    outputs: dict[str, Any] = run.predictor.gives
    classes = tuple(getattr(spec, "classes", ()))
    if not last or "probabilities" not in outputs or not classes:
        raise RunError(f"{run.path} does not classify pictures; give a run of cnn, resnet or vgg: engram train cnn data=...")
    seen: list[Tensor] = []

    def look(x: Tensor) -> tuple[Tensor, Tensor | None]:
        handle = last[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(1)))
        try:
            logits = model(spec.encode(x)["x"].to(last[0].weight.device)).float()
        finally:
            handle.remove()
        return seen.pop(), logits.softmax(1) if logits.shape[1] > 1 else torch.cat([-logits, logits], 1).sigmoid()

    width = last[0].in_features
    return Judge(f"the {run.info['recipe']} of {run.path} with {width} features", look, classes)


def gather(data: Data, split: str, most: int) -> tuple[Tensor, Tensor | None]:
    """uint8 pictures (N, C, H, W) and class numbers (N,), if there are any, of at most `most` rows of a split."""
    spec: Any = data.spec
    std, mean = (torch.tensor(v).view(1, -1, 1, 1) for v in (spec.std, spec.mean))
    x: list[Tensor] = []
    y: list[Tensor] = []
    left = min(most, data.size(split))
    for batch in data.batches(split) if left else ():
        pictures = batch["x"].float().cpu()[:left]
        x.append((pictures * std + mean).mul(255).round().clamp(0, 255).byte())
        if "y" in batch:
            y.append(batch["y"].cpu()[:left])
        left -= len(pictures)
        if left <= 0:
            break
    if not x:
        raise DataError(f"the data has no {split} pictures")
    return torch.cat(x), torch.cat(y) if y and spec.classes else None


def plain_data(recipe: Recipe, **knobs: Any) -> Data:
    """The data of a recipe without augmentation. Raises DataError."""
    names = {f.name for f in dataclasses.fields(recipe)}
    if "augment" in names:
        knobs["augment"] = Augment()
    return dataclasses.replace(recipe, **knobs).make_data()


def turned(x: Tensor, turns: int) -> tuple[Tensor, Tensor]:
    """Pictures in `turns` positions and the numbers of these: each in all of them while there are few, else in one."""
    times = max(1, min(turns, MOST // len(x)))
    y = torch.cat([(torch.arange(len(x)) + j) % turns for j in range(times)])
    x = x.repeat(times, 1, 1, 1)
    for turn in range(turns):
        rows = y == turn
        quarter = turn % 4 if turns == 8 else 2 * (turn % 2)
        part = torch.rot90(x[rows], quarter, (2, 3))
        x[rows] = part.flip(3) if turn >= turns // 2 else part
    return x, y


def _turns(shape: tuple[int, int, int]) -> int:
    """Positions of a picture: quarter turns need it square."""
    return 8 if shape[1] == shape[2] else 4


def _signed(x: Tensor) -> Tensor:
    return (x.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
