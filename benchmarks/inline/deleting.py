"""(e) ``delete()`` of a queryset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from benchmarks.inline import database
from benchmarks.inline.bulk import CRITICAL, Way, Write, timed
from benchmarks.inline.models import CriticalDeleted, OrderTable, SignalDeleted
from benchmarks.inline.plan import Plan
from benchmarks.inline.single import PLAIN, PLAIN_AGAIN
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
        seconds: dict[str, list[float]] = {name: [] for name in TABLES}
        for repeat in range(self.plan.repeats):
            for name in turned(list(TABLES), number + repeat):
                say(name)
                seconds[name].append(timed(Way(TABLES[name], delete), self.plan.rows))
        for name, taken in seconds.items():
            self.results.add("e", MEASURE, name, median(taken) * 1e3)


def delete(model: Any, rows: int) -> Write:
    database.fill(model, rows)
    found = model.objects.filter(quantity__gte=0)
    return found.delete


def comparisons(results: Results) -> Iterator[Comparison]:
    ours = results.of("e", MEASURE, CRITICAL)
    plain = results.mean_of("e", MEASURE, PLAIN, PLAIN_AGAIN)
    yield compared("e", MEASURE, f"{CRITICAL} ÷ {PLAIN}", (ours, plain), AGAINST_SIGNAL)
    again = results.of("e", MEASURE, PLAIN_AGAIN), results.of("e", MEASURE, PLAIN)
    yield compared("e", MEASURE, "noise: plain ÷ plain", again)
