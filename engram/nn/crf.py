"""Linear-chain conditional random field over tag sequences.

Papers: Lafferty et al. 2001; Lample et al. 2016, section 2.2. The score of a path y of n tags is

    start[y1] + end[yn] + sum of scores[t, yt] + sum of transitions[yt, yt+1]

and its probability exp(score) over the sum for all paths (Eq. of section 2.2). Differs: transitions, starts and ends may be
forbidden; a forbidden one scores FORBIDDEN, whose exponential is 0, so paths that take it have no share and no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FORBIDDEN = -1e4


class CRF(nn.Module):
    """Scores (B, T, tags) and lengths (B,) to path probabilities and best paths. Numbers beyond the lengths change nothing.

    allowed:  (tags, tags) bool, from row to column; None = all
    starts, ends: (tags,) bool, tags that may be first, last; None = all
    learned:  False: transitions, starts and ends score 0, and only what is forbidden counts
    """

    def __init__(
        self,
        tags: int,
        allowed: Tensor | None = None,
        starts: Tensor | None = None,
        ends: Tensor | None = None,
        learned: bool = True,
    ) -> None:
        super().__init__()
        shapes = {"transitions": (tags, tags), "start": (tags,), "end": (tags,)}
        for (name, shape), mask in zip(shapes.items(), (allowed, starts, ends), strict=True):
            mask = torch.ones(shape, dtype=torch.bool) if mask is None else mask
            if mask.shape != shape:
                raise ValueError(f"{name} of {tags} tags need a mask of shape {shape}, got {tuple(mask.shape)}")
            self.register_buffer(f"{name}_mask", mask, persistent=False)
            if learned:
                self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
            else:
                self.register_buffer(name, torch.zeros(shape), persistent=False)

    def forward(self, scores: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Log-probability (B,) of the paths `tags` (B, T), whose numbers beyond the lengths are not read."""
        return self.score(scores, tags, lengths) - self.log_partition(scores, lengths)

    def score(self, scores: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """The score (B,) of the paths `tags` (B, T); 0 for a row of length 0."""
        scores, (transitions, start, end) = _precise(scores), self.tables()
        real = _real(scores, lengths)
        tags = tags.masked_fill(~real, 0)
        each = scores.gather(2, tags[..., None])[..., 0]  # (B, T)
        moves = transitions[tags[:, :-1], tags[:, 1:]].masked_fill(~real[:, 1:], 0)
        last = tags.gather(1, (lengths - 1).clamp(min=0)[:, None])[:, 0]
        total = each.masked_fill(~real, 0).sum(1) + moves.sum(1) + start[tags[:, 0]] + end[last]
        return total.masked_fill(lengths == 0, 0)

    def log_partition(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """log of the sum of exp(score) over all paths (B,); 0 for a row of length 0."""
        scores, (transitions, start, end) = _precise(scores), self.tables()
        real = _real(scores, lengths)
        total = start + scores[:, 0]  # (B, tags): log-sum over all paths so far that end in each tag
        for step in range(1, scores.shape[1]):
            grown = (total[:, :, None] + transitions).logsumexp(1) + scores[:, step]
            total = torch.where(real[:, step, None], grown, total)
        return (total + end).logsumexp(1).masked_fill(lengths == 0, 0)

    @torch.no_grad()
    def decode(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """The best path of each row (B, T) int64 by Viterbi's algorithm, -1 beyond the lengths."""
        scores, (transitions, start, end) = _precise(scores), self.tables()
        real = _real(scores, lengths)
        total = start + scores[:, 0]
        stay = torch.arange(scores.shape[2], device=scores.device).expand_as(total)
        back: list[Tensor] = []
        for step in range(1, scores.shape[1]):
            best, origin = (total[:, :, None] + transitions).max(1)
            here = real[:, step, None]
            total = torch.where(here, best + scores[:, step], total)
            back.append(torch.where(here, origin, stay))
        path = [(total + end).argmax(1)]
        for origin in reversed(back):
            path.append(origin.gather(1, path[-1][:, None])[:, 0])
        return torch.stack(path[::-1], 1).masked_fill(~real, -1)

    def allows(self, tags: Tensor, lengths: Tensor) -> Tensor:
        """(B,) bool: whether nothing in the paths `tags` (B, T) is forbidden."""
        zeros = torch.zeros(*tags.shape, len(self.get_buffer("start_mask")), device=tags.device)
        return self.score(zeros, tags, lengths) > FORBIDDEN / 2

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Transitions (tags, tags), starts (tags,) and ends (tags,), FORBIDDEN where they are."""
        names = ("transitions", "start", "end")
        transitions, start, end = (
            _precise(getattr(self, n)).masked_fill(~self.get_buffer(f"{n}_mask"), FORBIDDEN) for n in names
        )
        return transitions, start, end


def _precise(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _real(scores: Tensor, lengths: Tensor) -> Tensor:
    return torch.arange(scores.shape[1], device=scores.device) < lengths[:, None]  # (B, T)
