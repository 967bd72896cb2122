"""A trained variational autoencoder in use: new pictures, codes, reconstructions, and bounds on log p(x) in nats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from engram.core.batch import Batch, split_rows
from engram.core.batch import rows as count_rows
from engram.core.errors import ConfigError, did_you_mean
from engram.core.predictor import Field, Figure, Scores, View
from engram.core.spec import Spec
from engram.inference import latents
from engram.inference.pictures import Ask, Drawn, Pictures
from engram.nn.gaussian import LatentUse, Likelihood, evidence, kl_to_standard
from engram.nn.noise import RowNoise, row_normal

DRAWS = 8  # fixed numbers that the figure of a single picture is a mean over
LOOKED_AT = 2000  # test pictures of the views
SHOWN = 10
AT_ONCE = 1 << 25  # numbers of decoded pictures at once, 128 MiB: rows times PIECE draws times pixels
PIECE = 64  # draws of a row at once


class Coder(Protocol):
    """What is asked of a model."""

    shape: tuple[int, int, int]
    latent: int
    classes: int

    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]: ...

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor: ...


class VaePictures(Pictures):
    """`model` codes and decodes pixels of 0 to 1. Of a picture without a class, a network that is told classes takes the one
    that explains it best. `samples`: draws per picture of the importance-weighted bound on the test split.
    """

    gives: ClassVar = {"nats": Field("number", "minus the evidence lower bound: how unexpected the picture is, in nats")}
    verbs: ClassVar = frozenset({"sample", "encode", "reconstruct"})
    options: ClassVar = frozenset({"label", "temperature"})

    def __init__(self, model: nn.Module, likelihood: Likelihood, spec: Spec, classes: tuple[str, ...] = (), samples: int = 64):
        self.model, self.likelihood, self.spec, self.classes, self.samples = model, likelihood, spec, classes, samples
        self.coder: Coder = model  # type: ignore[assignment]
        self.pixels = math.prod(self.coder.shape)
        self.device = next(model.parameters()).device

    # ------------------------------------------------------------------------------------------------------ new pictures

    def checked(self, ask: Ask) -> Ask:
        """See Pictures.checked: the class must be one of the run's."""
        if ask.temperature is not None and not 0 <= ask.temperature <= 10:
            raise ConfigError(f"temperature={ask.temperature} must be 0 to 10; 1 draws as the network learned")
        if ask.label is not None and not self.coder.classes:
            raise ConfigError(f"this run was not told classes, so it cannot draw {ask.label!r}; train with conditional=true")
        if ask.label is not None and ask.label not in self.classes:
            near = did_you_mean(ask.label, self.classes)
            raise ConfigError(f"no class {ask.label!r}{near}; there are {', '.join(self.classes[:20])}")
        return ask

    def draw(self, ask: Ask, noise: RowNoise, rows: int) -> Drawn:
        """Codes from the prior, decoded. The code comes first, so a seed means the same code for every class."""
        z = noise.normal(self.coder.latent)
        z = z if ask.temperature is None else z * ask.temperature
        y = None
        if self.coder.classes:
            y = noise.integers(self.coder.classes)
            y = y if ask.label is None else torch.full_like(y, self.classes.index(ask.label))
        return Drawn(self.likelihood.picture(self.coder.decode(z, y)))

    # ----------------------------------------------------------------------------------------------------- given pictures

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The mean of the posterior, (B, latent)."""
        x = x.to(self.device)
        return self.coder.encode(x, self._class(x))[0]

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """What the mean of the posterior decodes to: the chance of white, or the mean."""
        x = x.to(self.device)
        y = self._class(x)
        return self.likelihood.picture(self.coder.decode(self.coder.encode(x, y)[0], y))

    @torch.no_grad()
    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"nats": (B,)}. The same fixed draws for every picture, so that a picture's figure is its own; grey pixels count as
        the mean over what they may become."""
        x = batch["x"].to(self.device)
        y = batch["y"].to(self.device) if "y" in batch and self.coder.classes else self._class(x)
        eps = row_normal(0, 0, DRAWS, (self.coder.latent,), self.device)
        mean, log_var = self.coder.encode(x, y)
        found = evidence(mean, log_var, self._log_likelihood(x, y), lambda s: eps[:s].expand(len(x), -1, -1), DRAWS)
        return {"nats": -self.likelihood.per_pixel(found.elbo, self.pixels).float().cpu()}

    def __call__(self, *, images: Any) -> dict[str, list[Any]]:
        """{"nats": one number per picture}."""
        return {"nats": self.outputs(self.spec.encode(images))["nats"].tolist()}

    # ------------------------------------------------------------------------------------------------------------ figures

    @torch.no_grad()
    def scores(self, batches: Iterable[Batch], rows: Iterable[list[Any]]) -> Scores | None:
        """Bounds on log p(x) over the split. Row n is made black and white, and its codes drawn, by numbers that depend on n
        alone: the same test set for every run. Memory grows neither with the rows of a batch nor with `samples`."""
        parts, used, first = [], LatentUse(self.coder.latent), 0
        few = max(1, AT_ONCE // (min(PIECE, self.samples) * self.pixels))
        for batch in (part for whole in batches for part in split_rows(whole, -(-count_rows(whole) // few))):
            noise = RowNoise(0, first, len(batch["x"]), self.device)
            first += len(batch["x"])
            x = self.likelihood.observe(batch["x"].to(self.device), noise.uniform(*self.coder.shape))
            y = batch["y"].to(self.device) if "y" in batch and self.coder.classes else self._class(x)
            mean, log_var = self.coder.encode(x, y)
            used.add(mean, kl_to_standard(mean, log_var))
            found = evidence(mean, log_var, self._log_likelihood(x, y), lambda s, n=noise: n.normal(s, self.coder.latent),
                             self.samples, PIECE)  # fmt: skip
            both = torch.stack([found.elbo, found.bound], 1).cpu()
            parts.append(torch.cat([self.likelihood.per_pixel(both, self.pixels), torch.ones(len(both), 1).double()], 1))
        if not parts:
            return None
        bits = self.pixels * math.log(2)
        figures = {
            "elbo": Figure("ELBO in nats per picture", lambda s: s[:, 0] / s[:, 2]),
            "bound": Figure(f"bound of {self.samples} draws in nats", lambda s: s[:, 1] / s[:, 2]),
            "bits_per_pixel": Figure("bits per pixel", lambda s: -s[:, 1] / s[:, 2] / bits),
        }
        return Scores(figures, torch.cat(parts), of="pictures", beside=used.words())

    # -------------------------------------------------------------------------------------------------------------- inside

    @torch.no_grad()
    def views(self, batches: Callable[[], Iterable[Batch]]) -> Iterator[View]:
        """Map and grid of the latent space, lines between pictures, reconstructions, what each number says."""
        used, codes, labels, kept, told = LatentUse(self.coder.latent), [], [], None, None
        for batch in batches():
            x = batch["x"].to(self.device)
            y = self._class(x) if "y" not in batch else batch["y"].to(self.device)
            mean, log_var = self.coder.encode(x, y if self.coder.classes else None)
            used.add(mean, kl_to_standard(mean, log_var))
            codes.append(mean.float().cpu())
            labels += [self.classes[i] for i in batch["y"].tolist()] if "y" in batch and self.classes else [""] * len(x)
            kept, told = (x, y) if kept is None else (kept, told)
            if len(labels) >= LOOKED_AT:
                break
        if kept is None:
            return
        z = torch.cat(codes)
        most = 0 if self.coder.classes else None  # what a network that is told classes draws on the grid: the first class
        yield latents.latent_map(z, labels)
        yield latents.latent_grid(z, lambda z: self._pictures(z, most))
        pairs = len(kept) // 2
        if number := min(6, pairs):
            ends = (z[:number], z[number : 2 * number])
            yield latents.interpolation(*ends, lambda z, row: self._pictures(z, told[row] if told is not None else None))
        given = kept[:SHOWN]
        yield latents.reconstructions(self.to_uint8(given), self.to_uint8(self.reconstruct(given)))
        if self.coder.classes:
            yield self._by_class()
        yield latents.kl_per_number(used)

    def _by_class(self) -> View:
        """The same codes for every class, a row each."""
        shown = min(self.coder.classes, 20)
        z = row_normal(0, 0, SHOWN, (self.coder.latent,)).repeat(shown, 1)
        y = torch.arange(shown).repeat_interleave(SHOWN)
        return View(
            "by-class",
            "The same codes for every class, a row each",
            "pictures",
            {"columns": SHOWN, "captions": []},
            self._pictures(z, y),
        )

    def _pictures(self, z: Tensor, y: Tensor | int | None) -> Tensor:
        """uint8 pictures of codes; `y` is a class, or one per code."""
        told = None
        if self.coder.classes:
            told = torch.as_tensor(0 if y is None else y, device=self.device).expand(len(z))
        return self.to_uint8(self.likelihood.picture(self.coder.decode(z.to(self.device), told)))

    def _log_likelihood(self, x: Tensor, y: Tensor | None) -> Callable[[Tensor], Tensor]:
        """z (B, S, L) to log p(x | z) (B, S)."""

        def of(z: Tensor) -> Tensor:
            told = None if y is None else y.repeat_interleave(z.shape[1])
            out = self.coder.decode(z.flatten(0, 1), told).unflatten(0, z.shape[:2])
            return self.likelihood.log_density(x[:, None], out)

        return of

    def _class(self, x: Tensor) -> Tensor | None:
        """The class whose bound is best, (B,); None for a network that is not told classes."""
        if not self.coder.classes:
            return None
        costs = []
        for number in range(self.coder.classes):
            y = torch.full((len(x),), number, device=x.device)
            mean, log_var = self.coder.encode(x, y)
            fits = self.likelihood.log_density(x, self.coder.decode(mean, y))
            costs.append(kl_to_standard(mean, log_var).sum(1) - fits)
        return torch.stack(costs).argmin(0)
