"""Pictures through a code and back: autoencoders, also denoising and sparse ones, with a threshold for odd pictures.

Denoising (Vincent et al. 2010): the network reads the corrupted picture, the error is that to the clean one. Sparse codes:
`l1`, the mean of |code|; `kl`, the divergence of each unit's mean activation from a target (Ng 2011, "Sparse autoencoder",
section 3), for codes of 0..1. Both are means over the units, so that their weight does not depend on the code's size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.batch import Batch, Logs, rows
from engram.core.errors import DataError
from engram.core.task import Ctx, Phase, Task, batch_normed
from engram.nn.corrupt import corrupt, noise_of
from engram.nn.noise import RowNoise
from engram.nn.psnr import psnr, squared_error, unexplained

Noise = Literal["none", "gaussian", "masking", "salt_and_pepper"]
BATCH_NORM = "batch normalisation computes its statistics over the whole batch"
MEAN_ACTIVATION = "the mean activation of a unit is taken over the whole batch"


class Reconstruct(Task):
    """Batch: "x" (B, C, H, W) with pixels of 0..1, and for denoising "noise" as `nn.corrupt.noise_of` says.

    The model gives (pictures (B, C, H, W), codes), whose numbers become pixels here: by a sigmoid, or with `bounded` False as
    they are, clipped to 0..1 in use but not in the loss. On the squared error a sigmoid may stay at black, where it is flat.

    loss:         "mse", the squared error per pixel, or "bce", the binary cross-entropy, for pixels that are mostly 0 or 1
    noise:        what the pictures suffer before the model reads them, of strength `amount`
    sparse:       penalty of the code, times `weight`; "kl" pulls mean activations to `activation`
    score:        what makes a picture odd: its "error", or the share of its variance that is "unexplained"
    alarms:       share of the validation pictures that may lie above the threshold

    `threshold` is set by every evaluation: the score that all but the share `alarms` of the pictures do not exceed (-1 before).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: Literal["mse", "bce"] = "mse",
        bounded: bool = True,
        noise: Noise = "none",
        amount: float = 0.5,
        sparse: Literal["none", "l1", "kl"] = "none",
        weight: float = 0.0,
        activation: float = 0.05,
        score: Literal["error", "unexplained"] = "unexplained",
        alarms: float = 0.05,
    ):
        super().__init__()
        self.model, self.kind, self.bounded = model, loss, bounded
        self.noise, self.amount = noise, amount
        self.sparse, self.sparse_weight, self.activation = sparse, weight, activation
        self.score, self.alarms = score, alarms
        self.register_buffer("threshold", torch.tensor(-1.0))
        self.threshold: Tensor

    def phases(self) -> tuple[Phase, ...]:
        """One phase, `model`, weighted by rows."""
        why = BATCH_NORM if batch_normed(self.model) else MEAN_ACTIVATION if self.sparse == "kl" else ""
        return (Phase("model", self.loss, self.model, splits=not why, why_whole=why),)

    def forward(self, batch: Batch) -> Tensor:
        """The pictures of the batch, as they are, through the code and back, (B, C, H, W)."""
        return self.pictures(self.model(batch["x"])[0])

    def pictures(self, raw: Tensor) -> Tensor:
        """What the model gives, as pictures."""
        return raw.float().sigmoid() if self.bounded or self.kind == "bce" else raw.float().clamp(0, 1)

    def corrupted(self, batch: Batch) -> Tensor:
        """What the model reads: the pictures, with noise where it is trained to remove it.

        A batch without "noise" gets numbers that depend on the row alone.
        """
        x = batch["x"]
        if self.noise == "none":
            return x
        noise = batch.get("noise")
        if noise is None:
            law, shape = noise_of(self.noise, (x.shape[1], x.shape[2], x.shape[3]))
            draw = RowNoise(0, 0, len(x), x.device)
            noise = draw.normal(*shape) if law == "normal" else draw.uniform(*shape)
        return corrupt(x, self.noise, self.amount, noise)

    def loss(self, batch: Batch, ctx: Ctx) -> tuple[Tensor, Logs]:
        """The error per pixel plus the penalty of the code; logs both where there is a penalty."""
        raw, code = self.model(self.corrupted(batch))
        error = self._error(raw, batch["x"])
        if self.sparse == "none":
            return error, {}
        penalty = self._penalty(ctx.mesh.gather(code) if self.sparse == "kl" else code)
        return error + self.sparse_weight * penalty, {"error": error, "penalty": penalty}

    def chance_loss(self) -> float | None:
        """What a grey picture costs in binary cross-entropy; the squared error depends on the pictures."""
        return math.log(2) if self.kind == "bce" else None

    def evaluate(self, batches: Iterable[Batch], ctx: Ctx) -> dict[str, float]:
        """`loss` (as trained); of clean pictures `error` (squared, per pixel), `psnr` (decibels, mean over pictures).

        The penalty kl is that of each batch. With noise also `psnr_noisy` and `psnr_denoised`, with a penalty `activation`, the
        mean of |code|. Sets `threshold`. Keeps one number per row. Raises DataError when there is no row.
        """
        sums: dict[str, float] = {}
        scores: list[Tensor] = []
        count = 0
        for batch in batches:
            x, n = batch["x"], rows(batch)
            given = self.corrupted(batch)
            raw, code = self.model(given)
            found = {"loss": self._error(raw, x)}
            if self.sparse != "none":
                found |= {"loss": found["loss"] + self.sparse_weight * self._penalty(code), "activation": code.abs().mean()}
            if self.noise != "none":
                found |= {"psnr_noisy": psnr(squared_error(given, x)).mean()}
                found |= {"psnr_denoised": psnr(squared_error(self.pictures(raw), x)).mean()}
                raw = self.model(x)[0]
            error = squared_error(self.pictures(raw), x)
            found |= {"error": error.mean(), "psnr": psnr(error).mean()}
            scores.append(error if self.score == "error" else unexplained(error, x))
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value) * n
            count += n
        if not count:
            raise DataError("there are no rows to evaluate; give the split some rows")
        self.threshold.fill_(quantile(torch.cat(scores), 1 - self.alarms))
        return {name: value / count for name, value in sums.items()} | {"threshold": float(self.threshold)}

    def _error(self, raw: Tensor, x: Tensor) -> Tensor:
        if self.kind == "bce":
            return F.binary_cross_entropy_with_logits(raw.float(), x)
        return F.mse_loss(raw.float().sigmoid() if self.bounded else raw.float(), x)

    def _penalty(self, code: Tensor) -> Tensor:
        """Of codes (B, units, ...), in float32; the mean activation of a map's channel is taken over its places too."""
        code = code.float()
        if self.sparse == "l1":
            return code.abs().mean()
        mean, target = code.transpose(0, 1).flatten(1).mean(1).clamp(1e-6, 1 - 1e-6), self.activation
        return (target * (target / mean).log() + (1 - target) * ((1 - target) / (1 - mean)).log()).mean()


def quantile(values: Tensor, share: float) -> float:
    """The least of the values (N,) that at least `share` of them do not exceed."""
    place = min(max(math.ceil(share * len(values) - 1e-9), 1), len(values))
    return float(values.float().kthvalue(place).values)
