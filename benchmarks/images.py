"""Generators of pictures beside their peers, in one run.  python -m benchmarks.images unet | sampling | gan | vae

unet      a training step of a diffusion U-Net, 16 pictures of 32 x 32, about 2 M weights and 0.3 G multiply-adds a picture
sampling  16 pictures of 32 x 32 from a U-Net of that size, 20 steps of DPM-Solver++(2M)
gan       a step of DCGAN without R1: one update of the discriminator, one of the generator, batch 64
vae       a step of a dense VAE 784-200-200-50, batch 128
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Contender, compare, finish, options
from benchmarks.worker import serve

if TYPE_CHECKING:
    from benchmarks.image_peers import Contestant

WORKS: dict[str, tuple[str, str, str, dict[str, str]]] = {  # what it is, unit, reference, contender -> module:class
    "unet": (
        "training step of a U-Net, widths 32 64 96, attention at 8 x 8, 16 grey pictures of 32 x 32, AdamW",
        "step",
        "diffusers",
        {"diffusers": "image_peers:DiffusersStep", "engram": "image_ours:UNetStep", "engram_default": "image_ours:UNetDefault"},
    ),
    "sampling": (
        "16 pictures of 32 x 32 by 20 steps of DPM-Solver++(2M), the same U-Nets",
        "step",
        "diffusers",
        {
            "diffusers": "image_peers:DiffusersSampling",
            "diffusers_ddim": "image_peers:DiffusersDDIM",
            "engram": "image_ours:Sampling",
            "engram_default": "image_ours:SamplingDefault",
        },
    ),
    "gan": (
        "DCGAN step without R1 or norms on 28 x 28, latent 64, features 64 (generator) and 32 (discriminator), batch 64, Adam",
        "step",
        "hand",
        {"hand": "image_peers:HandGan", "engram": "image_ours:GanStep", "engram_default": "image_ours:GanDefault"},
    ),
    "vae": (
        "dense VAE 784-200-200-50, tanh, pixels binarised at every step, batch 128, Adam, an epoch of 200 steps",
        "step",
        "hand",
        {
            "hand": "vae_peers:HandVae",
            "keras_torch": "vae_peers:KerasVae",
            "keras_jax": "vae_peers:KerasVaeJax",
            "keras_jax_once": "vae_peers:KerasVaeOnce",
            "engram": "image_ours:VaeStep",
            "engram_default": "image_ours:VaeDefault",
        },
    ),
}


def contestant(work: str, name: str, quick: bool, threads: int) -> Contestant:
    """A contender, in this process."""
    module, _, cls = WORKS[work][3][name].partition(":")
    return getattr(importlib.import_module(f"benchmarks.{module}"), cls)(quick, threads)


def worker(work: str, name: str, quick: str, threads: str) -> None:
    """Serve one contender; it is built at the first question, so that a package that is missing becomes a reply."""
    made: list[Contestant] = []

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        if not made:
            made.append(contestant(work, name, quick == "1", int(threads)))
        return made[0].hello() if question["do"] == "hello" else made[0].run(question["round"])

    serve(answer)


def main() -> int:
    """The command line."""
    if sys.argv[1:2] == ["--serve"]:
        worker(*sys.argv[2:])
        return 0
    parser = options((__doc__ or "").splitlines()[0])
    parser.add_argument("work", choices=WORKS)
    asked = parser.parse_args()
    about, unit, reference, classes = WORKS[asked.work]
    ends = (str(int(asked.quick)), str(asked.threads))
    rows = [Contender(name, ("-m", "benchmarks.images", "--serve", asked.work, name, *ends), {"JAX_PLATFORMS": "cpu"})
            for name in classes]  # fmt: skip
    name = f"images-{asked.work}" + (f"-{asked.threads}-threads" if asked.threads else "")
    return finish(compare(name, rows, asked, reference=reference, unit=unit, about=about))


if __name__ == "__main__":
    sys.exit(main())
