"""Counts the receiver calls of each write path, and of a killed listener."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

from django.db import connection, transaction
from psycopg import sql

import bulksafe
from bulksafe.dispatch.sources import known
from bulksafe.outbox.state import QueueState, state
from bulksafe.outbox.store import Store
from examples.shop import data, models
from examples.shop.demo.bars import Stages
from examples.shop.demo.paths import run_psql
from examples.shop.demo.processes import Listener, Warehouse
from examples.shop.demo.tally import Tally, tally
from examples.shop_signals import models as twin

Numbers = Sequence[str]

DRAFT, PAID, SHIPPED = "became draft", "became paid", "became shipped"
FULFILLED = "was fulfilled"

_KILLS = 2

IN_DATABASE = "a row in the database"
OUTSIDE = "a request to another service"


@dataclass(frozen=True)
class OrderPath:
    """A way to write orders.

    Attributes:
        name: what ``--only`` calls it.
        title: what the table calls it.
        action: the action in the orders' history afterwards.
        write: writes the orders with some numbers, in one of the shops.
    """

    name: str
    title: str
    action: str
    write: Callable[[ModuleType, Numbers], object]


@dataclass(frozen=True)
class PathResult:
    """The calls of a receiver for one write path.

    Attributes:
        path: the write path's name.
        title: what the table calls it.
        rows: the number of rows written.
        plain: the number of rows for which Django's receiver ran.
        critical: the calls of the critical receiver.
    """

    path: str
    title: str
    rows: int
    plain: int
    critical: Tally


@dataclass(frozen=True)
class CrashResult:
    """The deliveries after two SIGKILLs.

    Attributes:
        orders: the number of orders written.
        written: the number of events of these writes.
        while_down: the number of events written while no listener was running.
        kills: the work during each kill, and the number of events left waiting.
        disordered: the number of orders whose changes were delivered out of order.
        again: the number of requests repeated with the same key.
        recovery: seconds from the last start until everything was delivered.
        tallies: the results of the calls.
    """

    orders: int
    written: int
    while_down: int
    kills: Sequence[tuple[str, int]]
    disordered: int
    again: int
    recovery: float
    tallies: Sequence[Tally]


@dataclass(frozen=True)
class Delivery:
    """The results of the second part of the demo."""

    paths: Sequence[PathResult]
    crash: CrashResult

    @property
    def problems(self) -> list[str]:
        """Reasons why it did not show that no receiver is skipped."""
        paths = [f"{path.title}: {text}" for path in self.paths for text in path.critical.problems]
        crashed = [text for one in self.crash.tallies for text in one.problems]
        if len(self.crash.kills) < _KILLS:
            crashed.append("the listener was done before it was killed.")
        if self.crash.disordered:
            crashed.append(f"{self.crash.disordered:,} orders have their history out of order.")
        return [*paths, *(f"After the crash, {text}" for text in crashed)]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def stages(only: Sequence[str]) -> int:
    """The number of stages of ``run``."""
    return len(_chosen(only)) + 4


def _chosen(only: Sequence[str]) -> list[OrderPath]:
    return [path for path in PATHS if not only or path.name in only]


def run(only: Sequence[str], rows: int, events: int, stages: Stages) -> Delivery:
    """Write while a listener runs, and count the receivers' effects.

    Args:
        only: names of write paths; none for all.
        rows: how many rows each path writes.
        events: the number of events for the killed listener.
        stages: shows the progress.

    Raises:
        DemoError: the listener does not do its work.
    """
    with (
        _Orders() as orders,
        tempfile.TemporaryDirectory(prefix="bulksafe-demo-") as directory,
        Warehouse().running() as warehouse,
        Listener(warehouse.url, Path(directory) / "listener.log").running() as listener,
    ):
        paths = [_write_path(path, orders, rows, listener, stages) for path in _chosen(only)]
        return Delivery(paths, _crash(orders, events, listener, warehouse, stages))


class _Orders:
    """The orders of this run. They and their history are deleted at the end."""

    def __init__(self) -> None:
        self.run = f"D{uuid4().hex[:6]}-"
        self._last = 0

    def __enter__(self) -> _Orders:
        return self

    def __exit__(self, *error: object) -> None:
        with bulksafe.muted("shop.Order:only_drafts_deleted"):
            for shop in (models, twin):
                shop.AuditLog.objects.filter(detail__number__startswith=self.run).delete()
                shop.Order.objects.filter(number__startswith=self.run)._raw_delete("default")

    def numbers(self, count: int) -> list[str]:
        """Numbers that no order has yet."""
        first, self._last = self._last + 1, self._last + count
        return [f"{self.run}{number:07}" for number in range(first, self._last + 1)]


# Receivers of each write path.


def _write_path(
    path: OrderPath, orders: _Orders, rows: int, listener: Listener, stages: Stages
) -> PathResult:
    stages.begin(f"Receivers of {path.title}")
    numbers = orders.numbers(rows)
    for shop in (twin, models):
        if path.action != DRAFT:
            _bulk_create(shop, numbers)
        path.write(shop, numbers)
    _wait(listener, stages, rows, f"it has delivered the rows of {path.title}")
    return PathResult(
        path.name,
        path.title,
        rows,
        plain=len(set(_history(twin, numbers, [path.action]))),
        critical=tally(
            "keep_history",
            IN_DATABASE,
            due=[(number, path.action) for number in numbers],
            seen=_history(models, numbers, [path.action]),
        ),
    )


def _is_delivered() -> bool:
    """Whether nothing waits, neither in the outbox nor to be tried again."""
    queues = _queues()
    return all(queue.waiting == queue.parked == 0 for queue in queues)


def _wait(listener: Listener, stages: Stages, rows: int, what: str) -> None:
    """Wait until the listener has delivered so many rows, and show how far it is."""

    def is_delivered() -> bool:
        stages.share(max(0.0, 1 - _waiting() / max(rows, 1)))
        return _is_delivered()

    listener.wait_until(is_delivered, what)


def _waiting() -> int:
    return max(queue.waiting + queue.parked for queue in _queues())


def _history(
    shop: ModuleType, numbers: Iterable[str], actions: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """The order and the action of each entry."""
    entries = shop.AuditLog.objects.filter(entity="order", action__in=actions)
    wanted = set(numbers)
    for number, action in entries.order_by("pk").values_list("detail__number", "action"):
        if number in wanted:
            yield number, action


def _new(shop: ModuleType, numbers: Numbers) -> Iterator[dict[str, Any]]:
    customers = list(shop.Customer.objects.values_list("pk", flat=True)[: len(numbers)])
    for index, number in enumerate(numbers):
        yield {
            "number": number,
            "customer_id": customers[index % len(customers)],
            "status": "draft",
            "amount": Decimal(100),
            "discount": Decimal(0),
            "net": Decimal(100),
            "placed_at": data.OPENED,
        }


def _table(shop: ModuleType) -> sql.Identifier:
    return sql.Identifier(shop.Order._meta.db_table)


def _save(shop: ModuleType, numbers: Numbers) -> None:
    for order in shop.Order.objects.filter(number__in=numbers):
        order.status = "paid"
        order.save()


def _bulk_create(shop: ModuleType, numbers: Numbers) -> None:
    shop.Order.objects.bulk_create(shop.Order(**values) for values in _new(shop, numbers))


def _update(shop: ModuleType, numbers: Numbers) -> None:
    shop.Order.objects.filter(number__in=numbers).update(status="paid")


def _statement(shop: ModuleType, numbers: Numbers) -> str:
    template = sql.SQL("UPDATE {} SET status = 'paid' WHERE number = ANY({})")
    return template.format(_table(shop), sql.Literal(list(numbers))).as_string()


def _raw_sql(shop: ModuleType, numbers: Numbers) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_statement(shop, numbers))


def _copy(shop: ModuleType, numbers: Numbers) -> None:
    rows = list(_new(shop, numbers))
    columns = sql.SQL(", ").join(map(sql.Identifier, rows[0]))
    text = sql.SQL("COPY {} ({}) FROM STDIN").format(_table(shop), columns)
    with connection.cursor() as cursor, cursor.copy(text) as copy:
        for row in rows:
            copy.write_row(list(row.values()))


def _psql(shop: ModuleType, numbers: Numbers) -> None:
    run_psql(_statement(shop, numbers))


PATHS = [
    OrderPath("save", "save()", PAID, _save),
    OrderPath("bulk_create", "bulk_create()", DRAFT, _bulk_create),
    OrderPath("update", "update(value)", PAID, _update),
    OrderPath("sql", "raw SQL", PAID, _raw_sql),
    OrderPath("copy", "COPY", DRAFT, _copy),
    OrderPath("psql", "psql", PAID, _psql),
]

# The killed listener.


def _crash(
    orders: _Orders,
    events: int,
    listener: Listener,
    warehouse: Warehouse,
    stages: Stages,
) -> CrashResult:
    first, late = orders.numbers(events // 4), orders.numbers(events // 8)
    before = len(warehouse.requests)
    stages.begin("Writing orders")
    _bulk_create(models, first)
    _wait(listener, stages, len(first), "it has delivered the new orders")
    listener.stop()
    with transaction.atomic():
        _update(models, first)
        _ship(first)

    stages.begin("Killing the listener")
    with _locked_history():
        kills = [_kill(listener, warehouse, "a transaction", _waits_for_history)]
    kills.append(_kill(listener, warehouse, "a request", lambda: warehouse.holds))

    stages.begin("Writing while no listener runs")
    _copy(models, late)
    _raw_sql(models, late)

    stages.begin("Starting the listener again")
    warehouse.go_on()
    started = time.perf_counter()
    listener.start()
    _wait(listener, stages, _waiting(), "it has caught up")
    recovery = time.perf_counter() - started
    requests = warehouse.requests[before:]
    return CrashResult(
        orders=len(first) + len(late),
        written=3 * len(first) + 2 * len(late),
        while_down=2 * len(late),
        kills=[kill for kill in kills if kill],
        disordered=_disordered([*first, *late]),
        again=len(requests) - len(set(requests)),
        recovery=recovery,
        tallies=_tallies(first, late, requests),
    )


def _kill(
    listener: Listener, warehouse: Warehouse, work: str, is_busy: Callable[[], bool]
) -> tuple[str, int] | None:
    """Start the listener and kill it in the middle of its work.

    Returns:
        the work, and the number of events left; None if everything was delivered before.
    """
    warehouse.hold(5)
    listener.start()
    listener.wait_until(lambda: is_busy() or _is_delivered(), "it is at work")
    if _is_delivered():
        listener.stop()
        return None
    listener.kill()
    return work, _waiting()


def _ship(numbers: Numbers) -> None:
    orders = models.Order.objects.filter(number__in=numbers)
    orders.update(status="shipped", shipped_at=data.OPENED)


@contextmanager
def _locked_history() -> Iterator[None]:
    """Hold a lock that the history's receiver waits for, in the middle of its transaction."""
    other = connection.copy()
    other.set_autocommit(False)
    with other.cursor() as cursor:
        name = sql.Identifier(models.AuditLog._meta.db_table)
        cursor.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(name))
    try:
        yield
    finally:
        other.close()


