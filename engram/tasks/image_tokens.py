"""Text to image by tokens, in two stages: pictures become grids of codes, then a Transformer learns captions followed by codes.

Papers: van den Oord et al. 2017, "Neural discrete representation learning", Eq. 3 (stage one); Ramesh et al. 2021, "Zero-shot
text-to-image generation" (DALL-E), section 2 (both stages). Differs: the codes are those of a VQ-VAE with straight-through
gradients, not of a discrete VAE with Gumbel noise; the text is not predicted, only read (DALL-E gives it 1/8 of the loss); and
captions are left out for a share of the rows, so that samples can be guided (Ho & Salimans 2022, Alg. 1).

The codec first trains for a while without quantising, and the codebook only follows: from the start, few codes hold brightness
alone, the encoder learns to agree with them, and the colours never come (22.9 against 25.0 dB after 500 steps on the shapes).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch, Logs, rows
from engram.core.errors import DataError
from engram.core.task import Ctx, Phase, Task
from engram.nn.codebook import GOLDEN, perplexity
from engram.nn.draw_codes import code_logits, draw_codes, sequence
from engram.nn.noise import RowNoise
from engram.nn.psnr import psnr, squared_error
from engram.tasks.vector_quantise import follow

SHOWN = 16  # pictures of the film


class ImageTokens(Task):
    """Batch: "x" (B, C, H, W); "tokens" (B, T) padded with 0; in training also "keys" and "drop" (B,) from [0, 1).

    model:   engram.models.gpt.GPT over `words` + 1 + codes ids, context `longest` + codes of a picture
    codec:   engram.models.vqvae.VQVAE
    share:   of the steps that train the codec; afterwards it stays as it is, and the Transformer is trained
    without: chance that a caption is left out
    commit:  weight of the encoder's distance to its codes; a fifth of it during the warm-up
    warm:    share of the codec's steps without quantising
    peak:    the range of the pixels, for PSNR
    film:    captions (N, longest) of the pictures that `show` draws
    """

    def __init__(
        self,
        model: nn.Module,
        codec: nn.Module,
        words: int,
        longest: int,
        *,
        share: float = 0.3,
        without: float = 0.1,
        commit: float = 0.25,
        warm: float = 0.3,
        peak: float = 2.0,
        film: Tensor | None = None,
    ):
        super().__init__()
        self.model, self.codec = model, codec
        self.longest, self.low = longest, words + 1
        self.codes = len(codec.get_buffer("codebook.vectors"))
        self.share, self.without, self.commit, self.warm = share, without, commit, warm
        self.peak, self.film = peak, film

    def phases(self) -> tuple[Phase, ...]:
        """`model` in the last part of the run, on the codes of the codec that the first part has trained."""
        return (
            Phase("model", self.loss, self.model, since=self.share),
            Phase("codec", self.codec_loss, self.codec, until=self.share),
        )

    def codec_loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """Squared error per pixel, plus `commit` times that between the encoder's vectors and their codes (Eq. 3)."""
        codec: Any = self.codec
        z = codec.encode(batch["x"])
        q, ids = codec.codebook(z)
        warming = self.training and ctx.step < self.warm * self.share * ctx.steps
        error = F.mse_loss(codec.decode(z if warming else q).float(), batch["x"])
        commitment = F.mse_loss(z.float(), codec.codebook.lookup(ids))
        if self.training:
            codec.codebook.see(z, ids, _keys(batch))
        loss = error + self.commit * (0.2 if warming else 1.0) * commitment
        return loss, {"error": error.detach(), "commitment": commitment.detach()}

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """Mean nats per code."""
        text = self.text(batch)
        if self.training and "drop" in batch:
            text = text * (batch["drop"] >= self.without)[:, None]
        return self.nats(text, self.ids(batch["x"])).mean(), {}

    def text(self, batch: Batch) -> Tensor:
        """Captions (B, longest), all padding where the batch has none."""
        if "tokens" not in batch:
            return torch.zeros(rows(batch), self.longest, dtype=torch.int64, device=batch["x"].device)
        tokens = batch["tokens"][:, : self.longest]
        return F.pad(tokens, (0, self.longest - tokens.shape[1]))

    @torch.no_grad()
    def ids(self, x: Tensor) -> Tensor:
        """Pictures to codes (B, P)."""
        codec: Any = self.codec
        return codec.encode_ids(x).flatten(1)

    def nats(self, text: Tensor, ids: Tensor) -> Tensor:
        """-log p of every code (B, P) after a text (B, longest)."""
        model: Any = self.model
        hidden = model.hidden(sequence(text, ids, self.low))[:, self.longest :]  # (B, P, width)
        logits = code_logits(model, hidden, self.low, self.codes)
        return F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)

    def chance_loss(self) -> float:
        """Guessing evenly among all codes."""
        return math.log(self.codes)

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """`loss` in nats per code with the caption known, `psnr` of the codec in decibels, and `codes`, how many are in use."""
        codec: Any = self.codec
        total = quality = count = 0.0
        used: Tensor | None = None
        for batch in batches:
            ids = self.ids(batch["x"])
            total += float(self.nats(self.text(batch), ids).mean(1).double().sum())
            back = codec.decode_ids(ids.view(-1, *codec.grid))
            quality += float(psnr(squared_error(back, batch["x"]), self.peak).sum())
            found = torch.bincount(ids.flatten(), minlength=self.codes)
            used = found if used is None else used + found
            count += len(ids)
        if used is None:
            raise DataError("there are no pictures to evaluate; give the split some")
        return {"loss": total / count, "psnr": quality / count, "codes": float(perplexity(used))}

    @torch.no_grad()
    def show(self, ctx: Ctx) -> Tensor | None:
        """Pictures of some captions, drawn at the same numbers every time."""
        codec: Any = self.codec
        device = codec.codebook.vectors.device
        count = SHOWN if self.film is None else len(self.film)
        text = torch.zeros(count, self.longest, dtype=torch.int64) if self.film is None else self.film
        numbers = RowNoise(0, 0, count, device).uniform(math.prod(codec.grid))
        ids = draw_codes(self.model, text.to(device), numbers, self.low, self.codes)  # type: ignore[arg-type]
        return codec.decode_ids(ids.view(-1, *codec.grid))

    def after_step(self, ctx: Ctx) -> None:
        """The codebook moves to what the step's pictures have shown, on all ranks alike."""
        codec: Any = self.codec
        if ctx.step < round(self.share * ctx.steps):
            follow(codec.codebook, ctx)


def _keys(batch: Batch) -> Tensor:
    """A number from [0, 1) per row; spread evenly when the batch brings none."""
    if "keys" in batch:
        return batch["keys"]
    return torch.arange(rows(batch), device=batch["x"].device) * GOLDEN**2 % 1
