"""One figure for many calls of the same."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import quantiles


def undisturbed(seconds: Sequence[float]) -> float:
    """The lower quartile: whatever else the machine does makes a call slower, and none faster."""
    return quantiles(seconds, n=4)[0]
