"""(c) One ``save()``."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

from django.db import transaction

from benchmarks.inline import database
from benchmarks.inline.bulk import CRITICAL, TABLES
from benchmarks.inline.orders import new_orders
from benchmarks.inline.plan import Plan
from benchmarks.inline.undisturbed import undisturbed
from benchmarks.options import turned
from benchmarks.results import Comparison, Results, compared
from benchmarks.timings import Aim

AGAINST_SIGNAL = Aim(1.3, at_most=True)

PLAIN, PLAIN_AGAIN = "plain receiver", "plain receiver, again"
INSERT, UPDATE = "INSERT", "UPDATE"
AUTOCOMMIT, ALONE, AMONG = "in autocommit", "alone in atomic()", "one of many in atomic()"

#: How many saves are made before another variant takes its turn.
BLOCK = 20


def _in_autocommit(order: Any) -> float:
    start = perf_counter()
    order.save()
    return perf_counter() - start


def _alone(order: Any) -> float:
    """The transaction that it needs is part of it."""
    start = perf_counter()
    with transaction.atomic():
        order.save()
    return perf_counter() - start


def _among(orders: list[Any]) -> list[float]:
    """What comes once for all is not part of it."""
    with transaction.atomic():
        return [_in_autocommit(order) for order in orders]


MODES: dict[str, Callable[[list[Any]], list[float]]] = {
    AUTOCOMMIT: lambda orders: [_in_autocommit(order) for order in orders],
    ALONE: lambda orders: [_alone(order) for order in orders],
    AMONG: _among,
}


class Single:
    """The variants take turns, a block of saves each."""

    section = "c"

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan = plan
        self.results = results

    def round(self, number: int, say: Callable[[str], None]) -> None:
        for signal, (critical, twin) in TABLES.items():
            tables = {CRITICAL: critical, PLAIN: twin, PLAIN_AGAIN: twin}
            for operation in (INSERT, UPDATE):
                for mode, run in MODES.items():
                    measure = measure_of(operation, mode, signal)
                    say(measure)
                    self._measure(measure, tables, operation, run)

    def _measure(
        self,
        measure: str,
        tables: dict[str, Any],
        operation: str,
        run: Callable[[list[Any]], list[float]],
    ) -> None:
        for model in set(tables.values()):
            database.fill(model, BLOCK)
        database.tidy_buffers()
        taken: dict[str, list[float]] = {name: [] for name in tables}
        gc.collect()
        gc.disable()
        try:
            for repeat in range(self.plan.saves // BLOCK):
                for name in turned(list(tables), repeat):
                    taken[name] += run(orders_of(tables[name], operation))
        finally:
            gc.enable()
        for name, seconds in taken.items():
            self.results.add("c", measure, name, undisturbed(seconds) * 1e6)


def orders_of(model: Any, operation: str) -> list[Any]:
    if operation == INSERT:
        return new_orders(model, BLOCK)
    found = list(model.objects.order_by("pk")[:BLOCK])
    for order in found:
        order.quantity += 1
    return found


def measure_of(operation: str, mode: str, signal: str) -> str:
    return f"{operation} {mode}, {signal}"


def comparisons(results: Results) -> Iterator[Comparison]:
    for signal in TABLES:
        for operation in (INSERT, UPDATE):
            for mode in MODES:
                measure = measure_of(operation, mode, signal)
                ours = results.of("c", measure, CRITICAL)
                plain = results.mean_of("c", measure, PLAIN, PLAIN_AGAIN)
                subject = f"{CRITICAL} ÷ {PLAIN}"
                yield compared("c", measure, subject, (ours, plain), AGAINST_SIGNAL)
                again = results.of("c", measure, PLAIN_AGAIN), results.of("c", measure, PLAIN)
                yield compared("c", measure, "noise: plain ÷ plain", again)
