"""The results of this benchmark."""

from __future__ import annotations

from benchmarks.inline import bulk, deleting, elsewhere, in_turn, single, trips
from benchmarks.inline.plan import SECTIONS
from benchmarks.report import Report

REPORT = Report(
    SECTIONS,
    {
        "a": bulk.comparisons_with_saves,
        "b": bulk.comparisons_with_loops,
        "c": single.comparisons,
        "d": elsewhere.comparisons,
        "e": deleting.comparisons,
        "f": in_turn.comparisons,
        "g": trips.comparisons,
    },
)
