"""Class weights against imbalance."""

from __future__ import annotations

from collections.abc import Sequence


def balanced(counts: Sequence[int]) -> tuple[float, ...]:
    """Weights n / (classes * count), so that every class counts alike in sum (King & Zeng 2001); 1 for a class without rows."""
    total, present = sum(counts), sum(count > 0 for count in counts)
    return tuple(total / (present * count) if count else 1.0 for count in counts)
