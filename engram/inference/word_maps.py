"""Where in a picture a network that draws looks at each word of a prompt.

Paper: Tang et al. 2023, "What the DAAM: interpreting Stable Diffusion using cross attention", section 3: the weights with which
the places of the grid look at a word, over all layers, heads and steps of the denoising, brought to one size. Differs: shares
of each place, so that all words, with the mark before them, sum to 1 there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.core.predictor import View
from engram.nn.attention import attention_weights

REGIONS = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")


class Looks:
    """What the attentions to words look at, summed while in use as a context.

    unet:  its `looks()` lists the attentions and the sizes of the grids that look
    grid:  the size of the maps
    """

    def __init__(self, unet: Any, grid: tuple[int, int]):
        self.layers, self.grid, self.sum = unet.looks(), grid, torch.zeros(())
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        self.handles = [layer.register_forward_hook(self._adder(size)) for layer, size in self.layers]

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def maps(self, count: int) -> Tensor:
        """(count, S, h, w): the share of each place's attention that each word gets. The first rows of a guided batch are those
        that were told the caption."""
        return self.sum[:count] / self.sum[:count].sum(1, keepdim=True)

    def _adder(self, size: tuple[int, int]) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def add(layer: nn.Module, given: tuple[Any, ...], _: Any) -> None:
            q, k, _, mask = given[:4]
            weights = attention_weights(q, k, mask).mean(1).transpose(1, 2).unflatten(2, size)  # (B, S, h, w)
            self.sum = self.sum + F.interpolate(weights, size=self.grid, mode="nearest")

        return add


def word_views(said: list[str], made: Tensor, maps: Tensor) -> Iterator[View]:
    """Pictures uint8 (B, C, H, W) made of captions, and maps (B, S, h, w) whose first is that of the mark before the words.

    Gives a map per word beside every picture, and for the first caption a table of words by regions.
    """
    maps = maps.float().cpu()
    columns = 1 + max(len(caption.split()) for caption in said)
    tiles: list[Tensor] = []
    names: list[str] = []
    for caption, picture, heat in zip(said, made, maps, strict=True):
        words = caption.split()
        own = heat[1 : 1 + len(words)]
        least, most = own.amin((1, 2), keepdim=True), own.amax((1, 2), keepdim=True)
        grey = F.interpolate(((own - least) / (most - least).clamp(min=1e-9))[:, None], size=picture.shape[1:])
        tiles += [picture, *(255 * grey).byte().expand(-1, len(picture), -1, -1)]
        tiles += [torch.zeros_like(picture)] * (columns - 1 - len(words))
        names += ["made", *words, *[""] * (columns - 1 - len(words))]
    title = "Where the network looks at each word, over all layers, heads and steps: black least, white most"
    yield View("words", title, "pictures", {"columns": columns, "captions": names}, torch.stack(tiles))
    words = said[0].split()
    shares = F.adaptive_avg_pool2d(maps[0, 1 : 1 + len(words)], 3).flatten(1)
    title = f"Share of the attention that each word of {said[0]!r} gets in the nine regions of the picture"
    data = {"values": shares.tolist(), "rows": words, "columns": list(REGIONS)}
    yield View("word-regions", title, "heat", data)
