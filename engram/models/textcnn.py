"""TextCNN: convolutions of several widths over the words of a text, the maximum of each, one linear layer.

Paper: Kim 2014, "Convolutional neural networks for sentence classification", Eq. 2-4 (ReLU, max over time, dropout before
the last layer). Differs: no limit on the norm of the last layer's weights (weight decay does that work), a text shorter
than a window is read with zeros after it. With `grams` a linear classifier of hashed n-grams adds its logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.nn.gram_votes import GramVotes


class TextCNN(nn.Module):
    """Texts (B, T) of `lengths` (B,) to logits (B, classes).

    embed:     width of the word table
    widths:    words in the window of each convolution
    channels:  of each convolution
    dropout:   share of the maxima set to zero in training
    grams:     numbers that n-grams are hashed to (see engram.data.grams), the lower half of words; 0 without
    """

    def __init__(
        self,
        vocab: int,
        classes: int,
        embed: int = 300,
        widths: tuple[int, ...] = (3, 4, 5),
        channels: int = 100,
        dropout: float = 0.5,
        grams: int = 0,
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise ValueError(f"widths are the words of each window, at least one of at least 1; got {widths}")
        self.embed = nn.Embedding(vocab, embed)
        nn.init.uniform_(self.embed.weight, -0.25, 0.25)  # Kim 2014, section 3.2: words without a given vector
        self.convs = nn.ModuleList(nn.Conv1d(embed, channels, width) for width in widths)
        self.widths = widths
        self.dropout = nn.Dropout(dropout)
        self.grams = GramVotes(grams, classes) if grams else None
        self.head = nn.Linear(len(widths) * channels, classes)

    def forward(self, tokens: Tensor, lengths: Tensor, grams: Tensor | None = None) -> Tensor:
        """(B, T), (B,) and n-grams (B, G) padded with 0, to (B, classes). What stands beyond the lengths changes nothing."""
        words = tokens.shape[1]
        real = torch.arange(words, device=tokens.device) < lengths[:, None]  # (B, T)
        x = self.embed(tokens).masked_fill(~real[..., None], 0)  # (B, T, embed)
        x = F.pad(x.transpose(1, 2), (0, max(self.widths) - 1))  # (B, embed, T + widest - 1)
        found = [self._strongest(conv(x), lengths, width) for width, conv in zip(self.widths, self.convs, strict=True)]
        logits = self.head(self.dropout(torch.cat(found, 1)))
        return logits if self.grams is None else logits + self.grams(grams)

    def cost(self) -> int:
        """Multiply-adds per word; what acts once per text is left out."""
        return sum(conv.weight.numel() for conv in self.convs)  # type: ignore[union-attr]

    def _strongest(self, y: Tensor, lengths: Tensor, width: int) -> Tensor:
        """The largest of the responses (B, channels, windows) whose window lies within the text, (B, channels)."""
        outside = torch.arange(y.shape[2], device=y.device) > (lengths - width).clamp(min=0)[:, None]
        return y.masked_fill(outside[:, None], -torch.inf).amax(2).relu()
