"""Latent diffusion in two stages: an autoencoder of pictures, then the denoising of its codes, told by captions.

Papers: Rombach et al. 2022, Eq. 2 (with a text encoder trained together with the denoiser, Eq. 3); captions are dropped in a
share of the rows, for guidance without a classifier (Ho & Salimans 2022, Algorithm 1). Differs: both stages are one run; the
mean and deviation of the codes are running sums over all of the first stage, which come out the same however a batch is cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from engram.core.batch import Batch, Logs, rows
from engram.core.errors import DataError
from engram.core.task import Ctx, Phase, Task
from engram.nn.gaussian import draw, kl_to_standard
from engram.nn.noise import RowNoise, row_normal
from engram.nn.psnr import squared_error
from engram.nn.schedule import Schedule

KEPT = 0.99  # of the sums of the codes, per step: they forget what the encoder gave some 100 steps ago
SHOWN, SHOWN_STEPS = 16, 12  # pictures of the film of the training, and the steps that they take


class Codec(Protocol):
    """What the task asks of the autoencoder: engram.models.latent_vae."""

    code: int
    grid: tuple[int, int]
    moments: Tensor

    def __call__(self, x: Tensor) -> Tensor: ...

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]: ...

    def decode(self, z: Tensor) -> Tensor: ...

    def pictures(self, codes: Tensor) -> Tensor: ...


class LatentDenoise(Task):
    """Captioned pictures to a text encoder and a denoiser of codes.

    Batch: x (B, C, H, W), mean 0 and deviation 1; tokens (B, T) and lengths (B,); eps and noise (B, code, *grid) standard
    normal; u and drop (B,) uniform. Without the last four, those of a fixed seed are taken.

    vae:      encode, decode, unit codes and pictures of them: engram.models.latent_vae
    text:     tokens and lengths to a condition: engram.models.text_encoder
    unet:     network(x, t, condition): engram.models.text_unet
    share:    of the steps for the autoencoder
    kl:       weight of its KL term, in nats per number of the picture
    drop:     share of rows whose caption is not told
    """

    overfits: ClassVar[float | None] = 0.35  # the autoencoder has but a share of the steps

    def __init__(
        self,
        vae: nn.Module,
        text: nn.Module,
        unet: nn.Module,
        schedule: Schedule,
        *,
        share: float = 0.25,
        kl: float = 1e-3,
        drop: float = 0.1,
    ):
        super().__init__()
        self.vae, self.denoiser = vae, nn.ModuleDict({"text": text, "unet": unet})
        self.schedule, self.share, self.kl, self.drop = schedule, share, kl, drop
        self._seen: tuple[Tensor, Tensor] | None = None  # captions of the film

    @property
    def codec(self) -> Codec:
        """The autoencoder, as what it does."""
        return self.vae  # type: ignore[return-value]

    def phases(self) -> tuple[Phase, ...]:
        """`autoencoder`, then `denoiser`, which trains the text encoder too; neither moves the other's weights."""
        return (
            Phase("autoencoder", self.compress, self.vae, until=self.share),
            Phase("denoiser", self.denoise, self.denoiser, since=self.share),
        )

    def compress(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """Mean squared error of a picture plus `kl` times the divergence of its code, each per number of the picture."""
        x = batch["x"]
        mean, log_var = self.codec.encode(x)
        eps = batch["eps"] if "eps" in batch else self._fixed(x)[0]
        error = squared_error(self.codec.decode(draw(mean, log_var, eps)), x).mean()
        kl = kl_to_standard(mean.float(), log_var.float()).sum() / x.numel()
        if self.training:
            self._measure(mean.detach().float(), ctx)
        return error + self.kl * kl, {"error": error, "kl": kl}

    def denoise(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """Mean squared error of what the network predicts of noisy codes; some rows are not told their caption."""
        drop = batch["drop"] if "drop" in batch else self._fixed(batch["x"])[3]
        lengths = batch["lengths"].masked_fill(drop < self.drop, 0)
        return self._errors(batch, lengths).mean(), {}

    def chance_loss(self) -> float:
        """The autoencoder's: pictures of mean 0 and deviation 1 against nothing."""
        return 1.0

    def after_step(self, ctx: Ctx) -> None:
        """The sums of the codes fade, so that they tell of the encoder as it is now."""
        if self.phases()[0].runs_at(ctx):
            self.codec.moments.mul_(KEPT)

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """loss: of denoising with captions told, about 1 before that begins; reconstruction: mean squared error of pictures."""
        count, sums = 0, torch.zeros(2, dtype=torch.float64)
        for batch in batches:
            if self._seen is None:
                self._seen = (batch["tokens"][:SHOWN], batch["lengths"][:SHOWN])
            error = squared_error(self.codec.pictures(self.codec(batch["x"])), batch["x"])
            sums += torch.stack([self._errors(batch, batch["lengths"]).double().sum(), error.double().sum()]).cpu()
            count += rows(batch)
        if not count:
            raise DataError("there are no rows to evaluate; give the split some rows")
        loss, reconstruction = (sums / count).tolist()
        return {"loss": loss, "reconstruction": reconstruction}

    def show(self, ctx: Ctx) -> Tensor | None:
        """Pictures of fixed noise for the first captions of the validation split, by a few steps of DDIM."""
        if self._seen is None:
            return None
        tokens, lengths = self._seen
        z = row_normal(0, 0, len(tokens), (self.codec.code, *self.codec.grid), tokens.device)
        condition = self.denoiser["text"](tokens, lengths)
        times = self.schedule.times(SHOWN_STEPS)
        alpha, sigma = self.schedule.alpha_sigma(times)
        z = z * float(sigma[0])
        for step in range(SHOWN_STEPS):
            t = torch.full((len(z),), float(times[step]), device=z.device)
            out = self.denoiser["unet"](self.schedule.network_input(z, t), t, condition).float()
            x0, noise = self.schedule.x0(out, z, t), self.schedule.noise(out, z, t)
            z = float(alpha[step + 1]) * x0 + float(sigma[step + 1]) * noise
        return self.codec.pictures(z)

    def _errors(self, batch: Batch, lengths: Tensor) -> Tensor:
        """(B,): each row's mean squared error of the prediction."""
        x = batch["x"]
        with torch.no_grad():
            codes = self.codec(x).float()
        noise, u = (batch["noise"], batch["u"]) if "noise" in batch else self._fixed(x)[1:3]
        t = self.schedule.training_time(u)
        noisy = self.schedule.network_input(self.schedule.noisy(codes, noise, t), t)
        out = self.denoiser["unet"](noisy, t, self.denoiser["text"](batch["tokens"], lengths))
        return squared_error(out, self.schedule.target(codes, noise, t))

    @torch.no_grad()
    def _measure(self, mean: Tensor, ctx: Ctx) -> None:
        """Add 1, z and z^2 over all codes of all ranks to the sums."""
        places = mean.numel() / mean.shape[1]
        sums = [torch.full_like(mean[0, :, 0, 0], places), mean.sum((0, 2, 3)), mean.square().sum((0, 2, 3))]
        self.codec.moments += ctx.mesh.sum(torch.stack(sums))

    def _fixed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """eps, noise, u and drop for a batch without them."""
        numbers, shape = RowNoise(0, 0, len(x), x.device), (self.codec.code, *self.codec.grid)
        return numbers.normal(*shape), numbers.normal(*shape), numbers.uniform(), numbers.uniform()
