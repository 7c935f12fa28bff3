"""(c) What capturing costs writers that commit one row each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import sleep

import psycopg

from benchmarks.listener import database
from benchmarks.listener.models import Captured, Notifying, Plain, PlainAgain
from benchmarks.listener.pgbench import Pgbench, insert_into
from benchmarks.listener.plan import Plan
from benchmarks.listener.processes import Forked
from benchmarks.listener.receivers import NOTHING
from benchmarks.results import Comparison, Results, compared
from benchmarks.timings import Aim
from bulksafe.listener.supervisor import Supervisor
from bulksafe.outbox.queries import query
from bulksafe.outbox.store import Store

AGAINST_NONE = Aim(0.85, at_most=False)
CLIENTS = 16
MEASURE = "commits/s"

PLAIN, PLAIN_AGAIN = "without capture", "without capture, again"
NO_LISTENER = "captured, no listener"
SLEEPS = "captured, a listener that sleeps when it begins"
DRAINS = "captured, a listener that drains a backlog"
HELD = "captured, a listener that never wakes up"
NOTIFY, NOTIFY_LISTENED = "NOTIFY in a trigger", "NOTIFY in a trigger, with a listener"

#: Events that wait when the listener that drains is started.
BACKLOG = 20_000


@contextmanager
def _listener() -> Iterator[None]:
    listener = Forked(lambda: Supervisor("default", {NOTHING: 1}).run())
    listener.go()
    sleep(0.7)
    try:
        yield
    finally:
        listener.terminate()


@contextmanager
def _backlog_and_listener() -> Iterator[None]:
    database.run(
        f"INSERT INTO {Captured._meta.db_table} (number, status, amount, step, note, placed_at) "
        f"SELECT 'SO-1', 'draft', 100, 1, '', now() FROM generate_series(1, {BACKLOG})"
    )
    with _listener():
        yield


@contextmanager
def _held_asleep() -> Iterator[None]:
    """The worst that can be: the sleeper's lock is held all the time, so every commit notifies."""
    with psycopg.connect(database.url()) as sleeper, _listen("bulksafe"):
        sleeper.execute(query("sleep").replace("{unlimited}", Store("default").unlimited))
        yield


@contextmanager
def _listen(channel: str) -> Iterator[None]:
    with psycopg.connect(database.url(), autocommit=True) as ear:
        ear.execute(f"LISTEN {channel}")
        yield


VARIANTS: dict[str, tuple[str, Callable[[], AbstractContextManager[None]]]] = {
    PLAIN: (Plain._meta.db_table, nullcontext),
    NO_LISTENER: (Captured._meta.db_table, nullcontext),
    SLEEPS: (Captured._meta.db_table, _listener),
    DRAINS: (Captured._meta.db_table, _backlog_and_listener),
    HELD: (Captured._meta.db_table, _held_asleep),
    NOTIFY: (Notifying._meta.db_table, nullcontext),
    NOTIFY_LISTENED: (Notifying._meta.db_table, lambda: _listen("benchmark")),
    PLAIN_AGAIN: (PlainAgain._meta.db_table, nullcontext),
}


class Commits:
    """pgbench with 16 clients on each table in turn."""

    section = "c"

    def __init__(self, plan: Plan, results: Results, pgbench: Pgbench) -> None:
        self.plan = plan
        self.results = results
        self.pgbench = pgbench
        results.note(
            "c",
            f"“{HELD}” is made for this: a session holds the lock of sleepers, so that every "
            "commit sends a NOTIFY. A real listener wakes up at the first one and lets go of it.",
        )

    def round(self, number: int, say: Callable[[str], None]) -> None:
        names = list(VARIANTS)
        by = number % len(names)
        for name in names[by:] + names[:by]:
            say(name)
            self.results.add("c", MEASURE, name, self._measure(name))

    def _measure(self, name: str) -> float:
        table, surroundings = VARIANTS[name]
        database.empty(Plain, PlainAgain, Captured, Notifying)
        database.reset_outbox()
        database.checkpoint()
        with surroundings():
            return self.pgbench.per_second(insert_into(table), CLIENTS, self.plan.seconds)


def comparisons(results: Results) -> Iterator[Comparison]:
    plain = results.mean_of("c", MEASURE, PLAIN, PLAIN_AGAIN)
    for name in (NO_LISTENER, SLEEPS, DRAINS, HELD, NOTIFY, NOTIFY_LISTENED):
        aim = AGAINST_NONE if name in (NO_LISTENER, SLEEPS, DRAINS) else None
        found = results.of("c", MEASURE, name)
        yield compared("c", MEASURE, f"{name} ÷ {PLAIN}", (found, plain), aim)
    listened = results.of("c", MEASURE, NOTIFY_LISTENED)
    sleeps = results.of("c", MEASURE, SLEEPS)
    yield compared("c", MEASURE, f"{SLEEPS} ÷ {NOTIFY_LISTENED}", (sleeps, listened))
    again = results.of("c", MEASURE, PLAIN_AGAIN), results.of("c", MEASURE, PLAIN)
    yield compared("c", MEASURE, "noise: without ÷ without", again)
