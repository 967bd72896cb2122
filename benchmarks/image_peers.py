"""The other contenders of `images`: diffusers and plain torch loops."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.worker import Timed, versions

SIDE, PICTURES, WIDTHS = 32, 16, (32, 64, 96)
LATENT, GAN_BATCH, GAN_WIDTHS = 64, 64, (64, 32)
CODE, HIDDEN, VAE_BATCH = 50, 200, 128
ROWS = 200 * VAE_BATCH  # of a VAE epoch


class Contestant:
    """`run` makes `steps` steps under the clock and says what came of them."""

    note = ""
    precision = "fp32"
    allocator = "glibc as it comes"
    packages: tuple[str, ...] = ("torch",)
    steps = 10

    def __init__(self, quick: bool, threads: int):
        self.steps = 3 if quick else self.steps
        if threads:
            torch.set_num_threads(threads)
        self.threads = torch.get_num_threads()
        torch.manual_seed(0)
        self.build()

    def hello(self) -> dict[str, Any]:
        """What the row says of itself."""
        return {
            "versions": versions(*self.packages), "threads": self.threads, "precision": self.precision,
            "allocator": self.allocator, "note": self.note,
        }  # fmt: skip

    def run(self, number: int) -> dict[str, Any]:
        """{"seconds", "cpu", "foreign", "units", "figures"}."""
        torch.manual_seed(number)
        with Timed() as clock:
            figures = self.go()
        return clock.to_json() | {"units": self.steps, "figures": figures}

    def build(self) -> None:
        """Networks, optimizers and data."""
        raise NotImplementedError

    def go(self) -> dict[str, float]:
        """All steps of a round."""
        raise NotImplementedError


def pictures(rows: int, side: int) -> Tensor:
    """Grey pictures (rows, 1, side, side) of -1..1: scikit-learn's digits, enlarged."""
    from sklearn.datasets import load_digits

    loaded: Any = load_digits()
    x = torch.from_numpy(loaded.images).float()[:, None] / 8 - 1
    return F.interpolate(x.repeat(-(-rows // len(x)), 1, 1, 1)[:rows], (side, side), mode="bilinear")


def unet() -> Any:
    """diffusers' UNet2DModel of the size of the comparison."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        SIDE, 1, 1, block_out_channels=WIDTHS, layers_per_block=1, norm_num_groups=16, attention_head_dim=32,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"), resnet_time_scale_shift="scale_shift",
    )  # fmt: skip


class DiffusersStep(Contestant):
    """The loop of diffusers' own training example, without its accelerator: noise, step, AdamW, clipping at 1."""

    note = "UNet2DModel, DDPMScheduler.add_noise, AdamW, clipping at 1, eager"
    packages = ("torch", "diffusers")

    def build(self) -> None:
        """See Contestant."""
        from diffusers import DDPMScheduler

        self.net, self.schedule = unet(), DDPMScheduler()
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-4)
        self.x = pictures(PICTURES * self.steps, SIDE)
        self.note += f"; {sum(p.numel() for p in self.net.parameters()):,} weights"

    def go(self) -> dict[str, float]:
        """See Contestant."""
        self.net.train()
        for x in self.x.split(PICTURES):
            noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
            loss = F.mse_loss(self.net(self.schedule.add_noise(x, noise, t), t).sample, noise)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimizer.step()
        return {"loss": float(loss.detach())}


class DiffusersSampling(Contestant):
    """The loop of diffusers' pipelines: scheduler and network in turn, fp32, eager."""

    note = "UNet2DModel, DPMSolverMultistepScheduler of order 2"
    packages = ("torch", "diffusers")
    steps = 20

    def build(self) -> None:
        """See Contestant."""
        self.net, self.schedule = unet().eval(), self.scheduler()

    def scheduler(self) -> Any:
        """The sampler."""
        from diffusers import DPMSolverMultistepScheduler

        return DPMSolverMultistepScheduler(solver_order=2)

    @torch.no_grad()
    def go(self) -> dict[str, float]:
        """See Contestant."""
        self.schedule.set_timesteps(self.steps)
        x = torch.randn(PICTURES, 1, SIDE, SIDE)
        for t in self.schedule.timesteps:
            x = self.schedule.step(self.net(x, t).sample, t, x).prev_sample
        (x / 2 + 0.5).clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
        return {}


class DiffusersDDIM(DiffusersSampling):
    """The same with DDIM."""

    note = "UNet2DModel, DDIMScheduler"

    def scheduler(self) -> Any:
        """The sampler."""
        from diffusers import DDIMScheduler

        return DDIMScheduler()


class HandGan(Contestant):
    """The loop of the usual DCGAN tutorial on the same two networks: the generator's pictures serve both updates."""

    note = "the same networks in a plain loop, one generator pass per step, fp32, contiguous"

    def build(self) -> None:
        """See Contestant."""
        from engram.models.gan import Discriminator, Generator

        self.g = Generator(1, (28, 28), LATENT, GAN_WIDTHS[0], norm="none")
        self.d = Discriminator(1, (28, 28), GAN_WIDTHS[1])
        self.of_g, self.of_d = (torch.optim.Adam(n.parameters(), 1e-3, (0.0, 0.99)) for n in (self.g, self.d))
        self.x = pictures(GAN_BATCH * self.steps, 28)

    def go(self) -> dict[str, float]:
        """See Contestant."""
        for x in self.x.split(GAN_BATCH):
            fake = self.g(torch.randn(len(x), LATENT))
            self.of_d.zero_grad()
            loss_d = F.softplus(-self.d(x)).mean() + F.softplus(self.d(fake.detach())).mean()
            loss_d.backward()
            self.of_d.step()
            self.of_g.zero_grad()
            F.softplus(-self.d(fake)).mean().backward()
            self.of_g.step()
        return {"loss_d": float(loss_d.detach())}
