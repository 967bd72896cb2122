"""engram new: a recipe file of your own to start from."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

import click

from engram.app.cli.output import emit, say
from engram.core.errors import ConfigError
from engram.recipes import names

TEMPLATE = '''"""{title}: your own network. Try it: engram train {file} epochs=5"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from engram import Recipe, knob
from engram.data.image_spec import ImageSpec
from engram.data.images import images
from engram.inference.classify import Classifier
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.classify import Classify


class Net(nn.Module):
    """Images (B, channels, H, W) to logits (B, classes). Any nn.Module will do."""

    def __init__(self, pixels: int, hidden: int, classes: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@dataclass(frozen=True, kw_only=True)
class {name}(Recipe):
    """Every field is a knob: `engram train {file} hidden=128 optim.lr=0.01`."""

    specs: ClassVar = (ImageSpec,)

    data: Any = knob("digits", "digits, mnist, fashion_mnist, or a folder of images per class")
    hidden: int = knob(64, "width of the hidden layer", low=1)
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=1e-3), "optimizer and schedule")

    def make_data(self):
        return images(self.data, batch=self.batch, seed=self.seed)

    def make_task(self, spec):
        return Classify(Net(spec.channels * spec.height * spec.width, self.hidden, len(spec.classes)))

    def make_optims(self, task):
        return {{"model": build(task, self.optim)}}

    def make_predictor(self, task, spec):
        return Classifier(task.get_submodule("model"), spec, spec.classes)
'''


@click.command("new")
@click.argument("name", type=click.Path())
def command(name: str) -> None:
    """Write NAME.py, a recipe of your own to start from.

    It holds a small network and trains as it is.
    """
    path = Path(name if name.endswith(".py") else f"{name}.py")
    word = path.stem
    if not re.fullmatch(r"[A-Za-z]\w*", word) or keyword.iskeyword(word):
        raise ConfigError(f"{word!r} cannot be the name of a recipe; use letters, digits and _, starting with a letter")
    if word in names():
        raise ConfigError(f"{word} is a built-in recipe; choose another name")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent}; make it first")
    words = [part for part in word.split("_") if part]
    text = TEMPLATE.format(title=word, file=path, name="".join(part[:1].upper() + part[1:] for part in words))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} exists already; choose another name or delete it") from None
    emit(str(path))
    say(f"next: engram train {path}")
