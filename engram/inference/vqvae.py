"""A trained vector-quantised autoencoder in use: pictures to code numbers and back, and what the codes stand for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.predictor import Field, Figure, Scores, View
from engram.core.spec import Spec
from engram.inference import latents
from engram.inference.pictures import Pictures
from engram.nn.codebook import Codebook, perplexity

SHOWN = 10
CODES = 64  # codes that are drawn
LOOKED_AT = 2000  # test pictures of the views


class Quantiser(Protocol):
    """What is asked of a model."""

    codebook: Codebook
    grid: tuple[int, int]

    def encode_ids(self, x: Tensor) -> Tensor: ...

    def decode_ids(self, ids: Tensor) -> Tensor: ...


class CodedPictures(Pictures):
    """`model` turns pictures into a grid of code numbers and these into pictures."""

    gives: ClassVar = {"error": Field("number", "root mean squared error of the reconstruction, pixels from 0 to 1")}
    verbs: ClassVar = frozenset({"encode", "reconstruct"})

    def __init__(self, model: nn.Module, spec: Spec):
        self.model, self.spec = model, spec
        self.net: Quantiser = model  # type: ignore[assignment]
        self.device = next(model.parameters()).device

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Code numbers (B, *grid) int64."""
        return self.net.encode_ids(x.to(self.device))

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """What the codes decode to."""
        return self.net.decode_ids(self.encode(x))

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"error": (B,)}."""
        x = batch["x"].to(self.device)
        return {"error": self._error(x, self.reconstruct(x)).sqrt()}

    def __call__(self, *, images: Any) -> dict[str, list[Any]]:
        """{"error": one number per picture}."""
        return {"error": self.outputs(self.spec.encode(images))["error"].tolist()}

    def scores(self, batches: Iterable[Batch], rows: Iterable[list[Any]]) -> Scores | None:
        """Error and signal-to-noise ratio of the reconstruction, and how many codes are in use."""
        errors, counts = [], self._counts()
        pixels = 1
        for batch in batches:
            x = batch["x"].to(self.device)
            ids, pixels = self.encode(x), x[0].numel()
            counts += torch.bincount(ids.flatten().cpu(), minlength=len(counts))
            errors.append(self._error(x, self._decoded(ids)))
        if not errors:
            return None
        mean = torch.cat(errors).double()
        bits = math.prod(self.net.grid) * math.log2(len(counts)) / pixels
        figures = {
            "psnr": Figure("PSNR of the codes in dB", lambda s: -10 * (s[:, 0] / s[:, 1]).log10()),
            "rmse": Figure("RMSE of pixels 0 to 1", lambda s: (s[:, 0] / s[:, 1]).sqrt()),
        }
        dead = int((counts == 0).sum())
        use = f"{float(perplexity(counts)):.1f} of {len(counts)} codes in use (perplexity), {dead} dead"
        beside = f"{bits:.3g} bits per pixel; {use}"
        return Scores(figures, torch.stack([mean, torch.ones_like(mean)], 1), of="pictures", beside=beside)

    def views(self, batches: Callable[[], Iterable[Batch]]) -> Iterator[View]:
        """Reconstructions, how often each code is used, and what a picture of one code alone looks like."""
        counts, kept, seen = self._counts(), None, 0
        for batch in batches():
            kept, seen = batch["x"] if kept is None else kept, seen + len(batch["x"])
            counts += torch.bincount(self.encode(batch["x"]).flatten().cpu(), minlength=len(counts))
            if seen >= LOOKED_AT:
                break
        if kept is None:
            return
        given = kept[:SHOWN]
        yield latents.reconstructions(self.to_uint8(given), self.to_uint8(self.reconstruct(given)))
        order = counts.argsort(descending=True, stable=True)
        title = f"How often each code is used: {int((counts > 0).sum())} of {len(counts)} are"
        bars = {
            "names": [str(i) for i in order.tolist()],
            "values": [float(c) for c in counts[order]],
            "ylabel": "times chosen",
        }
        yield View("codes-in-use", title, "bars", bars)
        most = order[: min(CODES, int((counts > 0).sum()))]
        alone = most[:, None, None].expand(-1, *self.net.grid).to(self.device)
        captions = {"columns": 8, "captions": [str(i) for i in most.tolist()]}
        yield View("codes", "The most used codes, each alone", "pictures", captions,
                   self.to_uint8(self._decoded(alone)))  # fmt: skip

    @torch.no_grad()
    def _decoded(self, ids: Tensor) -> Tensor:
        return self.net.decode_ids(ids)

    def _counts(self) -> Tensor:
        return torch.zeros(len(self.net.codebook.vectors), dtype=torch.int64)

    def _error(self, x: Tensor, back: Tensor) -> Tensor:
        """Mean squared error of each picture (B,) on the CPU, pixels from 0 to 1."""
        spec: Any = self.spec
        std = torch.tensor(spec.std, device=x.device).view(1, -1, 1, 1)
        return ((x - back.float()) * std).square().flatten(1).mean(1).cpu()
