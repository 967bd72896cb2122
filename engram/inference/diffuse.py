"""A trained diffusion in use: new pictures, pictures changed or filled in, how noise becomes a picture, and a bound in bits."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from engram.core.batch import Batch, rows
from engram.core.errors import ConfigError, did_you_mean
from engram.core.predictor import Field, Figure, Scores, View
from engram.core.spec import Spec
from engram.inference.guidance import guided
from engram.inference.pictures import Ask, Drawn, Pictures, frames
from engram.inference.samplers import SAMPLERS, Known, sample, spacing, start
from engram.nn.diffusion_bound import bound
from engram.nn.noise import RowNoise, row_normal
from engram.nn.schedule import Schedule

TIMES = 4  # levels of noise at which the error of a picture is measured
SCORED, DRAWS = 1024, 4  # test pictures of the bound, and draws of each
MOST_STEPS, MOST_GUIDANCE = 2000, 50.0
STRENGTH = 0.6  # of changing a given picture
REPEATS = 2  # of each step when part of a picture is known
FILM = 8  # frames of the film in the report
BIG = 1e6


class Diffuser(Pictures):
    """`network(x, t, condition)` predicts what `schedule` says; condition is a class number, or `len(classes)` for none.

    Sampling takes steps, sampler, and with classes label and guidance; image with strength starts from a given picture with
    noise in it, image with mask draws the white part of the mask anew (RePaint). `error` is the squared error of the
    network's answer at four levels of noise, the same noise for every picture: high for pictures unlike the training's.
    `drops`: whether training left classes out, without which there is no guidance.
    """

    gives: ClassVar = {"error": Field("number", "how badly its noise is told from it, over four levels: high for odd pictures")}
    verbs: ClassVar = frozenset({"sample"})
    films: ClassVar = True

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        spec: Spec,
        shape: tuple[int, int, int],
        classes: tuple[str, ...] = (),
        *,
        steps: int = 20,
        sampler: str = "dpm++",
        guidance: float = 1.0,
        step: float = 2 / 255,
        limits: tuple[float, float] | None = None,
        drops: bool = True,
    ):
        self.drops = drops
        self.schedule, self.spec, self.shape, self.classes = schedule, spec, shape, classes
        self.steps, self.sampler, self.guidance, self.step, self.limits = steps, sampler, guidance, step, limits
        self.given = network  # as it was trained
        self.network, self.dtype, self.layout = network, torch.float32, torch.contiguous_format
        self.device = next(network.parameters()).device

    @property
    def options(self) -> frozenset[str]:  # type: ignore[override]
        """See Pictures.options; classes add label and guidance."""
        always = frozenset({"steps", "sampler", "image", "strength", "mask"})
        return always | {"label", "guidance"} if self.classes else always

    def tune(self, *, bf16: bool, channels_last: bool) -> None:
        """A copy of the network in bfloat16 and channels-last; what goes in and comes out stays float32."""
        self.dtype = torch.bfloat16 if bf16 else torch.float32
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        copied = copy.deepcopy(self.given).eval().to(self.dtype)
        self.network = copied.to(memory_format=self.layout)  # type: ignore[call-overload]

    def call(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """The network in its number format and layout; float32 out."""
        return self.network(x.to(self.dtype, memory_format=self.layout), t, condition).float()

    # ------------------------------------------------------------------------------------------------------ new pictures

    def checked(self, ask: Ask) -> Ask:
        """See Pictures.checked."""
        steps = self.steps if ask.steps is None else ask.steps
        guidance = self.guidance if ask.guidance is None else ask.guidance
        sampler = ask.sampler or self.sampler
        if not 1 <= steps <= MOST_STEPS:
            raise ConfigError(f"steps={steps} must be 1 to {MOST_STEPS:,}; {self.steps} is usual")
        if not 0 <= guidance <= MOST_GUIDANCE:
            raise ConfigError(f"guidance={guidance} must be 0 to {MOST_GUIDANCE:g}; 1 is as learned, 1.5 to 4 usual")
        if sampler not in SAMPLERS:
            raise ConfigError(f"no sampler {sampler!r}{did_you_mean(sampler, SAMPLERS)}; there are {', '.join(SAMPLERS)}")
        if ask.label is not None and ask.label not in self.classes:
            near = did_you_mean(ask.label, self.classes)
            raise ConfigError(f"no class {ask.label!r}{near}; there are {', '.join(self.classes[:20])}")
        if ask.image is None and (ask.mask is not None or ask.strength is not None):
            raise ConfigError(
                f"{'mask' if ask.mask is not None else 'strength'} needs the picture that it is about; give image"
            )
        if ask.image is not None and ask.label is None and ask.guidance is not None:
            raise ConfigError(
                "guidance pulls towards a class, and with an image none is meant unless it is named; give the class too"
            )
        if self.classes and not self.drops:
            if guidance != 1:
                raise ConfigError(f"this run was always told its class: guidance={guidance} must be 1, or train with drop=0.1")
            if ask.image is not None and ask.label is None:
                raise ConfigError("this run was always told its class: name that of the image too, or train with drop=0.1")
        strength = ask.strength if ask.strength is not None else 1.0 if ask.mask is not None or ask.image is None else STRENGTH
        if not 0 < strength <= 1:
            raise ConfigError(f"strength={strength} must be above 0 and at most 1; 1 keeps nothing of the picture")
        return dataclasses.replace(ask, steps=steps, guidance=guidance, sampler=sampler, strength=strength)

    def draw(self, ask: Ask, noise: RowNoise, rows: int) -> Drawn:
        """See Pictures.draw. The first noise comes first, so a seed means the same start for every class and sampler."""
        assert ask.steps is not None
        assert ask.strength is not None
        first, condition = noise.normal(*self.shape), None
        if self.classes and (ask.image is None or ask.label is not None):  # else the given picture says what it is
            condition = self._labels(ask.label, noise.uniform())
        image = None if ask.image is None else ask.image.to(self.device)[None]
        x = start(self.schedule, first, image, ask.strength)
        known = None
        if image is not None and ask.mask is not None:
            known = Known(image, ask.mask.to(self.device)[None, None], REPEATS)
        sampler = ask.sampler or self.sampler
        times = self.schedule.times(max(1, round(ask.steps * ask.strength)), spacing(self.schedule, sampler), ask.strength)
        steps, guesses = [], []
        kept = set(frames(len(times) - 1)) if ask.keep_steps else set()
        guess = self._guess(condition, ask.guidance)
        for taken in sample(self.schedule, guess, x, times, sampler, noise=noise, known=known):
            x = taken.x
            if taken.number in kept:
                steps.append(self.to_uint8(self._scaled(x, taken.t)))
                guesses.append(self.to_uint8(taken.guess))
        return Drawn(x if self.limits is None else x.clamp(*self.limits), steps, guesses)

    def _guess(self, condition: Tensor | None, guidance: float | None) -> Callable[[Tensor, Tensor], Tensor]:
        without = None if condition is None else torch.full_like(condition, len(self.classes))
        strength = 1.0 if guidance is None or condition is None else guidance
        return guided(self.call, self.schedule, condition, without, strength, self.limits)

    def _scaled(self, x: Tensor, t: float) -> Tensor:
        """Noisy pictures at time t, brought to the range of pictures to be looked at."""
        alpha, sigma = self.schedule.alpha_sigma(torch.tensor(t))
        return x / (alpha.square() + sigma.square()).sqrt().to(x)

    def _labels(self, label: str | None, chance: Tensor) -> Tensor:
        """(B,) class numbers: the one asked for, or each as often as in training."""
        if label is not None:
            return torch.full(chance.shape, self.classes.index(label), device=self.device)
        counts = torch.tensor(self.spec.class_counts or (1,) * len(self.classes), dtype=torch.float64)  # type: ignore[attr-defined]
        shares = counts.cumsum(0) / counts.sum()
        found = torch.searchsorted(shares, chance.double().cpu(), right=True)
        return found.clamp(max=len(self.classes) - 1).to(self.device)

    # ----------------------------------------------------------------------------------------------------- given pictures

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"error": (B,)}."""
        return {"error": self._errors(batch["x"].to(self.device)).mean(0).cpu()}

    def __call__(self, *, images: Any) -> dict[str, list[Any]]:
        """{"error": one number per picture}."""
        return {"error": self.outputs(self.spec.encode(images))["error"].tolist()}

    def _errors(self, x: Tensor) -> Tensor:
        """(TIMES, B): mean squared error of the prediction at each level of noise, not told the class; where training always
        told it, told the one that explains the picture best."""
        if not self.classes or self.drops:
            return self._errors_told(x, None)
        kinds = torch.arange(len(self.classes), device=self.device)
        each = torch.stack([self._errors_told(x, kind.expand(len(x))) for kind in kinds])
        return each[each.mean(1).argmin(0), :, torch.arange(len(x), device=self.device)].T

    @torch.no_grad()
    def _errors_told(self, x: Tensor, condition: Tensor | None) -> Tensor:
        noise = row_normal(0, 0, TIMES, self.shape, self.device)
        found = []
        for number in range(TIMES):
            t = self.schedule.training_time(torch.full((len(x),), (number + 0.5) / TIMES, device=self.device))
            mine = noise[number].expand_as(x)
            noisy = self.schedule.noisy(x, mine, t)
            error = self.call(self.schedule.network_input(noisy, t), t, condition) - self.schedule.target(x, mine, t)
            found.append(error.square().flatten(1).mean(1))
        return torch.stack(found)

    @torch.no_grad()
    def scores(self, batches: Iterable[Batch], rows: Iterable[list[Any]]) -> Scores | None:
        """The bound of the first pictures of the split; where the network knows classes, given the picture's class."""
        parts, first = [], 0
        for batch in batches:
            x = batch["x"][: SCORED - first].to(self.device)
            y = batch["y"][: len(x)].to(self.device) if self.classes and "y" in batch else None
            noise = RowNoise(0, first, len(x), self.device)
            first += len(x)
            offset = noise.uniform()
            draws = [self._nats(x, noise.normal(*self.shape), (offset + n) / DRAWS, y) for n in range(DRAWS)]
            nats = torch.stack(draws).mean(0).double().cpu()
            parts.append(torch.stack([nats, torch.ones_like(nats)], 1))
            if first >= SCORED:
                break
        if not parts:
            return None
        bits = math.prod(self.shape) * math.log(2)
        given = " given its class" if self.classes else ""
        figures = {
            "bits": Figure(f"bits per number of a picture{given}, at most", lambda s: s[:, 0] / s[:, 1] / bits),
            "nats": Figure(f"nats per picture{given}, at most", lambda s: s[:, 0] / s[:, 1]),
        }
        return Scores(figures, torch.cat(parts), of="pictures", beside="knowing nothing takes 8 bits")

    def _nats(self, x: Tensor, noise: Tensor, u: Tensor, y: Tensor | None) -> Tensor:
        return bound(self.call, self.schedule, x, noise, u, self.step, y)

    # -------------------------------------------------------------------------------------------------------------- inside

    @torch.no_grad()
    def views(self, batches: Callable[[], Iterable[Batch]]) -> Iterator[View]:
        """The denoising film, the same noise for every class, and the error at each level of noise."""
        drawn = self.draw(self.checked(Ask(keep_steps=True)), RowNoise(0, 0, 4, self.device), 4)
        at = frames(len(drawn.steps), FILM)
        film = torch.stack([f for n in at for f in (drawn.steps[n], drawn.guesses[n])])  # (2 F, 4, C, H, W)
        film = film.unflatten(0, (len(at), 2)).permute(2, 1, 0, 3, 4, 5).flatten(0, 2)
        title = "Noise becomes a picture: each second row is the clean picture expected at that step"
        yield View("denoising-film", title, "pictures", {"columns": len(at), "captions": []}, film)
        if self.classes:
            yield self._by_class()
        batch = next(iter(batches()), None)
        if batch is not None and rows(batch):
            errors = self._errors(batch["x"][:256].to(self.device)).mean(1)
            levels = [(n + 0.5) / TIMES for n in range(TIMES)]
            t = self.schedule.training_time(torch.tensor(levels))
            snr = self.schedule.log_snr(t).clamp(-BIG, BIG)
            order = snr.argsort()
            data = {"x": snr[order].tolist(), "series": {"error": errors.cpu()[order].tolist()},
                    "xlabel": "log of signal to noise", "ylabel": "squared error"}  # fmt: skip
            yield View("error-by-noise", "Squared error of the network's answer by the level of noise", "lines", data)

    def _by_class(self) -> View:
        """Four starts, each for every class."""
        shown = self.classes[:10]
        made = [self.draw(self.checked(Ask(label=name)), RowNoise(0, 0, 4, self.device), 4).x for name in shown]
        title = f"The same noise for every class: {', '.join(shown)}"
        pictures = self.to_uint8(torch.stack(made, 1).flatten(0, 1))
        return View("by-class", title, "pictures", {"columns": len(shown), "captions": []}, pictures)
