"""(f) A write in bulk that goes row by row, because its receiver reads other rows of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.inline.bulk import (
    CREATE,
    CRITICAL,
    SAVES,
    SAVES_AGAIN,
    UPDATE,
    Way,
    create,
    create_each,
    timed,
    update,
    update_each,
)
from benchmarks.inline.models import CriticalInTurn, SignalInTurn
from benchmarks.inline.plan import Plan
from benchmarks.options import turned
from benchmarks.results import Comparison, Results, compared
from benchmarks.timings import Aim

AGAINST_SAVES = Aim(1.1, at_most=True)

WAYS = {
    CREATE: {
        CRITICAL: Way(CriticalInTurn, create),
        SAVES: Way(SignalInTurn, create_each),
        SAVES_AGAIN: Way(SignalInTurn, create_each),
    },
    UPDATE: {
        CRITICAL: Way(CriticalInTurn, update),
        SAVES: Way(SignalInTurn, update_each),
        SAVES_AGAIN: Way(SignalInTurn, update_each),
    },
}


class InTurn:
    """Every way takes its turn, for each operation."""

    section = "f"

    def __init__(self, plan: Plan, results: Results) -> None:
        self.rows = plan.rows // 10
        self.results = results
        results.note("f", f"{self.rows:,} rows in one transaction.")

    def round(self, number: int, say: Callable[[str], None]) -> None:
        for operation, ways in WAYS.items():
            for name in turned(list(ways), number):
                say(f"{operation}: {name}")
                self.results.add("f", operation, name, timed(ways[name], self.rows) * 1e3)


def comparisons(results: Results) -> Iterator[Comparison]:
    for operation in WAYS:
        ours = results.of("f", operation, CRITICAL)
        saves = results.mean_of("f", operation, SAVES, SAVES_AGAIN)
        yield compared("f", operation, f"{CRITICAL} ÷ {SAVES}", (ours, saves), AGAINST_SAVES)
        again = results.of("f", operation, SAVES_AGAIN), results.of("f", operation, SAVES)
        yield compared("f", operation, "noise: save() ÷ save()", again)
