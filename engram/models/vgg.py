"""VGG: stacks of 3 x 3 convolutions, Simonyan & Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", table 1, columns A (11 layers), B (13), D (16) and E (19).

Differs: batch norm after each convolution if wanted (Ioffe & Szegedy 2015; without it the deep ones are hard to train),
He's initialisation in place of growing the net in stages, a "small" head, and images of any size: a pool that would
leave nothing of the map is skipped. With the defaults the weights are named as in torchvision, so its files fit.
"""

from __future__ import annotations

from torch import Tensor, nn

from engram.nn import BatchNorm, initialise

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
MULTIPLES = (1, 2, 4, 8, 8)  # of `width`, stage by stage


class VGG(nn.Module):
    """(B, channels, H, W) to logits (B, outputs).

    depth:       layers with weights, with the paper's head: 11, 13, 16 or 19
    batch_norm:  normalise after each convolution
    head:        "imagenet": the map averaged to 7 x 7 at most, two dense layers of 4096 with dropout, the last layer;
                 "small": the mean over the map, then the last layer
    width:       channels of the first stage; the others are 2, 4, 8 and 8 times as wide
    size:        height and width of the images in pixels; others go in too while they pass the same pools
    dropout:     share of values set to zero before the 2nd and 3rd dense layer ("imagenet") or the last ("small")
    init:        one of `engram.nn.SCHEMES`; "auto" is He's normal
    """

    def __init__(
        self,
        depth: int = 11,
        channels: int = 3,
        outputs: int = 1000,
        batch_norm: bool = False,
        head: str = "imagenet",
        width: int = 64,
        size: tuple[int, int] = (224, 224),
        dropout: float = 0.5,
        init: str = "auto",
    ) -> None:
        super().__init__()
        if depth not in CONVOLUTIONS:
            raise ValueError(f"no VGG of depth {depth}: choose from {', '.join(map(str, CONVOLUTIONS))}")
        if head not in ("imagenet", "small"):
            raise ValueError(f"unknown head {head!r}: choose imagenet or small")
        self.size = size
        rows, columns = size
        features: list[nn.Module] = []
        for count, multiple in zip(CONVOLUTIONS[depth], MULTIPLES, strict=True):
            for _ in range(count):
                # Batch norm makes the bias useless; it is here because the published files and counts hold it.
                features.append(nn.Conv2d(channels, width * multiple, 3, padding=1))
                channels = width * multiple
                features += [BatchNorm(channels)] if batch_norm else []
                features.append(nn.ReLU())
            if min(rows, columns) >= 2:
                features.append(nn.MaxPool2d(2))
                rows, columns = rows // 2, columns // 2
        self.features = nn.Sequential(*features)
        if head == "imagenet":
            rows, columns = min(rows, 7), min(columns, 7)
            self.avgpool = nn.AdaptiveAvgPool2d((rows, columns))
            self.classifier = nn.Sequential(
                nn.Linear(channels * rows * columns, 4096), nn.ReLU(), nn.Dropout(dropout),
                nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(dropout),
                nn.Linear(4096, outputs),
            )  # fmt: skip
        else:
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, outputs))
        initialise(self, init, "relu")
        initialise(self.classifier[-1], init, "linear")

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, outputs)."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))

    def cost(self) -> int:
        """Multiply-adds per image of `size`, convolutions and dense layers."""
        (rows, columns), total = self.size, 0
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                total += layer.weight.numel() * rows * columns
            elif isinstance(layer, nn.MaxPool2d):
                rows, columns = rows // 2, columns // 2
        return total + sum(layer.weight.numel() for layer in self.classifier if isinstance(layer, nn.Linear))
