"""Randomness as a function of (seed, position): reseeded before every update, so a resumed run repeats the run."""

from __future__ import annotations

import torch


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed the generators that dropout and noise draw from on this device (the CPU's always)."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):  # else it is the current device's generator, whichever that is
            torch.cuda.manual_seed(seed)
