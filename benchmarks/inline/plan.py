"""What is measured, and how much."""

from __future__ import annotations

from dataclasses import dataclass

SECTIONS = {
    "a": "(a) a write in bulk beside save() of each row, milliseconds",
    "b": "(b) a write in bulk beside the same write and a loop by hand, milliseconds",
    "c": "(c) one save(), microseconds",
    "d": "(d) statements on tables without critical receivers, microseconds",
    "e": "(e) delete() of a queryset, milliseconds",
    "f": "(f) a write in bulk that goes row by row beside save() of each row, milliseconds",
    "g": "(g) round trips and statements of one write",
}


@dataclass(frozen=True)
class Plan:
    """The sizes of a run.

    Attributes:
        rounds: how often each section is measured.
        rows: how many rows (a), (b) and (e) write; (f) a tenth of these.
        repeats: how many writes one figure of (b) and (e) is the median of.
        saves: how many calls of ``save()`` one figure of (c) is made of.
        statements: how many statements one figure of (d) is made of.
    """

    rounds: int
    rows: int
    repeats: int
    saves: int
    statements: int


FULL = Plan(rounds=7, rows=10_000, repeats=3, saves=300, statements=2_000)
QUICK = Plan(rounds=1, rows=1_000, repeats=1, saves=40, statements=400)
