"""The comparisons of the benchmark, each with its aim."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from benchmarks import variants
from benchmarks.timings import (
    Aim,
    Spread,
    Timings,
    added,
    added_ratio,
    baseline,
    noise,
    ratio,
    unpaired_ratio,
)
from benchmarks.variants import BASELINE, BULKSAFE, BY_KEY, CHECKS, CONTROL, OBSERVED

OVERHEAD = Aim(1.10, at_most=True)
AGAINST_HANDWRITTEN = Aim(1.3, at_most=False)
AGAINST_SAVE = Aim(30, at_most=False)
GROWTH = Aim(1.1, at_most=True)
AGAINST_ENFORCED = Aim(1.02, at_most=True)

WHOLE = "whole statement"
ADDED = "added cost"
BELOW_NOISE = "below the noise"

SECTIONS = {
    "a": "(a) with invariants ÷ without",
    "b": "(b) hand-written django-pgtrigger triggers ÷ five invariants",
    "c": "(c) save() with signal receivers ÷ five invariants in bulk, per row",
    "d": "(d) cost per row in the larger table ÷ in the smaller one",
    "e": "(e) observed invariants ÷ enforced ones, for rows that keep them",
}


@dataclass(frozen=True)
class Comparison:
    """A ratio, with its aim.

    Attributes:
        section: a key of ``SECTIONS``.
        rows: the size of the table, the larger one in (d).
        operation: a key of ``variants.OPERATIONS``.
        subject: the compared variants.
        measure: ``WHOLE`` or ``ADDED``.
        aim: None if the ratio is only a reference for others.
        ratio: None if the divisor is below the noise.
    """

    section: str
    rows: int
    operation: str
    subject: str
    measure: str
    aim: Aim | None
    ratio: Spread | None

    @property
    def verdict(self) -> str:
        if self.ratio is None:
            return BELOW_NOISE
        if self.aim is None:
            return ""
        return "reached" if self.aim.reached_by(self.ratio.middle) else "missed"


def comparisons(timings: Timings) -> list[Comparison]:
    """All comparisons that the times allow."""
    found: list[Comparison] = []
    for rows in timings.sizes:
        for operation in variants.BULK_OPERATIONS:
            found += _against_none(timings, rows, operation)
            found += _against_handwritten(timings, rows, operation)
            found += _against_save(timings, rows, operation)
            found += _against_enforced(timings, rows, operation)
    if len(timings.sizes) > 1:
        for operation in variants.BULK_OPERATIONS:
            found += _growth(timings, timings.sizes[0], timings.sizes[-1], operation)
    return sorted(found, key=lambda comparison: comparison.section)


def without_rules(timings: Timings, rows: int, operation: str) -> list[float]:
    return baseline(timings.of(rows, operation, BASELINE), timings.of(rows, operation, CONTROL))


def noise_of(timings: Timings, rows: int, operation: str) -> float:
    return noise(timings.of(rows, operation, BASELINE), timings.of(rows, operation, CONTROL))


def added_cost(timings: Timings, rows: int, operation: str, variant: str) -> list[float]:
    return added(timings.of(rows, operation, variant), without_rules(timings, rows, operation))


def _against_none(timings: Timings, rows: int, operation: str) -> Iterator[Comparison]:
    control = ratio(timings.of(rows, operation, CONTROL), timings.of(rows, operation, BASELINE))
    label = BY_KEY[CONTROL].label
    yield Comparison("a", rows, operation, label, WHOLE, None, control)
    without = without_rules(timings, rows, operation)
    for key in (BULKSAFE, CHECKS):
        found = ratio(timings.of(rows, operation, key), without)
        yield Comparison("a", rows, operation, BY_KEY[key].label, WHOLE, OVERHEAD, found)


def _against_handwritten(timings: Timings, rows: int, operation: str) -> Iterator[Comparison]:
    ours = added_cost(timings, rows, operation, BULKSAFE)
    measurable = median(ours) > noise_of(timings, rows, operation)
    for key in variants.HANDWRITTEN:
        if timings.has(rows, operation, key):
            label = BY_KEY[key].label
            theirs = added_cost(timings, rows, operation, key)
            of_added = added_ratio(theirs, ours) if measurable else None
            yield Comparison("b", rows, operation, label, ADDED, AGAINST_HANDWRITTEN, of_added)
            whole = ratio(timings.of(rows, operation, key), timings.of(rows, operation, BULKSAFE))
            yield Comparison("b", rows, operation, label, WHOLE, None, whole)


def _against_enforced(timings: Timings, rows: int, operation: str) -> Iterator[Comparison]:
    found = ratio(timings.of(rows, operation, OBSERVED), timings.of(rows, operation, CHECKS))
    label = BY_KEY[OBSERVED].label
    yield Comparison("e", rows, operation, label, WHOLE, AGAINST_ENFORCED, found)


_SAVED_LIKE = {
    variants.BULK_CREATE: variants.SAVE_INSERT,
    variants.UPDATE_INPUT: variants.SAVE_UPDATE,
}


def _against_save(timings: Timings, rows: int, operation: str) -> Iterator[Comparison]:
    """Where ``save()`` was not measured at this size, its time per row at the smallest serves."""
    if operation not in _SAVED_LIKE:
        return
    save = _SAVED_LIKE[operation]
    measured_at = next(
        (size for size in (rows, *timings.sizes) if timings.has(size, save, variants.SIGNALS)),
        None,
    )
    if measured_at is not None:
        theirs = timings.of(measured_at, save, variants.SIGNALS)
        ours = timings.of(rows, operation, BULKSAFE)
        same = measured_at == rows
        found = ratio(theirs, ours) if same else unpaired_ratio(theirs, ours)
        scaled = "" if same else f", scaled from {measured_at:,}"
        subject = f"{variants.OPERATIONS[save]}{scaled}"
        yield Comparison("c", rows, operation, subject, WHOLE, AGAINST_SAVE, found)


def _growth(timings: Timings, small: int, large: int, operation: str) -> Iterator[Comparison]:
    aims = {BASELINE: None, BULKSAFE: GROWTH}
    for key, aim in aims.items():
        found = unpaired_ratio(timings.of(large, operation, key), timings.of(small, operation, key))
        yield Comparison("d", large, operation, BY_KEY[key].label, WHOLE, aim, found)
    in_small = added_cost(timings, small, operation, BULKSAFE)
    in_large = added_cost(timings, large, operation, BULKSAFE)
    measurable = median(in_small) > noise_of(timings, small, operation)
    found_added = unpaired_ratio(in_large, in_small) if measurable else None
    yield Comparison("d", large, operation, BY_KEY[BULKSAFE].label, ADDED, GROWTH, found_added)
