"""Computes ratios from times. Does not import Django, so it is easy to test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import mean, median

Key = tuple[int, str, str]


@dataclass(frozen=True)
class Spread:
    """A median and the range around it."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median(values), min(values), max(values))


@dataclass
class Timings:
    """Seconds per row by (rows in the table, operation, variant), one for each round."""

    values: dict[Key, list[float]] = field(default_factory=dict)

    def add(self, rows: int, operation: str, variant: str, seconds_per_row: float) -> None:
        self.values.setdefault((rows, operation, variant), []).append(seconds_per_row)

    def of(self, rows: int, operation: str, variant: str) -> list[float]:
        return self.values[rows, operation, variant]

    def has(self, rows: int, operation: str, variant: str) -> bool:
        return (rows, operation, variant) in self.values

    @property
    def sizes(self) -> list[int]:
        return sorted({rows for rows, _, _ in self.values})


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """The ratio of times that were taken in the same rounds, round by round."""
    return Spread.of([a / b for a, b in zip(numerators, denominators, strict=True)])


def unpaired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """The ratio of times of different rounds: its range goes from one extreme to the other."""
    above, below = Spread.of(numerators), Spread.of(denominators)
    high = above.high / below.low if below.low > 0 else inf
    return Spread(above.middle / below.middle, above.low / below.high, high)


def baseline(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Both measurements of the table without rules, averaged round by round."""
    return [mean(pair) for pair in zip(first, second, strict=True)]


def added(values: Sequence[float], without: Sequence[float]) -> list[float]:
    """What the rules add to a row, round by round."""
    return [a - b for a, b in zip(values, without, strict=True)]


def noise(first: Sequence[float], second: Sequence[float]) -> float:
    """How far two measurements of the very same are apart, in the median."""
    return median(abs(a - b) for a, b in zip(first, second, strict=True))


def added_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """The ratio of two added costs of the same rounds.

    The middle is the ratio of the medians, because a single round may divide by next to nothing.
    """
    rounds = [a / b if b > 0 else inf for a, b in zip(numerators, denominators, strict=True)]
    return Spread(median(numerators) / median(denominators), min(rounds), max(rounds))


@dataclass(frozen=True)
class Aim:
    """What a ratio should be."""

    value: float
    at_most: bool

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.value:g}"

    def reached_by(self, value: float) -> bool:
        return value <= self.value if self.at_most else value >= self.value
