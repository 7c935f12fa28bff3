"""(e) ``delete()`` of a queryset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.inline import database
from benchmarks.inline.bulk import CRITICAL
from benchmarks.inline.models import CriticalDeleted, OrderTable, SignalDeleted
from benchmarks.inline.plan import Plan
from benchmarks.inline.single import PLAIN, PLAIN_AGAIN
from benchmarks.measuring import measured
from benchmarks.options import turned
from benchmarks.results import Comparison, Results, compared
from benchmarks.timings import Aim

AGAINST_SIGNAL = Aim(1, at_most=True)
MEASURE = "delete(), post_delete"

TABLES: dict[str, type[OrderTable]] = {
    CRITICAL: CriticalDeleted,
    PLAIN: SignalDeleted,
    PLAIN_AGAIN: SignalDeleted,
}


class Deleting:
    """Each table in turn."""

    section = "e"

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan = plan
        self.results = results
        results.note("e", f"{plan.rows:,} rows in one transaction.")

    def round(self, number: int, say: Callable[[str], None]) -> None:
        for name in turned(list(TABLES), number):
            say(name)
            self.results.add("e", MEASURE, name, self._measure(TABLES[name]) * 1e3)

    def _measure(self, model: Any) -> float:
        database.fill(model, self.plan.rows)
        database.tidy_buffers()
        rows = model.objects.filter(quantity__gte=0)
        with measured() as elapsed:
            rows.delete()
        return elapsed()


def comparisons(results: Results) -> Iterator[Comparison]:
    ours = results.of("e", MEASURE, CRITICAL)
    plain = results.mean_of("e", MEASURE, PLAIN, PLAIN_AGAIN)
    yield compared("e", MEASURE, f"{CRITICAL} ÷ {PLAIN}", (ours, plain), AGAINST_SIGNAL)
    again = results.of("e", MEASURE, PLAIN_AGAIN), results.of("e", MEASURE, PLAIN)
    yield compared("e", MEASURE, "noise: plain ÷ plain", again)
