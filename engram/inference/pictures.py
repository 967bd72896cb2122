"""What predictors of pictures have in common: drawing new ones by seed, in chunks, and coding those that are given."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from engram.core.errors import ConfigError
from engram.core.predictor import Field, Predictor
from engram.nn.noise import RowNoise

Verb = Literal["sample", "encode", "reconstruct", "denoise"]
MOST = 1_000_000  # pictures in one call
FRAMES = 100  # steps that a film keeps: a thousand would fill gigabytes and last minutes


@dataclass(frozen=True)
class Ask:
    """What new pictures shall be; None leaves it to the network."""

    steps: int | None = None  # denoising steps
    guidance: float | None = None  # 1 = as the network learned, more = closer to what is asked
    sampler: str | None = None
    label: str | None = None  # the name of a class
    prompt: str | None = None
    negative: str | None = None  # what the pictures shall not show
    temperature: float | None = None
    top_k: int | None = None
    image: Tensor | None = None  # (C, H, W) as the network reads it: to start from, or to fill in
    strength: float | None = None  # how much of `image` may change, 0 to 1
    mask: Tensor | None = None  # (H, W) bool: True = make anew
    keep_steps: bool = False  # a film of how they come to be


@dataclass(frozen=True)
class Drawn:
    """One chunk, as the network reads pictures: float (B, C, H, W). The film of it is uint8 (B, C, H, W) on the CPU."""

    x: Tensor
    steps: list[Tensor] = field(default_factory=list)  # what there was after the steps that `frames` names
    guesses: list[Tensor] = field(default_factory=list)  # the clean picture that was expected at each of them
    attention: Tensor | None = None


@dataclass(frozen=True)
class Sampled:
    """One chunk for people: uint8 arrays (B, H, W, C), and Pillow images of them."""

    first: int  # the number of its first picture
    arrays: Any  # numpy uint8 (B, H, W, C)
    images: list[Any]  # PIL.Image
    steps: list[Any] = field(default_factory=list)  # arrays, one per frame of the film, which the first chunk alone has
    guesses: list[Any] = field(default_factory=list)


class Pictures(Predictor, ABC):
    """A network that makes, codes or cleans pictures. `spec` knows their shape and what numbers the network reads."""

    takes: ClassVar = {"images": Field("input", "a picture, a list of them, a path, an array or a tensor")}
    verbs: ClassVar[frozenset[Verb]] = frozenset()
    options: ClassVar[frozenset[str]] = frozenset()  # the fields of Ask that it understands
    films: ClassVar[bool] = False  # whether pictures come to be in steps, which `keep_steps` keeps

    device: torch.device = torch.device("cpu")

    def draw(self, ask: Ask, noise: RowNoise, rows: int) -> Drawn:
        """`rows` new pictures. Everything random comes from `noise`."""
        raise ConfigError("this run makes no new pictures")

    def checked(self, ask: Ask) -> Ask:
        """The wishes with what was left open filled in. Raises ConfigError on what is out of range."""
        return ask

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, ...) of pictures (B, C, H, W)."""
        raise ConfigError("this run does not code pictures")

    def reconstruct(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) from the codes of the given ones."""
        raise ConfigError("this run does not code pictures")

    def denoise(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) without their noise."""
        raise ConfigError(
            "this run does not clean pictures; one trained with noise does: engram train conv_autoencoder noise=gaussian"
        )

    def ask(self, **wishes: Any) -> Ask:
        """An Ask of what was given. Raises ConfigError on a wish that this network does not understand."""
        given = {name: value for name, value in wishes.items() if value is not None and value is not False}
        known = {f.name for f in dataclasses.fields(Ask)}
        for name in given:
            if name not in known or (name not in self.options and name != "keep_steps"):
                can = ", ".join(sorted(self.options)) or "n and seed only"
                raise ConfigError(f"{name}={_short(given[name])} means nothing to this run; its samples take {can}")
        if given.get("keep_steps") and not self.films:
            raise ConfigError("this run makes its pictures in one go: there is no film of the steps")
        if (mask := given.get("mask")) is not None and not mask.any():
            raise ConfigError("the mask is black all over, so nothing would be drawn; what is white is made anew")
        return self.checked(Ask(**given))

    @torch.no_grad()
    def sample(self, n: int = 16, *, seed: int = 0, chunk: int = 64, **wishes: Any) -> Iterator[Sampled]:
        """`n` new pictures, `chunk` at a time so that memory is bounded; picture i of a seed is always the same one.

        Raises ConfigError on wishes that mean nothing to this network or are out of range, before anything is drawn.
        """
        if "sample" not in self.verbs:
            raise ConfigError("this run makes no new pictures; a vae, gan, ddpm, dit, latent_diffusion or image_gpt does")
        if not 1 <= n <= MOST:
            raise ConfigError(f"n={n} must be 1 to {MOST:,}")
        if chunk < 1:
            raise ConfigError(f"chunk={chunk} must be at least 1")
        return self._chunks(n, seed, chunk, self.ask(**wishes))

    def _chunks(self, n: int, seed: int, chunk: int, ask: Ask) -> Iterator[Sampled]:
        for first in range(0, n, chunk):
            rows = min(chunk, n - first)
            with torch.no_grad():
                drawn = self.draw(ask, RowNoise(seed, first, rows, self.device), rows)
            arrays = self.arrays(drawn.x)
            films = [[x.permute(0, 2, 3, 1).contiguous().numpy() for x in film] for film in (drawn.steps, drawn.guesses)]
            ask = dataclasses.replace(ask, keep_steps=False)
            yield Sampled(first, arrays, [self.spec.picture(x) for x in drawn.x], *films)  # type: ignore[attr-defined]

    def arrays(self, x: Tensor) -> Any:
        """uint8 (B, H, W, C) of pictures as the network reads them."""
        return self.to_uint8(x).permute(0, 2, 3, 1).contiguous().numpy()

    def to_uint8(self, x: Tensor) -> Tensor:
        """uint8 (B, C, H, W) on the CPU."""
        return to_uint8(x, self.spec)

    @abstractmethod
    def __call__(self, *, images: Any) -> dict[str, list[Any]]:
        """One number per picture, under the names in `gives`."""


def frames(steps: int, most: int = FRAMES) -> list[int]:
    """Which of so many steps a film shows: all of them, or `most` spread evenly, the first and the last among them."""
    return torch.linspace(0, steps - 1, min(most, steps)).round().long().tolist()


def to_uint8(x: Tensor, spec: Any) -> Tensor:
    """Pictures (B, C, H, W) as the network reads them to uint8 on the CPU; `spec` holds the mean and std of each channel."""
    x = x.detach().float().cpu()
    std, mean = (torch.tensor(v).view(1, -1, 1, 1) for v in (spec.std, spec.mean))
    return (x * std + mean).mul(255).round().clamp(0, 255).byte()


def _short(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:60]
