"""Words to pictures, as Stable Diffusion does it: diffusion in the codes of an autoencoder, told by a text encoder.

engram train latent_diffusion
engram sample runs/latent_diffusion-shapes-001 --prompt "a red circle at the top left" -o grid.png
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from engram.core.data import Data
from engram.core.errors import ConfigError
from engram.core.knobs import knob
from engram.core.optim import Optim
from engram.core.predictor import Predictor
from engram.core.recipe import Recipe
from engram.core.task import Task
from engram.data.caption_spec import CaptionSpec
from engram.data.captions import captions
from engram.data.noisy import Noisy
from engram.inference.text_to_image import STEPS_MOST, STRONGEST, TextToImage
from engram.models.latent_vae import LatentVAE
from engram.models.text_encoder import TextEncoder
from engram.models.text_unet import TextUNet
from engram.nn.schedule import Schedule
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.latent_denoise import LatentDenoise


@dataclass(frozen=True, kw_only=True)
class LatentDiffusion(Recipe):
    """Latent diffusion guided by captions (Rombach et al. 2022): our own autoencoder, text encoder and U-Net, one run."""

    tiny: ClassVar = {
        "rows": 240, "size": 16, "vae_widths": (8, 16), "widths": (8, 16), "heads": 2, "text_width": 16, "text_layers": 1,
        "epochs": 4, "batch": 32, "sample_steps": 4, "ema": 0.9,
    }  # fmt: skip
    specs: ClassVar = (CaptionSpec,)
    narrow: ClassVar = True  # measured: a step of the U-Net takes 1.1 to 1.3 times as long in bf16

    data: Any = knob("shapes", "shapes, digit_names, mnist_names, or a folder of pictures with captions")
    epochs: float = knob(16.0, "passes over the training rows, both stages together", low=0)
    batch: int = knob(32, "rows per optimizer step, over all ranks and micro-batches", low=1)
    ema: float = knob(0.999, "decay of the moving average of the weights; 0 = none", low=0, high=0.999999)
    size: int = knob(0, "side of the pictures in pixels; 0 = as the data suggests", low=0)
    rows: int = knob(0, "training rows of a built-in set; 0 = all", low=0)
    share: float = knob(0.25, "share of the steps for the autoencoder; the rest is for denoising", low=0.01, high=0.99)
    code: int = knob(4, "numbers at each place of the grid of codes", low=1)
    vae_widths: tuple[int, ...] = knob((16, 64), "channels of the autoencoder; each stage halves the side", low=2)
    kl: float = knob(1e-3, "weight of the KL term of the codes, in nats per number of the picture", low=0)
    text_width: int = knob(64, "numbers per word", low=1)
    text_layers: int = knob(2, "blocks of the text encoder", low=0)
    widths: tuple[int, ...] = knob((48, 96), "channels of the U-Net; each stage halves the side of the grid of codes", low=2)
    heads: int = knob(4, "heads of each attention", low=1)
    schedule: Literal["linear", "cosine", "edm", "flow"] = knob("cosine", "how noise grows with time")
    prediction: Literal["noise", "velocity", "x0"] = knob("velocity", "what the network says of a noisy code")
    drop: float = knob(0.1, "share of rows that are not told their caption, for guidance", low=0, high=1)
    sampler: Literal["ddpm", "ddim", "euler", "heun", "dpm++"] = knob("dpm++", "sampler when none is asked for")
    sample_steps: int = knob(20, "denoising steps when none are asked for", low=1, high=STEPS_MOST)
    guidance: float = knob(
        3.0, "guidance when none is asked for: 1 = as learned, more holds closer to the prompt", low=0, high=STRONGEST
    )
    budget: int = knob(2 << 30, "bytes of pictures to keep in memory; more is decoded by worker processes", low=0)
    optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=1e-3), "optimizer and schedule, one of each per stage")

    def make_data(self) -> Data:
        """Captioned pictures, with the random numbers of both losses beside them."""
        data = captions(
            self.data, batch=self.batch, seed=self.seed, size=self.size, scale="standard", rows=self.rows, budget=self.budget
        )
        spec = data.spec
        assert isinstance(spec, CaptionSpec)
        shape = (self.code, *self._vae(spec).grid)
        return Noisy(data, normal={"eps": shape, "noise": shape}, uniform={"u": (), "drop": ()}, seed=self.seed)

    def make_task(self, spec: CaptionSpec) -> Task:
        """The autoencoder, and the pair of text encoder and U-Net for its codes."""
        vae = self._vae(spec)
        if self.schedule == "flow" and self.prediction == "noise":
            raise ConfigError("schedule=flow begins at noise alone, of which prediction=noise tells no picture; use velocity")
        try:
            text = TextEncoder(len(spec.vocab), spec.longest, self.text_width, self.text_layers, self.heads)
            unet = TextUNet(self.code, vae.grid, self.text_width, self.widths, self.heads)
        except ValueError as wrong:
            raise ConfigError(f"{wrong}; see the knobs heads, text_width and widths") from None
        schedule = Schedule(self.schedule, self.prediction, spread=1.0)
        return LatentDenoise(vae, text, unet, schedule, share=self.share, kl=self.kl, drop=self.drop)

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer per stage."""
        assert isinstance(task, LatentDenoise)
        return {"autoencoder": build(task.vae, self.optim), "denoiser": build(task.denoiser, self.optim)}

    def make_predictor(self, task: Task, spec: CaptionSpec) -> Predictor:
        """New pictures of a prompt, codes, and what there is to see inside."""
        assert isinstance(task, LatentDenoise)
        parts = task.vae, task.denoiser["text"], task.denoiser["unet"]
        guidance = self.guidance if self.drop else 1.0
        return TextToImage(*parts, task.schedule, spec, self.sampler, self.sample_steps, guidance, self.drop > 0)

    def _vae(self, spec: CaptionSpec) -> LatentVAE:
        factor = 2 ** len(self.vae_widths)
        if spec.height % factor or spec.width % factor:
            side = max(factor, spec.height // factor * factor)
            raise ConfigError(
                f"vae_widths with {len(self.vae_widths)} stages need pictures whose sides {factor} divides, and these have "
                f"{spec.height} x {spec.width}; set size={side}"
            )
        return LatentVAE(spec.channels, (spec.height, spec.width), self.code, self.vae_widths)