def _waits_for_history() -> bool:
    """Whether a transaction waits for the lock on the history."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = %s::regclass "
            "AND mode = 'RowExclusiveLock' AND NOT granted)",
            [models.AuditLog._meta.db_table],
        )
        return bool(cursor.fetchone()[0])


def _disordered(numbers: Numbers) -> int:
    """How many orders were shipped before they were paid, or paid before they were there."""
    course = [DRAFT, PAID, SHIPPED]
    found: dict[str, list[str]] = {}
    for number, action in _history(models, numbers, course):
        found.setdefault(number, []).append(action)
    return sum(actions != sorted(actions, key=course.index) for actions in found.values())


def _tallies(first: Numbers, late: Numbers, requests: Iterable[tuple[str, str]]) -> list[Tally]:
    every = [*first, *late]
    changes = [(every, DRAFT), (every, PAID), (first, SHIPPED)]
    return [
        tally(
            "keep_history",
            IN_DATABASE,
            due=[(number, action) for numbers, action in changes for number in numbers],
            seen=_history(models, every, [DRAFT, PAID, SHIPPED]),
        ),
        tally(
            "note_fulfilment, by Emit",
            IN_DATABASE,
            due=[(number, FULFILLED) for number in first],
            seen=_history(models, every, [FULFILLED]),
        ),
        # The warehouse ignores a request that is repeated with its key.
        tally(
            "request_picking",
            OUTSIDE,
            due=every,
            seen=[order for order, key in set(requests)],
        ),
    ]


def _queues() -> list[QueueState]:
    return state(Store("default"), known("default")).queues
