"""Pictures from words by a Transformer that writes their codes, as in the first DALL-E (Ramesh et al. 2021)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.batch import rows as count_rows
from engram.core.errors import ConfigError
from engram.core.predictor import Field, Figure, Scores, View
from engram.inference.latents import reconstructions
from engram.inference.pictures import Ask, Drawn, Pictures, frames, to_uint8
from engram.nn.codebook import perplexity
from engram.nn.draw_codes import code_logits, draw_codes, sequence
from engram.nn.noise import RowNoise
from engram.nn.psnr import squared_error

SEED = 0  # of the pictures in views
LOOKED = 4  # pictures whose words are weighed
HOTTEST, STRONGEST = 2.0, 20.0


class ImageGPT(Pictures):
    """`model` (GPT) and `codec` (VQVAE) as engram.tasks.image_tokens trains them; `spec` holds the words (CaptionSpec).

    Sampling takes `prompt` (without one, any picture), `guidance` (1 = as learned, more holds closer to the prompt) away from
    `negative` or from no caption, `temperature` (0 = the most probable code each time), `top_k`, and `image` with `strength`:
    the upper part of the picture is kept, and the share `strength` below it made anew. `nats`: -log p of a picture's codes
    given its caption. `drops`: whether training left captions out, without which there are no pictures of no prompt, and no
    guidance away from none.
    """

    gives: ClassVar = {"nats": Field("number", "-log p of the picture's codes given its caption: the higher, the odder")}
    verbs: ClassVar = frozenset({"sample", "encode", "reconstruct"})
    films: ClassVar = True
    options: ClassVar = frozenset({"prompt", "negative", "guidance", "temperature", "top_k", "image", "strength"})

    def __init__(self, model: nn.Module, codec: nn.Module, spec: Any, drops: bool = True):
        self.model, self.codec, self.spec, self.drops = model, codec, spec, drops
        self.words: Any = spec
        self.parts: Any = codec
        self.grid: tuple[int, int] = self.parts.grid
        self.places = math.prod(self.grid)
        self.codes = len(self.parts.codebook.vectors)
        self.low = len(spec.vocab) + 1
        self.device = self.parts.codebook.vectors.device

    def checked(self, ask: Ask) -> Ask:
        """Fills in guidance 1, temperature 1 and strength 1/2. Raises ConfigError on what is out of range, DataError on words
        that the captions never used."""
        guidance = 1.0 if ask.guidance is None else ask.guidance
        warmth = 1.0 if ask.temperature is None else ask.temperature
        strength = 0.5 if ask.strength is None else ask.strength
        top_k = ask.top_k or 0
        if not 0 <= guidance <= STRONGEST:
            raise ConfigError(
                f"guidance={guidance:g} must be 0 to {STRONGEST:g}; 1 is as learned, 2 or 3 hold closer to the prompt"
            )
        if not 0 <= warmth <= HOTTEST:
            raise ConfigError(f"temperature={warmth:g} must be 0 to {HOTTEST:g}; 1 is as trained")
        if not 0 <= strength <= 1:
            raise ConfigError(f"strength={strength:g} must be 0 (keep the picture) to 1 (make all of it anew)")
        if not 0 <= top_k <= self.codes:
            raise ConfigError(f"top_k={top_k} must be 1 to {self.codes}, the codes there are; 0 = all")
        if ask.prompt is None and (ask.negative is not None or guidance != 1):
            raise ConfigError("guidance and negative need a prompt to hold to: give prompt too")
        if ask.negative is not None and guidance == 1:
            raise ConfigError("negative counts only with guidance: set guidance above 1, such as 2")
        if ask.strength is not None and ask.image is None:
            raise ConfigError("strength says how much of a picture to make anew: give image too")
        for wish, words in (("prompt", ask.prompt), ("negative", ask.negative)):
            told = self._text(words, 1).any()
            if not told and not self.drops and (wish == "prompt" or guidance != 1):
                why = "" if wish == "prompt" else f" with guidance={guidance:g}"
                raise ConfigError(f"this run was always told a caption: give {wish} too{why}, or train with without=0.1")
        return dataclasses.replace(ask, guidance=guidance, temperature=warmth, strength=strength, top_k=top_k)

    def draw(self, ask: Ask, noise: RowNoise, rows: int) -> Drawn:
        """See Pictures.draw. With keep_steps the film shows the picture after every row of codes."""
        given = None
        if ask.image is not None:
            lines = round(self.grid[0] * (1 - (0.5 if ask.strength is None else ask.strength)))
            kept = self.encode(ask.image[None].to(self.device))[:, :lines].flatten(1)
            given = kept.expand(rows, -1)
        ids = draw_codes(
            self.model,  # type: ignore[arg-type]
            self._text(ask.prompt, rows), noise.uniform(self.places), self.low, self.codes,
            temperature=1.0 if ask.temperature is None else ask.temperature, top_k=ask.top_k or 0,
            guidance=1.0 if ask.guidance is None else ask.guidance, without=self._text(ask.negative, rows), given=given,
        )  # fmt: skip
        steps: list[Tensor] = []
        if ask.keep_steps:  # codes that are still to come are shown as the most common one of those there are
            for line in frames(self.grid[0]):
                done = ids[:, : (line + 1) * self.grid[1]]
                rest = done.mode(1, keepdim=True).values.expand(-1, self.places - done.shape[1])
                steps.append(self.to_uint8(self._pictures(torch.cat([done, rest], 1))))
        return Drawn(self._pictures(ids), steps)

    def encode(self, x: Tensor) -> Tensor:
        """Code numbers (B, *grid) int64."""
        return self.parts.encode_ids(x.to(self.device))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Pictures as their codes tell them."""
        return self.parts.decode_ids(self.encode(x)).float()

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"nats": (B,)}; a batch without captions is read as pictures without any."""
        with torch.inference_mode():
            ids = self.encode(batch["x"]).flatten(1)
            return {"nats": self._nats(self._given(batch), ids).sum(1).cpu()}

    def __call__(self, *, images: Any) -> dict[str, list[Any]]:
        """{"nats": one number per picture}; rows {"image", "caption"} are read with their captions."""
        return {"nats": self.outputs(self.words.encode(images))["nats"].tolist()}

    @torch.no_grad()
    def scores(self, batches: Iterable[Batch], rows: Iterable[list[Any]]) -> Scores | None:
        """`nats` per picture given its caption, `words`: how many nats the caption saves, and the codec's PSNR."""
        std = torch.tensor(self.words.std).view(1, -1, 1, 1)
        told = []
        for batch in batches:
            x = batch["x"].to(self.device)
            ids = self.encode(x).flatten(1)
            nats = self._nats(self._given(batch), ids).sum(1)
            saved = self._nats(self._text(None, len(ids)), ids).sum(1) - nats
            error = squared_error(self._pictures(ids) * std.to(x), x * std.to(x))
            told.append(torch.stack([torch.ones_like(nats), nats, saved, error], 1).double().cpu())
        if not told:
            return None
        figures = {
            "nats": Figure("nats per picture given its caption, over its codes", lambda s: s[:, 1] / s[:, 0]),
            "nats_per_code": Figure("nats per code", lambda s: s[:, 1] / s[:, 0] / self.places),
            "words": Figure("nats that knowing the caption saves", lambda s: s[:, 2] / s[:, 0]),
            "psnr": Figure("decibels of the codec, over all pixels", lambda s: -10 * (s[:, 3] / s[:, 0]).log10()),
        }
        if not self.drops:
            del figures["words"]  # without any it was never trained
        chance = self.places * math.log(self.codes)
        return Scores(figures, torch.cat(told), of="pictures", beside=f"guessing evenly has {chance:.0f}")

    @torch.no_grad()
    def views(self, batches: Callable[[], Iterable[Batch]]) -> Iterator[View]:
        """How often each code is used, and of captioned pictures samples of the captions beside them, and where each word acts;
        of others what their codes give back."""
        first: Batch | None = None
        counts = torch.zeros(self.codes, dtype=torch.int64)
        for batch in batches():  # in one pass: standard input has no second
            first = batch if first is None else first
            counts += torch.bincount(self.encode(batch["x"]).flatten().cpu(), minlength=self.codes)
        if first is None:
            return
        if "tokens" in first:
            yield from self._of_captions(first["x"][:8].to(self.device), self._given(first)[:8])
        else:
            given = first["x"][:8]
            yield reconstructions(self.to_uint8(given), self.to_uint8(self.reconstruct(given)))
        share = (counts.double() / counts.sum()).sort(descending=True).values.tolist()
        title = f"{int((counts > 0).sum())} of {self.codes} codes in use, like {float(perplexity(counts)):.0f} used evenly"
        yield View("codebook", title, "bars", {"names": [*range(1, self.codes + 1)], "values": share, "ylabel": "share"})

    def _of_captions(self, x: Tensor, text: Tensor) -> Iterator[View]:
        """Pictures (B, C, H, W) and their captions (B, longest), at least one word in each."""
        said = [self.words.text(t) for t in text.cpu()]
        numbers = RowNoise(SEED, 0, len(text), self.device).uniform(self.places)
        ids = draw_codes(self.model, text, numbers, self.low, self.codes)  # type: ignore[arg-type]
        made = self._pictures(ids)
        both = to_uint8(torch.stack([x, made], 1).flatten(0, 1), self.spec)
        names = [name for caption in said for name in (f"real: {caption}", "made")]
        yield View("prompts", "Real pictures of captions, and made ones", "pictures", {"columns": 4, "captions": names}, both)
        columns = self.words.longest + 1
        maps: list[Tensor] = []
        names = []
        for row in range(min(LOOKED, len(text))):
            grey = [to_uint8(made[row : row + 1], self.spec)[0], *self._where(text[row], ids[row])]
            maps += [m.expand(3, -1, -1) for m in grey]
            maps += [torch.zeros_like(maps[0])] * (columns - len(grey))
            names += ["made", *said[row].split(), *[""] * (columns - len(grey))]
        title = "Where each word acts: how much less probable the codes of a made picture are without it"
        yield View("words", title, "pictures", {"columns": columns, "captions": names}, torch.stack(maps))

    def _where(self, text: Tensor, ids: Tensor) -> Tensor:
        """Grey maps (words, 1, H, W) uint8 of one caption (longest,) and the codes (P,) drawn for it."""
        length = int((text > 0).sum())
        less = torch.stack([F.pad(torch.cat([text[:at], text[at + 1 :]]), (0, 1)) for at in range(length)])
        nats = self._nats(torch.cat([text[None], less]), ids.expand(length + 1, -1))
        more = (nats[1:] - nats[:1]).clamp(min=0).view(length, 1, *self.grid)
        top = more.amax((1, 2, 3), keepdim=True).clamp(min=1.0)  # a word that hardly matters stays dark
        return F.interpolate((255 * more / top).cpu(), size=(self.words.height, self.words.width)).byte()

    def _pictures(self, ids: Tensor) -> Tensor:
        return self.parts.decode_ids(ids.view(-1, *self.grid)).float()

    def _nats(self, text: Tensor, ids: Tensor) -> Tensor:
        """-log p of every code (B, P)."""
        model: Any = self.model
        hidden = model.hidden(sequence(text, ids, self.low))[:, self.words.longest :]
        logits = code_logits(model, hidden, self.low, self.codes)
        return F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)

    def _text(self, prompt: str | None, rows: int) -> Tensor:
        """(rows, longest) of one prompt; None is no caption."""
        return self.words.encode_prompts([prompt or ""])["tokens"].to(self.device).expand(rows, -1)

    def _given(self, batch: Batch) -> Tensor:
        if "tokens" not in batch:
            return self._text(None, count_rows(batch))
        tokens = batch["tokens"][:, : self.words.longest].to(self.device)
        return F.pad(tokens, (0, self.words.longest - tokens.shape[1]))
