"""Masks of other proportions than the picture that they are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import engram
from engram.core.errors import DataError
from engram.recipes import find


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> engram.Run:
    knobs = {**find("ddpm").tiny, "steps": 2, "threads": 1}
    return engram.train("ddpm", out=tmp_path_factory.mktemp("runs") / "run", progress=False, report=False, **knobs)


def white(height: int, width: int) -> np.ndarray:
    return np.full((height, width), 255, np.uint8)


def test_a_mask_has_the_proportions_of_the_picture_or_of_the_run(run: engram.Run, tmp_path: Path) -> None:
    """The picture is 24 wide and 12 high; the run's are 8 by 8."""
    image = white(12, 24) - 40
    Image.fromarray(image).save(tmp_path / "wide.png")
    turned = Image.fromarray(white(24, 12))
    turned.getexif()[0x0112] = 6  # held sideways: 24 wide when upright
    good: list[Any] = [
        white(12, 24), white(6, 12), white(25, 49), white(8, 8), white(100, 100), torch.ones(1, 12, 24), [white(12, 24)],
        white(12, 24)[None, :, :, None], tmp_path / "wide.png", (tmp_path / "wide.png").read_bytes(), turned,
    ]  # fmt: skip
    for mask in good:
        for picture in (image, str(tmp_path / "wide.png"), Image.fromarray(image)):
            assert next(run.sample(1, image=picture, mask=mask, steps=1)).arrays.shape == (1, 8, 8, 1)
    bad: list[Any] = [white(24, 12), white(10, 24), torch.ones(24, 12), Image.fromarray(white(30, 40))]
    for mask in bad:
        with pytest.raises(DataError, match=r"proportions than the picture of 24 x 12 and than the 8 x 8 of this run"):
            run.sample(1, image=image, mask=mask, steps=1)
