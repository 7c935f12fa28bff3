"""The measurements and ratios of a benchmark in sections. Does not import Django."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean

from benchmarks.timings import Aim, Spread, ratio


@dataclass(frozen=True)
class Key:
    """What was measured.

    Attributes:
        section: its letter.
        measure: what is compared within the section.
        variant: the measured variant.
    """

    section: str
    measure: str
    variant: str


@dataclass(frozen=True)
class Comparison:
    """A ratio, and what it should be.

    Attributes:
        section: its letter.
        measure: what was measured.
        subject: what is divided by what.
        aim: None where the ratio is only there to read the others by.
    """

    section: str
    measure: str
    subject: str
    aim: Aim | None
    ratio: Spread

    @property
    def verdict(self) -> str:
        if self.aim is None:
            return ""
        return "reached" if self.aim.reached_by(self.ratio.middle) else "missed"


@dataclass
class Results:
    """The results of a run.

    Attributes:
        values: one per round, by measurement.
        notes: remarks by section.
        rivals: the libraries in comparison.
    """

    values: dict[Key, list[float]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    rivals: list[str] = field(default_factory=list)

    def add(self, section: str, measure: str, variant: str, value: float) -> None:
        self.values.setdefault(Key(section, measure, variant), []).append(value)

    def note(self, section: str, text: str) -> None:
        noted = self.notes.setdefault(section, [])
        if text not in noted:
            noted.append(text)

    def of(self, section: str, measure: str, variant: str) -> list[float]:
        return self.values[Key(section, measure, variant)]

    def has(self, section: str, measure: str, variant: str) -> bool:
        return Key(section, measure, variant) in self.values

    def mean_of(self, section: str, measure: str, *variants: str) -> list[float]:
        """The mean of the same thing measured several times, round by round."""
        listed = [self.of(section, measure, variant) for variant in variants]
        return [mean(values) for values in zip(*listed, strict=True)]

    def best_of(
        self, section: str, measures: Sequence[str], variants: Sequence[str]
    ) -> list[float]:
        """The highest of several, round by round."""
        listed = [
            self.of(section, measure, variant)
            for variant in variants
            for measure in measures
            if self.has(section, measure, variant)
        ]
        return [max(values) for values in zip(*listed, strict=True)]


def compared(
    section: str,
    measure: str,
    subject: str,
    pair: tuple[Sequence[float], Sequence[float]],
    aim: Aim | None = None,
) -> Comparison:
    """The first of a pair divided by the second, round by round."""
    return Comparison(section, measure, subject, aim, ratio(*pair))
