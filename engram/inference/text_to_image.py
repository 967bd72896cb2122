"""Words to pictures by latent diffusion: noise in the codes of an autoencoder becomes a code, and the code a picture.

Papers: Rombach et al. 2022; guidance and negative prompts: Ho & Salimans 2022; image to image: Meng et al. 2022, "SDEdit",
section 3 (start from the given picture with noise in it).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.errors import ConfigError
from engram.core.predictor import Field, Figure, Scores, View
from engram.inference.guidance import guided
from engram.inference.pictures import Ask, Drawn, Pictures, frames
from engram.inference.samplers import SAMPLERS, Known, sample, spacing, start
from engram.inference.word_maps import Looks, word_views
from engram.nn.noise import RowNoise
from engram.nn.psnr import squared_error
from engram.nn.schedule import Schedule

STEPS_MOST, STRONGEST = 1000, 20.0
SHOWN = 4  # captions of the views
FILM = 8  # pictures of the film of a denoising


class TextToImage(Pictures):
    """`vae`, `text` and `unet` as engram.tasks.latent_denoise trains them; `spec` holds the words (CaptionSpec).

    Sampling takes `prompt` (without one, any picture), `negative` (what it shall not show), `guidance`, `steps`, `sampler`;
    `image` with `strength` to start from a picture, with `mask` to make only the marked part of it anew. `sampler`, `steps`
    and `guidance` of the constructor hold where none are asked for. `drops`: whether training left captions out, without which
    there are no pictures of no prompt, and no guidance away from none. `error`: of a picture that went through the autoencoder.
    """

    gives: ClassVar = {"error": Field("number", "mean squared error of the picture after coding and decoding, pixels 0 to 1")}
    verbs: ClassVar = frozenset({"sample", "encode", "reconstruct"})
    films: ClassVar = True
    options: ClassVar = frozenset({"prompt", "negative", "guidance", "steps", "sampler", "image", "strength", "mask"})

    def __init__(
        self,
        vae: nn.Module,
        text: nn.Module,
        unet: nn.Module,
        schedule: Schedule,
        spec: Any,
        sampler: str = "dpm++",
        steps: int = 20,
        guidance: float = 3.0,
        drops: bool = True,
    ):
        self.vae, self.text, self.unet, self.schedule, self.spec = vae, text, unet, schedule, spec
        self.sampler, self.steps, self.guidance, self.drops = sampler, steps, guidance, drops
        self.words: Any = spec
        self.codec: Any = vae
        self.shape = (self.codec.code, *self.codec.grid)
        self.device = next(vae.parameters()).device

    # ------------------------------------------------------------------------------------------------------ new pictures

    def checked(self, ask: Ask) -> Ask:
        """Fills in what was left open. Raises ConfigError on what is out of range, DataError on words that the captions of the
        training never used."""
        asked = ask.prompt is not None or ask.negative is not None
        guidance = ask.guidance if ask.guidance is not None else self.guidance if asked else 1.0
        steps, sampler = self.steps if ask.steps is None else ask.steps, ask.sampler or self.sampler
        strength = ask.strength if ask.strength is not None else 1.0 if ask.mask is not None else 0.6
        if not 0 <= guidance <= STRONGEST:
            raise ConfigError(f"guidance={guidance:g} must be 0 to {STRONGEST:g}; 1 is as learned, 3 holds close to the prompt")
        if not 1 <= steps <= STEPS_MOST:
            raise ConfigError(f"steps={steps} must be 1 to {STEPS_MOST}; {self.steps} are usual here")
        if sampler not in SAMPLERS:
            raise ConfigError(f"there is no sampler {sampler!r}; there are {', '.join(SAMPLERS)}")
        if not 0 < strength <= 1:
            raise ConfigError(f"strength={strength:g} must be above 0 (keep nearly all) and at most 1 (keep nothing)")
        if ask.image is None and (ask.strength is not None or ask.mask is not None):
            raise ConfigError("strength and mask say what to keep of a picture: give image too")
        if not asked and ask.guidance not in (None, 1):
            raise ConfigError("guidance needs a prompt to hold to: give prompt too")
        if ask.negative is not None and guidance == 1:
            raise ConfigError(f"negative counts only with guidance: set guidance above 1, such as {max(self.guidance, 2):g}")
        for wish, words in (("prompt", ask.prompt), ("negative", ask.negative)):
            told = self.words.encode_prompts([words or ""])["lengths"].all()
            if not told and not self.drops and (wish == "prompt" or guidance != 1):
                why = "" if wish == "prompt" else f" with guidance={guidance:g}"
                raise ConfigError(f"this run was always told a caption: give {wish} too{why}, or train with drop=0.1")
        return dataclasses.replace(ask, guidance=guidance, steps=steps, sampler=sampler, strength=strength)

    def draw(self, ask: Ask, noise: RowNoise, rows: int) -> Drawn:
        """See Pictures.draw. With keep_steps, codes on the way and the clean ones expected there are decoded."""
        return self.draw_each(self._condition([ask.prompt or ""]).expand(rows, -1, -1), ask, noise)

    def draw_each(self, condition: Tensor, ask: Ask, noise: RowNoise) -> Drawn:
        """One picture per row of `condition`, as `text` gives it; `ask`, as `checked` gives it, says how to draw."""
        guidance, strength = ask.guidance or 0.0, ask.strength or 1.0
        without = self._condition([ask.negative or ""]).expand(len(condition), -1, -1)
        guess = guided(self.unet, self.schedule, condition, without, guidance)
        given = None if ask.image is None else self.encode(ask.image[None])
        known = None if given is None or ask.mask is None else Known(given, self._places(ask.mask))
        first = strength if given is not None else 1.0
        z = start(self.schedule, noise.normal(*self.shape), given if first < 1 else None, first)
        sampler = ask.sampler or self.sampler
        spread = spacing(self.schedule, sampler) if self.schedule.kind == "edm" else "time"  # codes of runs were drawn so
        times = self.schedule.times(max(1, round(first * (ask.steps or self.steps))), spread, first)
        steps: list[Tensor] = []
        guesses: list[Tensor] = []
        kept = set(frames(len(times) - 1)) if ask.keep_steps else set()
        for step in sample(self.schedule, guess, z, times, sampler, noise=noise, known=known):
            z = step.x
            if step.number in kept:
                steps.append(self.to_uint8(self.codec.pictures(step.x)))
                guesses.append(self.to_uint8(self.codec.pictures(step.guess)))
        return Drawn(self._kept(self.codec.pictures(z).float(), ask), steps, guesses)

    # ----------------------------------------------------------------------------------------------------- given pictures

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, code, *grid) of mean 0 and deviation 1."""
        with torch.no_grad():
            return self.codec(x.to(self.device)).float()

    def reconstruct(self, x: Tensor) -> Tensor:
        """Pictures as their codes tell them."""
        with torch.no_grad():
            return self.codec.pictures(self.encode(x)).float()

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"error": (B,)}."""
        return {"error": self._lost(batch["x"].to(self.device)).cpu()}

    def __call__(self, *, images: Any) -> dict[str, list[Any]]:
        """{"error": one number per picture}; captions are not read."""
        return {"error": self.outputs(self.words.encode(images))["error"].tolist()}

    @torch.no_grad()
    def scores(self, batches: Iterable[Batch], rows: Iterable[list[Any]]) -> Scores | None:
        """`loss` of denoising given the caption, and how much of it the caption saves, by fixed noise; the codec's PSNR."""
        parts, first = [], 0
        for batch in batches:
            x = batch["x"].to(self.device)
            numbers = RowNoise(0, first, len(x), self.device)
            first += len(x)
            codes, noise, t = self.encode(x), numbers.normal(*self.shape), self.schedule.training_time(numbers.uniform())
            noisy = self.schedule.network_input(self.schedule.noisy(codes, noise, t), t)
            target = self.schedule.target(codes, noise, t)
            told, untold = (
                squared_error(self.unet(noisy, t, condition), target)
                for condition in (self._told(batch), self._condition([""]).expand(len(x), -1, -1))
            )
            parts.append(torch.stack([torch.ones_like(told), told, untold, self._lost(x)], 1).double().cpu())
        if not parts:
            return None
        figures = {
            "loss": Figure("mean squared error of denoising given the caption", lambda s: s[:, 1] / s[:, 0]),
            "words": Figure("share of the error that knowing the caption saves", lambda s: 1 - s[:, 1] / s[:, 2]),
            "psnr": Figure("decibels of the autoencoder, over all pixels", lambda s: -10 * (s[:, 3] / s[:, 0]).log10()),
        }
        if not self.drops:
            del figures["words"]  # without any it was never trained
        return Scores(figures, torch.cat(parts), of="pictures", beside="a network that says nothing has 1")

    # -------------------------------------------------------------------------------------------------------------- inside

    @torch.no_grad()
    def views(self, batches: Callable[[], Iterable[Batch]]) -> Iterator[View]:
        """Samples of captions beside the real pictures, where each word acts, a denoising step by step, the autoencoder."""
        first = next(iter(batches()), None)
        if first is None:
            return
        if "tokens" in first:
            x, said = first["x"][:SHOWN], [self.words.text(t) for t in first["tokens"][:SHOWN]]
            condition, ask = self._told(first)[:SHOWN], Ask(steps=self.steps, sampler=self.sampler, guidance=self.guidance)
            looked = Looks(self.unet, self.codec.grid)
            with looked:
                made = self.draw_each(condition, ask, RowNoise(0, 0, len(said), self.device)).x
            both = self.to_uint8(torch.stack([x.to(self.device), made], 1).flatten(0, 1))
            names = [name for caption in said for name in (f"real: {caption}", "made")]
            title = "Real pictures of captions, and made ones"
            yield View("prompts", title, "pictures", {"columns": 4, "captions": names}, both)
            yield from word_views(said, self.to_uint8(made), looked.maps(len(said)))
            yield self._film(said[0], condition[:1], dataclasses.replace(ask, keep_steps=True))
        kept = first["x"][: 2 * SHOWN]
        again = torch.stack([kept.to(self.device), self.reconstruct(kept)], 1).flatten(0, 1)
        title = "Pictures, and what is left of them after coding and decoding"
        yield View("reconstructions", title, "pictures", {"columns": 4, "captions": []}, self.to_uint8(again))

    def _film(self, caption: str, condition: Tensor, ask: Ask) -> View:
        drawn = self.draw_each(condition, ask, RowNoise(0, 0, 1, self.device))
        at, number = frames(len(drawn.steps), FILM), frames(ask.steps or self.steps)
        pictures = torch.cat([*(drawn.steps[i] for i in at), *(drawn.guesses[i] for i in at)])
        names = [f"after step {number[i] + 1}" for i in at] + ["expected"] * len(at)
        title = f"The denoising of {caption!r}: what there is, decoded, and the clean picture that is expected"
        return View("denoising", title, "pictures", {"columns": len(at), "captions": names}, pictures)

    # ------------------------------------------------------------------------------------------------------------- helpers

    def _condition(self, prompts: list[str]) -> Tensor:
        """(B, 1 + longest, ...) of captions, "" for none. Raises DataError on unknown words."""
        return self._told(self.words.encode_prompts(prompts))

    def _told(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            return self.text(batch["tokens"].to(self.device), batch["lengths"].to(self.device)).float()

    def _places(self, mask: Tensor) -> Tensor:
        """Pixels (H, W) to make anew as places of the grid (1, 1, h, w): all that hold such a pixel."""
        marked = F.adaptive_max_pool2d(mask[None, None].to(self.device, torch.float32), self.codec.grid)
        return marked > 0

    def _kept(self, x: Tensor, ask: Ask) -> Tensor:
        """Pixels outside of the mask are those of the given picture, not of its code."""
        if ask.mask is None or ask.image is None:
            return x
        return torch.where(ask.mask.to(x.device), x, ask.image.to(x))

    def _lost(self, x: Tensor) -> Tensor:
        """(B,) mean squared error of the autoencoder, pixels 0 to 1."""
        std = torch.tensor(self.words.std, device=self.device).view(1, -1, 1, 1)
        return squared_error(self.reconstruct(x) * std, x * std)
