"""(a) and (b): a write in bulk whose rows a receiver checks, and what one does without that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models import F

from benchmarks.inline import database
from benchmarks.inline.models import (
    CriticalAfter,
    CriticalBefore,
    OrderTable,
    Plain,
    SignalAfter,
    SignalBefore,
)
from benchmarks.inline.orders import new_orders
from benchmarks.inline.plan import Plan
from benchmarks.measuring import measured
from benchmarks.options import turned
from benchmarks.results import Comparison, Results, compared
from benchmarks.timings import Aim

AGAINST_SAVES = Aim(10, at_most=False)

CREATE, UPDATE, RAW_UPDATE = "bulk_create()", "update()", "raw UPDATE"
#: Before an update, a receiver sees the stored row beside the new one: both are kept and read.
AGAINST_HAND: dict[tuple[str, str], Aim | None] = {
    ("post_save", CREATE): Aim(1.2, at_most=True),
    ("post_save", UPDATE): Aim(1.2, at_most=True),
    ("post_save", RAW_UPDATE): None,
    ("pre_save", CREATE): Aim(1.2, at_most=True),
    ("pre_save", UPDATE): Aim(3.5, at_most=True),
    ("pre_save", RAW_UPDATE): Aim(3.5, at_most=True),
}

CRITICAL = "critical receiver"
SAVES, SAVES_AGAIN = "save() of each row, plain receiver", "save() of each row, again"
BY_HAND, BY_HAND_AGAIN = "loop by hand", "loop by hand, again"
UNCHECKED = "without any check"

#: The tables with a critical receiver, and their twins with the same one connected to the signal.
TABLES: dict[str, tuple[type[OrderTable], type[OrderTable]]] = {
    "post_save": (CriticalAfter, SignalAfter),
    "pre_save": (CriticalBefore, SignalBefore),
}

Write = Callable[[], None]


@dataclass(frozen=True)
class Way:
    """A way to write all rows.

    Attributes:
        table: where to.
        prepare: makes ready, untimed, and returns what is timed.
    """

    table: type[OrderTable]
    prepare: Callable[[type[OrderTable], int], Write]


def create(model: Any, rows: int) -> Write:
    database.empty(model)
    orders = new_orders(model, rows)
    return lambda: model.objects.bulk_create(orders)


def create_and_check(model: Any, rows: int) -> Write:
    database.empty(model)
    orders = new_orders(model, rows)

    def write() -> None:
        with transaction.atomic():
            model.objects.bulk_create(orders)
            _check(orders)

    return write


def create_each(model: Any, rows: int) -> Write:
    database.empty(model)
    orders = new_orders(model, rows)

    def write() -> None:
        with transaction.atomic():
            for order in orders:
                order.save()

    return write


def update(model: Any, rows: int) -> Write:
    database.fill(model, rows)
    return lambda: model.objects.update(quantity=F("quantity") + 1)


def update_and_check(model: Any, rows: int) -> Write:
    database.fill(model, rows)

    def write() -> None:
        with transaction.atomic():
            model.objects.update(quantity=F("quantity") + 1)
            _check(model.objects.all())

    return write


def update_in_sql(model: Any, rows: int) -> Write:
    database.fill(model, rows)
    return lambda: _execute_update(model)


def update_in_sql_and_check(model: Any, rows: int) -> Write:
    database.fill(model, rows)

    def write() -> None:
        with transaction.atomic():
            _execute_update(model)
            _check(model.objects.all())

    return write


def _execute_update(model: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {model._meta.db_table} SET quantity = quantity + 1")


def update_each(model: Any, rows: int) -> Write:
    """The rows are in hand: that they have to be fetched is not timed."""
    database.fill(model, rows)
    orders = list(model.objects.order_by("pk"))

    def write() -> None:
        with transaction.atomic():
            for order in orders:
                order.quantity += 1
                order.save()

    return write


def _check(orders: Any) -> None:
    for order in orders:
        if order.amount < 0:
            raise ValidationError("The amount is less than zero.")


def beside_saves(critical: type[OrderTable], twin: type[OrderTable]) -> dict[str, dict[str, Way]]:
    return {
        CREATE: {
            CRITICAL: Way(critical, create),
            SAVES: Way(twin, create_each),
            SAVES_AGAIN: Way(twin, create_each),
        },
        UPDATE: {
            CRITICAL: Way(critical, update),
            SAVES: Way(twin, update_each),
            SAVES_AGAIN: Way(twin, update_each),
        },
    }


def beside_loops(critical: type[OrderTable], _twin: Any) -> dict[str, dict[str, Way]]:
    return {
        CREATE: {
            CRITICAL: Way(critical, create),
            BY_HAND: Way(Plain, create_and_check),
            BY_HAND_AGAIN: Way(Plain, create_and_check),
            UNCHECKED: Way(Plain, create),
        },
        UPDATE: {
            CRITICAL: Way(critical, update),
            BY_HAND: Way(Plain, update_and_check),
            BY_HAND_AGAIN: Way(Plain, update_and_check),
            UNCHECKED: Way(Plain, update),
        },
        RAW_UPDATE: {
            CRITICAL: Way(critical, update_in_sql),
            BY_HAND: Way(Plain, update_in_sql_and_check),
            BY_HAND_AGAIN: Way(Plain, update_in_sql_and_check),
            UNCHECKED: Way(Plain, update_in_sql),
        },
    }


class Bulk:
    """Every way takes its turn, for each operation and each signal."""

    def __init__(self, section: str, plan: Plan, results: Results) -> None:
        self.section = section
        self.plan = plan
        self.results = results
        is_beside_saves = section == "a"
        self.ways = beside_saves if is_beside_saves else beside_loops
        self.repeats = 1 if is_beside_saves else plan.repeats
        results.note(section, f"{plan.rows:,} rows in one transaction.")

    def round(self, number: int, say: Callable[[str], None]) -> None:
        for signal, tables in TABLES.items():
            for operation, ways in self.ways(*tables).items():
                measure = measure_of(operation, signal)
                seconds: dict[str, list[float]] = {name: [] for name in ways}
                for repeat in range(self.repeats):
                    for name in turned(list(ways), number + repeat):
                        say(f"{measure}: {name}")
                        seconds[name].append(timed(ways[name], self.plan.rows))
                for name, taken in seconds.items():
                    self.results.add(self.section, measure, name, median(taken) * 1e3)


def timed(way: Way, rows: int) -> float:
    write = way.prepare(way.table, rows)
    database.tidy_buffers()
    with measured() as elapsed:
        write()
    return elapsed()


def measure_of(operation: str, signal: str) -> str:
    return f"{operation}, {signal}"


def comparisons_with_saves(results: Results) -> Iterator[Comparison]:
    for signal in TABLES:
        for operation in (CREATE, UPDATE):
            measure = measure_of(operation, signal)
            ours = results.of("a", measure, CRITICAL)
            saves = results.mean_of("a", measure, SAVES, SAVES_AGAIN)
            yield compared("a", measure, f"{SAVES} ÷ {CRITICAL}", (saves, ours), AGAINST_SAVES)
            again = results.of("a", measure, SAVES_AGAIN), results.of("a", measure, SAVES)
            yield compared("a", measure, "noise: save() ÷ save()", again)


def comparisons_with_loops(results: Results) -> Iterator[Comparison]:
    for (signal, operation), aim in AGAINST_HAND.items():
        measure = measure_of(operation, signal)
        ours = results.of("b", measure, CRITICAL)
        by_hand = results.mean_of("b", measure, BY_HAND, BY_HAND_AGAIN)
        yield compared("b", measure, f"{CRITICAL} ÷ {BY_HAND}", (ours, by_hand), aim)
        bare = results.of("b", measure, UNCHECKED)
        yield compared("b", measure, f"{CRITICAL} ÷ {UNCHECKED}", (ours, bare))
        again = results.of("b", measure, BY_HAND_AGAIN), results.of("b", measure, BY_HAND)
        yield compared("b", measure, "noise: by hand ÷ by hand", again)
