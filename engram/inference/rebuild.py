"""A trained autoencoder in use: codes, pictures from their codes, cleaned pictures, and which pictures are odd."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from engram.core.batch import Batch
from engram.core.predictor import Field, Figure, Scores, View
from engram.core.spec import Spec
from engram.inference.latents import latent_map, reconstructions
from engram.inference.odd import roc_curve, told_apart
from engram.inference.pictures import Pictures
from engram.nn.corrupt import corrupt, noise_of
from engram.nn.noise import RowNoise
from engram.nn.psnr import psnr, squared_error, unexplained

LOOKED_AT = 2000  # test pictures of the map
SHOWN = 10
ODDEST = 20


class Rebuilder(Pictures):
    """`model` gives (pictures, codes) of pictures of 0..1, and has `encode`.

    bounded:    a sigmoid makes the model's numbers pixels; otherwise they are clipped to 0..1
    score:      what makes a picture odd, "error" or "unexplained", above `threshold` (below 0: not known)
    odd:        classes that were kept out of training; `noise` and `amount`: what the network learned to remove
    """

    gives: ClassVar = {
        "error": Field("number", "squared error per pixel of the picture that its code gives back, pixels as 0 to 1"),
        "unexplained": Field("number", "that error as a share of the picture's own variance"),
        "odd": Field("label", "yes when that is more than nearly all validation pictures have"),
    }
    verbs: ClassVar = frozenset({"encode", "reconstruct"})

    def __init__(
        self,
        model: nn.Module,
        spec: Spec,
        *,
        bounded: bool = True,
        threshold: float = -1.0,
        score: Literal["error", "unexplained"] = "unexplained",
        odd: tuple[str, ...] = (),
        noise: str = "none",
        amount: float = 0.0,
    ):
        self.model, self.spec, self.bounded = model, spec, bounded
        self.threshold, self.score, self.odd, self.noise, self.amount = threshold, score, odd, noise, amount
        self.device = next(model.parameters()).device
        self.bf16, self.layout = False, torch.contiguous_format

    def tune(self, *, bf16: bool, channels_last: bool) -> None:
        """See Predictor.tune; the model itself stays as it is."""
        self.bf16 = bf16
        if channels_last and any(isinstance(m, nn.Conv2d) for m in self.model.modules()):
            self.layout = torch.channels_last
            self.model = copy.deepcopy(self.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    # ----------------------------------------------------------------------------------------------------------- pictures

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, code), or (B, code, h, w) where they are maps."""
        return self._run(self.model.encode, x).float()  # type: ignore[arg-type]

    def reconstruct(self, x: Tensor) -> Tensor:
        """What the codes of pictures (B, C, H, W) give back, in 0..1."""
        raw = self._run(self.model, x)[0].float()
        return raw.sigmoid() if self.bounded else raw.clamp(0, 1)

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """{"error": (B,), "unexplained": (B,)}."""
        x = batch["x"].to(self.device)
        error = squared_error(self.reconstruct(x), x)
        return {"error": error.cpu(), "unexplained": unexplained(error, x).cpu()}

    def __call__(self, *, images: Any) -> dict[str, list[Any]]:
        """Lists with one entry per picture: error, unexplained, and odd as yes, no, or unknown (no validation pictures)."""
        found = self.outputs(self.spec.encode(images))
        said = ["unknown" if self.threshold < 0 else "yes" if s > self.threshold else "no" for s in found[self.score].tolist()]
        return {name: values.tolist() for name, values in found.items()} | {"odd": said}

    # ------------------------------------------------------------------------------------------------------------ figures

    def scores(self, batches: Iterable[Batch], rows: Iterable[list[Any]]) -> Scores | None:
        """PSNR and error of the split; where some of its pictures are odd, how well the score tells them; where the run removes
        noise, PSNR before and after. The noise of row n depends on n alone: the same test set for every run."""
        columns: dict[str, list[Tensor]] = {}
        first = 0
        for batch in batches:
            found, n = self.outputs(batch), len(batch["x"])
            found |= {"psnr": psnr(found["error"]), "one": torch.ones(n)} | self._cleaned(batch["x"], first)
            if (odd := self._odd(batch)) is not None:
                found["odd"] = odd.float()
            first += n
            for name, value in found.items():
                columns.setdefault(name, []).append(value.double())
        if not columns:
            return None
        held = {name: torch.cat(values) for name, values in columns.items()}
        figures: dict[str, Figure] = {}
        beside = ""
        if "odd" in held and 0 < held["odd"].sum() < first:
            held, area = told_apart(held, held[self.score], self.threshold)
            beside = "guessing has 0.5"
        place = {name: number for number, name in enumerate(held)}

        def ratio(name: str, of: str = "one") -> Callable[[Tensor], Tensor]:
            return lambda s: s[:, place[name]] / s[:, place[of]]

        if beside:
            what = ", ".join(self.odd[:5]) + (" ..." if len(self.odd) > 5 else "")
            both = (ratio("below", "odd"), ratio("above", "normal"))
            figures["roc_auc"] = Figure(f"ROC-AUC of {what} as the odd ones", lambda s: both[0](s) + both[1](s) - area)
            if self.threshold >= 0:
                figures["found"] = Figure("share of the odd ones above the threshold", ratio("found", "odd"), "percent")
                figures["alarms"] = Figure("share of the others above the threshold", ratio("alarms", "normal"), "percent")
        if self.noise != "none":
            figures["psnr_denoised"] = Figure("PSNR in decibels of cleaned pictures", ratio("psnr_denoised"))
            figures["psnr_noisy"] = Figure("PSNR in decibels of the noisy ones", ratio("psnr_noisy"))
            beside = beside or f"the noisy ones have {float(held['psnr_noisy'].mean()):.1f}"
        figures["psnr"] = Figure("PSNR in decibels of reconstructions", ratio("psnr"))
        figures["error"] = Figure("squared error per pixel", ratio("error"))
        figures["unexplained"] = Figure("share of a picture's variance that is missed", ratio("unexplained"))
        return Scores(figures, torch.stack(list(held.values()), 1), of="pictures", beside=beside)

    # ------------------------------------------------------------------------------------------------------------- inside

    def views(self, batches: Callable[[], Iterable[Batch]]) -> Iterator[View]:
        """Map of the codes, pictures and their reconstructions, cleaned pictures; the oddest ones, and the ROC curve."""
        codes: list[Tensor] = []
        labels: list[str] = []
        scores: list[Tensor] = []
        odd: list[Tensor] = []
        oddest: tuple[Tensor, Tensor] | None = None  # pictures and their scores
        start = None
        classes: tuple[str, ...] = self.spec.classes  # type: ignore[attr-defined]
        for batch in batches():
            x, found = batch["x"], self.outputs(batch)[self.score]
            start = x[:SHOWN] if start is None else start
            if len(labels) < LOOKED_AT:
                codes.append(self.encode(x).flatten(1).cpu())
                labels += [classes[i] for i in batch["y"].tolist()] if "y" in batch and classes else [""] * len(x)
            scores.append(found)
            odd += [o] if (o := self._odd(batch)) is not None else []
            pool = (x.cpu(), found) if oddest is None else (torch.cat([oddest[0], x.cpu()]), torch.cat([oddest[1], found]))
            best = pool[1].topk(min(ODDEST, len(pool[1]))).indices
            oddest = pool[0][best], pool[1][best]
        if start is None or oddest is None:
            return
        yield latent_map(torch.cat(codes), labels)
        yield reconstructions(self.to_uint8(start), self.to_uint8(self.reconstruct(start)))
        if self.noise != "none":
            noisy = self._noisy(start.to(self.device), 0)
            rows = torch.cat([self.to_uint8(p) for p in (start, noisy, self.reconstruct(noisy))])
            title = "Test pictures, the same with noise, and cleaned"
            yield View("denoising", title, "pictures", {"columns": len(start), "captions": []}, rows)
        captions = [f"{value:.3g}" for value in oddest[1].tolist()]
        title = "The oddest test pictures, and below what their codes give back"
        rows = torch.cat([self.to_uint8(oddest[0]), self.to_uint8(self.reconstruct(oddest[0]))])
        yield View("oddest", title, "pictures", {"columns": len(captions), "captions": captions}, rows)
        if odd and 0 < int(torch.cat(odd).sum()) < len(torch.cat(odd)):
            yield roc_curve(torch.cat(scores), torch.cat(odd))

    # -------------------------------------------------------------------------------------------------------------- parts

    def _run(self, network: Callable[[Tensor], Any], x: Tensor) -> Any:
        x = x.to(self.device, memory_format=self.layout)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return network(x)

    def _odd(self, batch: Batch) -> Tensor | None:
        """(B,) bool: which pictures are of an odd class. None when there is none, or classes are not known."""
        if not self.odd or "y" not in batch:
            return None
        classes: tuple[str, ...] = self.spec.classes  # type: ignore[attr-defined]
        return torch.isin(batch["y"].cpu(), torch.tensor([classes.index(name) for name in self.odd]))

    def _noisy(self, x: Tensor, first: int) -> Tensor:
        law, shape = noise_of(self.noise, (x.shape[1], x.shape[2], x.shape[3]))
        draw = RowNoise(0, first, len(x), x.device)
        return corrupt(x, self.noise, self.amount, draw.normal(*shape) if law == "normal" else draw.uniform(*shape))

    def _cleaned(self, x: Tensor, first: int) -> dict[str, Tensor]:
        if self.noise == "none":
            return {}
        x = x.to(self.device)
        noisy = self._noisy(x, first)
        before, after = squared_error(noisy, x), squared_error(self.reconstruct(noisy), x)
        return {"psnr_noisy": psnr(before).cpu(), "psnr_denoised": psnr(after).cpu()}


class Denoiser(Rebuilder):
    """A Rebuilder that was trained to remove noise."""

    verbs: ClassVar = frozenset({"encode", "reconstruct", "denoise"})

    def denoise(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) without the noise that the run knows."""
        return self.reconstruct(x)
