"""New pictures by a generator, and what its discriminator says of real and made ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from engram.core.batch import Batch, rows
from engram.core.errors import ConfigError, did_you_mean
from engram.core.predictor import Field, Figure, Scores, View
from engram.core.spec import Spec
from engram.inference.pictures import Ask, Drawn, Pictures
from engram.nn.noise import RowNoise
from engram.nn.sliced import directions, transport

SEED = 0  # of the pictures that figures and views compare with real ones
BINS = 40
SEEN = 2000  # pictures that the views look at
HOTTEST = 2.0  # highest temperature


class Adversary(Pictures):
    """`generator` (z, y) -> pictures, `discriminator` (x, y) -> scores, which also has `by_class` where there are classes.

    Sampling takes `label`, a class (without one, classes come as often as in training), and `temperature`: the latents are
    multiplied by it, so that less than 1 gives more usual pictures and fewer kinds, as truncation does (Brock et al. 2019,
    section 3.1), and 0 the mean one. `score` is the discriminator's: above 0 it takes a picture for a real one (with wgan_gp
    only differences count). A picture without a class gets the score of the class that suits it best.
    """

    gives: ClassVar = {"score": Field("number", "the discriminator's score: the higher, the more real it looks")}
    verbs: ClassVar = frozenset({"sample"})
    options: ClassVar = frozenset({"label", "temperature"})

    def __init__(self, generator: torch.nn.Module, discriminator: torch.nn.Module, spec: Spec, latent: int, classes: int = 0):
        self.generator, self.discriminator, self.spec = generator, discriminator, spec
        self.latent, self.classes = latent, classes
        self.device = next(generator.parameters()).device

    def checked(self, ask: Ask) -> Ask:
        """Fills in temperature 1. Raises ConfigError on one outside 0..2, and on a class that the run does not know."""
        if ask.temperature is not None and not 0 <= ask.temperature <= HOTTEST:
            raise ConfigError(f"temperature={ask.temperature} must be 0 to {HOTTEST:g}; 1 is as trained")
        names: tuple[str, ...] = self.spec.classes if self.classes else ()  # type: ignore[attr-defined]
        if ask.label is not None and ask.label not in names:
            if not names:
                raise ConfigError("this run knows no classes; train with conditional=true on pictures that have some")
            raise ConfigError(f"there is no class {ask.label!r}{did_you_mean(ask.label, names)}; there are {', '.join(names)}")
        return dataclasses.replace(ask, temperature=1.0 if ask.temperature is None else ask.temperature)

    def draw(self, ask: Ask, noise: RowNoise, rows: int) -> Drawn:
        """See Pictures.draw."""
        warmth = 1.0 if ask.temperature is None else ask.temperature
        z, chance = noise.normal(self.latent) * warmth, noise.uniform()
        return Drawn(self._made(z, self._labels(ask.label, chance)))

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"score": (B,)}, of the class in `y` where the batch has one."""
        with torch.inference_mode():
            x = batch["x"].to(self.device)
            y = batch["y"].to(self.device) if self.classes and "y" in batch else None
            return {"score": self._score(x, y).float().cpu()}

    def __call__(self, *, images: Any) -> dict[str, list[Any]]:
        """{"score": one number per picture}."""
        return {"score": self.outputs(self.spec.encode(images))["score"].tolist()}

    @torch.no_grad()
    def scores(self, batches: Iterable[Batch], rows: Iterable[list[Any]]) -> Scores | None:
        """`swd`, the sliced Wasserstein distance between the pictures and as many made ones of the same classes; the mean
        scores of both; and how often the real one of a pair scores higher. Keeps some 128 numbers per picture."""
        real, fake, told = [], [], []
        for x, made, y in self._pairs(batches):
            along = directions((x.shape[1], x.shape[2], x.shape[3])).to(x.device)
            real.append(x.flatten(1) @ along)
            fake.append(made.flatten(1) @ along)
            r, f = self._score(x, y), self._score(made, y)
            told.append(torch.stack([r, f, (r > f).float()], 1))
        if not real:
            return None
        ways = transport(torch.cat(real), torch.cat(fake))
        parts = torch.cat([torch.ones_like(ways)[:, None], ways[:, None], torch.cat(told)], 1).double().cpu()

        def mean(column: int) -> Callable[[Tensor], Tensor]:
            return lambda sums: sums[:, column] / sums[:, 0]

        figures = {
            "swd": Figure("sliced Wasserstein distance", mean(1)),
            "real": Figure("mean score, real", mean(2)),
            "fake": Figure("mean score, made", mean(3)),
            "right": Figure("real scores higher", mean(4), "percent"),
        }
        return Scores(figures, parts, of="pictures", beside=_halves(torch.cat(real)))

    @torch.no_grad()
    def views(self, batches: Callable[[], Iterable[Batch]]) -> Iterator[View]:
        """Made pictures, and how often each score is given to real and to made ones."""
        grid = next(self._chunks(40, SEED, 40, self.checked(Ask())))
        made = torch.from_numpy(grid.arrays).permute(0, 3, 1, 2)
        yield View("samples", "The first 40 pictures of seed 0", "pictures", {"columns": 10, "captions": []}, made)
        real, fake, seen = [], [], 0
        for x, other, y in self._pairs(batches()):
            real.append(self._score(x, y))
            fake.append(self._score(other, y))
            seen += len(x)
            if seen >= SEEN:
                break
        if not real:
            return
        held = {"real": torch.cat(real).float().cpu(), "made": torch.cat(fake).float().cpu()}
        low, high = (float(getattr(torch.cat(list(held.values())), end)()) for end in ("min", "max"))
        high = high if high > low else low + 1
        edges = torch.linspace(low, high, BINS + 1)
        shares = {name: torch.histc(v, BINS, low, high).div(len(v)).tolist() for name, v in held.items()}
        middles = ((edges[1:] + edges[:-1]) / 2).tolist()
        data = {"x": middles, "series": shares, "xlabel": "score", "ylabel": "share of pictures"}
        yield View("scores", "Scores of real and made pictures", "lines", data)

    def _pairs(self, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Real pictures, as many made ones, and the classes of both (None where there are none)."""
        first = 0
        for batch in batches:
            x = batch["x"].to(self.device)
            noise = RowNoise(SEED, first, rows(batch), self.device)
            z, chance = noise.normal(self.latent), noise.uniform()
            y = batch["y"].to(self.device) if self.classes and "y" in batch else None
            yield x, self._made(z, self._labels(None, chance) if y is None else y), y
            first += len(x)

    def _made(self, z: Tensor, y: Tensor | None) -> Tensor:
        return (self.generator(z) if y is None else self.generator(z, y)).float()

    def _labels(self, label: str | None, chance: Tensor) -> Tensor | None:
        """(B,) class numbers: the one asked for, or each as often as in training."""
        if not self.classes:
            return None
        spec: Any = self.spec
        if label is not None:
            return torch.full(chance.shape, spec.classes.index(label), device=self.device)
        counts = torch.tensor(spec.class_counts or (1,) * self.classes, dtype=torch.float64)
        shares = counts.cumsum(0) / counts.sum()
        return torch.searchsorted(shares, chance.double().cpu(), right=True).clamp(max=self.classes - 1).to(self.device)

    def _score(self, x: Tensor, y: Tensor | None) -> Tensor:
        if not self.classes:
            return self.discriminator(x)
        return self.discriminator(x, y) if y is not None else self.discriminator.by_class(x).amax(1)  # type: ignore[operator]


def _halves(real: Tensor) -> str:
    """What two sets of real pictures are apart: as near as made ones can come."""
    half = len(real) // 2
    if not half:
        return ""
    apart = float(transport(real[0 : 2 * half : 2], real[1 : 2 * half : 2]).mean())
    return f"two halves of the real ones are {apart:.3g} apart"
