"""Inception-v3 as the judge, with weights that the user has: features of published FIDs, which need about 50,000 pictures."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from engram.app.judge import Judge
from engram.app.machine import choose_device
from engram.checkpoint.files import read_tensors
from engram.core.errors import RunError
from engram.models.inception import from_weights


def inception_judge(path: Path, own: Judge) -> Judge:
    """Features of the weights in `path`, safetensors by torchvision's names; classes by our `own` judge.

    Raises RunError when the file is missing, damaged, or holds something else.
    """
    try:
        network = from_weights(read_tensors(path).tensors)
    except ValueError as error:
        raise RunError(f"{path}: {error}") from None
    device = choose_device("auto")
    network.to(device)

    def look(x: Tensor) -> tuple[Tensor, Tensor | None]:
        _, classes = own.look(x)
        features = [network(part.to(device).float() / 127.5 - 1) for part in x.split(25)]  # 5.7 G multiply-adds a picture
        return torch.cat(features), classes

    about = f"Inception-v3 ({network.variant}) from {path}; an FID of fewer than 50,000 pictures is not the published one"
    if own.classes:
        about += f"; classes by {own.about.partition(';')[0]}"
    return Judge(about, look, own.classes, own.accuracy)
