"""Pictures from words, as in the first DALL-E: a VQ-VAE turns pictures into codes, a Transformer writes codes after a caption.

engram train image_gpt
engram train image_gpt data=photos/
engram sample runs/NAME --prompt "a red circle at the top left"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from engram.core.data import Data
from engram.core.errors import ConfigError
from engram.core.knobs import knob
from engram.core.optim import Optim
from engram.core.predictor import Predictor
from engram.core.recipe import Recipe
from engram.core.task import Task
from engram.data import shapes
from engram.data.caption_spec import CaptionSpec
from engram.data.captions import captions
from engram.data.digit_names import digit_caption
from engram.data.noisy import Noisy
from engram.inference.image_gpt import ImageGPT
from engram.models.gpt import GPT
from engram.models.vqvae import VQVAE
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.tasks.image_tokens import ImageTokens

DECAY = 0.97  # of the codebook's moving averages: quick, since the codec's stage is short


@dataclass(frozen=True, kw_only=True)
class ImageGpt(Recipe):
    """Two stages in one run: the codec until `stage` of the steps, then the Transformer on its codes."""

    tiny: ClassVar = {
        "data": "digit_names", "codes": 16, "code_width": 8, "widths": (8,), "blocks": 1, "stage": 0.3, "layers": 1, "heads": 2,
        "width": 16, "steps": 40, "batch": 24,
    }  # fmt: skip
    specs: ClassVar = (CaptionSpec,)

    data: Any = knob("shapes", "shapes, digit_names, mnist_names, or a folder of pictures with captions")
    epochs: float = knob(10.0, "passes over the training rows, both stages together", low=0)
    batch: int = knob(32, "rows per optimizer step, over all ranks and micro-batches", low=1)
    rows: int = knob(0, "training rows of a built-in set; 0 = all", low=0)
    size: int = knob(0, "side of the pictures in pixels; 0 = as the data suggests", low=0)
    stage: float = knob(0.55, "share of the steps that train the codec", low=0.01, high=0.99)
    codes: int = knob(256, "codes in the codebook", low=2)
    code_width: int = knob(32, "numbers in each code", low=1)
    widths: tuple[int, ...] = knob((32, 64), "channels of the codec's stages; each halves height and width", low=1)
    blocks: int = knob(0, "residual blocks of the codec's encoder and decoder; none keeps codes local", low=0)
    commit: float = knob(0.25, "weight of the encoder's distance to its codes", low=0)
    warm: float = knob(0.3, "share of the codec's steps before it quantises", low=0, high=1)
    layers: int = knob(3, "Transformer blocks", low=1)
    heads: int = knob(3, "attention heads of each block; must divide width", low=1)
    width: int = knob(96, "numbers per token", low=2)
    positions: Literal["learned", "rotary", "sinusoidal"] = knob("learned", "how the network knows the order of the tokens")
    dropout: float = knob(0.0, "share of features dropped in training", low=0, high=0.95)
    without: float = knob(0.1, "share of captions left out in training, which guidance needs", low=0, high=1)
    budget: int = knob(2 << 30, "bytes of images to keep in memory; more is decoded by worker processes", low=0)
    codec_optim: OptimKnobs = knob(OptimKnobs(name="adamw", lr=2e-3, beta2=0.99), "optimizer and schedule of the codec")
    optim: OptimKnobs = knob(OptimKnobs(name="muon", lr=2e-3, beta2=0.99), "optimizer and schedule of the Transformer")

    def make_data(self) -> Data:
        """Pictures of -1 to 1 with captions, and the random numbers of both losses."""
        data = captions(
            self.data, batch=self.batch, seed=self.seed, size=self.size, rows=self.rows, budget=self.budget, scale="signed"
        )
        return Noisy(data, uniform={"keys": (), "drop": ()}, seed=self.seed)

    def make_task(self, spec: CaptionSpec) -> Task:
        """A VQ-VAE, and a GPT whose ids are the words, a start token, and the codes."""
        try:
            codec = VQVAE(spec.channels, spec.height, spec.width, self.codes, self.code_width, self.widths, self.blocks, DECAY)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        places = codec.grid[0] * codec.grid[1]
        words = len(spec.vocab)
        model = GPT(
            words + 1 + self.codes, spec.longest + places, self.layers, self.heads, self.width, positions=self.positions,
            norm="rms", bias=False, dropout=self.dropout,
        )  # fmt: skip
        return ImageTokens(
            model, codec, words, spec.longest, share=self.stage, without=self.without, commit=self.commit, warm=self.warm,
            peak=1 / spec.std[0], film=_film(spec),
        )  # fmt: skip

    def make_optims(self, task: Task) -> dict[str, Optim]:
        """One optimizer for each stage."""
        return {
            "model": build(task.get_submodule("model"), self.optim),
            "codec": build(task.get_submodule("codec"), self.codec_optim),
        }

    def make_predictor(self, task: Task, spec: CaptionSpec) -> Predictor:
        """Makes pictures of prompts."""
        return ImageGPT(task.get_submodule("model"), task.get_submodule("codec"), spec, self.without > 0)


def _film(spec: CaptionSpec) -> Tensor | None:
    """Captions whose pictures are drawn at every evaluation: of shapes, 16 combinations that training never shows."""
    if spec.source == "shapes":
        said = [shapes.caption(scene) for scene in shapes.combinations("test")[::3]]
    elif spec.source:
        said = [digit_caption(digit) for digit in range(10)]
    else:
        return None
    return spec.encode_captions(said)["tokens"]
