"""(e) A backlog of a million events, drained while a transaction stays open."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import mean
from time import monotonic, sleep

import psycopg

from benchmarks.listener import database
from benchmarks.listener.models import Captured, Plain, PlainAgain
from benchmarks.listener.pgbench import Pgbench, update_of
from benchmarks.listener.plan import Plan
from benchmarks.listener.processes import Forked, WorkerError, running
from benchmarks.listener.receivers import NOTHING, WRITE
from benchmarks.results import Comparison, Results, compared
from benchmarks.timings import Aim
from bulksafe.listener.supervisor import Supervisor
from bulksafe.outbox.keeping import SLOT_BYTES

BOUNDED = Aim(1.1, at_most=True)
NO_DEAD_ROWS = Aim(0, at_most=True)

MEMORY = "peak memory of the listener, MiB"
EVENTS = "events/s"
DEAD = "dead rows in the outbox after the drain"
DEAD_CURSORS = "dead rows among the cursors after the drain"
BEFORE, AFTER = "outbox before the drain, MiB", "outbox at the end, MiB"
SECONDS = "seconds from the transaction's end until then"
IDLE, IDLE_AGAIN, COMPUTING, DURING = (
    "updates/s of another table, no drain",
    "updates/s of another table, no drain, again",
    "updates/s of another table, while a process computes",
    "updates/s of another table, during the drain",
)

OTHER_ROWS = 10_000
CHUNK = 100_000
_MIB = 1024 * 1024
#: Seconds within which the outbox should have given its space back: its keeper looks every 5 s.
_PATIENCE = 60.0
#: What is left of an outbox whose slots are empty is the pages of its indexes.
_EMPTY = 256 * 1024


#: How long the other table is updated for one figure: the drain must last longer.
_SECONDS = 2


def _compute() -> None:
    """What a listener takes away from others by using a core, without any database."""
    while True:
        pass


def label(events: int) -> str:
    return f"{events:,} events"


class Backlog:
    """One round: it takes minutes."""

    section = "e"

    def __init__(self, plan: Plan, results: Results, pgbench: Pgbench) -> None:
        self.plan = plan
        self.results = results
        self.pgbench = pgbench
        self.has_pgstattuple = bool(
            database.run("SELECT name FROM pg_available_extensions WHERE name = 'pgstattuple'")
        )
        if self.has_pgstattuple:
            database.run("CREATE EXTENSION IF NOT EXISTS pgstattuple")
        counted = "pgstattuple" if self.has_pgstattuple else "the server's statistics"
        results.note("e", f"Dead rows are counted by {counted}.")

    def round(self, number: int, say: Callable[[str], None]) -> None:
        for events in self.plan.backlogs:
            self._measure(events, say)

    def _measure(self, events: int, say: Callable[[str], None]) -> None:
        say(f"making {label(events)}")
        self._fill(events)
        self._add(BEFORE, events, database.outbox_bytes() / _MIB)
        with _open_transaction():
            say("another table")
            for measure in (IDLE, IDLE_AGAIN):
                self._add(measure, events, self._updates())
            with running([Forked(_compute)]):
                self._add(COMPUTING, events, self._updates())
            say(f"draining {label(events)}")
            self._drain(events)
            self._add(DEAD, events, self._dead_rows(*_SLOTS))
            self._add(DEAD_CURSORS, events, self._dead_rows("bulksafe_cursor"))
        if database.outbox_bytes() > SLOT_BYTES:
            say("waiting for the outbox to shrink")
            self._shrink(events)

    def _fill(self, events: int) -> None:
        database.empty(Plain, PlainAgain, Captured)
        database.reset_outbox()
        columns = "number, status, amount, step, note, placed_at"
        values = "'SO-' || n, 'draft', 100, 1, '', now()"
        database.run(
            f"INSERT INTO {Plain._meta.db_table} ({columns}) "
            f"SELECT {values} FROM generate_series(1, {OTHER_ROWS}) AS n"
        )
        for start in range(0, events, CHUNK):
            end = min(start + CHUNK, events)
            database.run(
                f"INSERT INTO {Captured._meta.db_table} ({columns}) "
                f"SELECT {values} FROM generate_series({start + 1}, {end}) AS n"
            )
        database.analyze(f"{Plain._meta.db_table}, bulksafe_outbox")
        database.checkpoint()

    def _updates(self) -> float:
        seconds = min(self.plan.seconds, _SECONDS)
        return self.pgbench.per_second(update_of(Plain._meta.db_table, OTHER_ROWS), 1, seconds)

    def _drain(self, events: int) -> None:
        """The command, as it is run in production, and meanwhile updates of another table."""
        start = monotonic()
        listener = subprocess.Popen(_LISTEN, env=_environment(), stderr=subprocess.PIPE, text=True)
        ended: list[int] = []
        updates = []
        sleep(0.5)
        while not ended:
            updates.append(self._updates())
            pid, status, usage = os.wait4(listener.pid, os.WNOHANG)
            if pid:
                ended = [status, usage.ru_maxrss]
        errors = listener.stderr.read() if listener.stderr else ""
        listener.returncode = os.waitstatus_to_exitcode(ended[0])
        if listener.returncode != 0:
            raise WorkerError(f"The listener ended with {listener.returncode}: {errors}")
        seconds = self._finished(errors, start)
        # The last run of pgbench may have gone on after the drain.
        if updates[:-1]:
            self._add(DURING, events, mean(updates[:-1]))
        self._add(EVENTS, events, events / seconds)
        self._add(MEMORY, events, ended[1] / 1024)

    def _finished(self, log: str, start: float) -> float:
        """The seconds until every cursor had come to the end, from the database's clock."""
        left = database.run(_LEFT, [NOTHING])[0][0]
        if left:
            raise WorkerError(f"{left} events were left over: {log}")
        last = database.run(
            "SELECT extract(epoch FROM clock_timestamp() - max(served_at)) FROM bulksafe_cursor "
            "WHERE queue = %s",
            [NOTHING],
        )[0][0]
        return monotonic() - start - float(last)

    def _dead_rows(self, *tables: str) -> float:
        if self.has_pgstattuple:
            counts = [
                database.run("SELECT dead_tuple_count FROM pgstattuple(%s)", [table])[0][0]
                for table in tables
            ]
        else:
            sleep(1.5)  # until the server's statistics are there
            counts = [
                database.run(
                    "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = %s", [table]
                )[0][0]
                for table in tables
            ]
        return float(sum(counts))

    def _shrink(self, events: int) -> None:
        """A listener that has nothing to do but look after the outbox."""
        # The receiver that writes has the million before it, too: it is to begin after them.
        database.run("DELETE FROM bulksafe_cursor WHERE queue <> %s", [NOTHING])
        start = monotonic()
        queues = dict.fromkeys([NOTHING, WRITE, "default"], 1)
        keeper = Forked(lambda: Supervisor("default", queues).run())
        keeper.go()
        try:
            while database.outbox_bytes() > _EMPTY and monotonic() - start < _PATIENCE:
                sleep(0.2)
        finally:
            keeper.terminate()
        self._add(AFTER, events, database.outbox_bytes() / _MIB)
        self._add(SECONDS, events, monotonic() - start)

    def _add(self, measure: str, events: int, value: float) -> None:
        self.results.add("e", measure, label(events), value)


_LEFT = """
SELECT count(*) FROM bulksafe_outbox AS o
JOIN bulksafe_cursor AS c ON c.queue = %s AND c.bucket = o.bucket
WHERE NOT pg_visible_in_snapshot(o.xid, c.lower)
"""

_SLOTS = [f"bulksafe_outbox_{number}" for number in range(3)]

_LISTEN = [
    sys.executable,
    "-m",
    "django",
    "bulksafe",
    "listen",
    "--once",
    "--queues",
    NOTHING,
]


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "benchmarks.listener.settings",
        "BENCHMARK_DATABASE": database.url(),
    }


@contextmanager
def _open_transaction() -> Iterator[None]:
    """One that has written something and that has a snapshot: no vacuum gets past it."""
    with psycopg.connect(database.url()) as held:
        held.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        held.execute(
            f"INSERT INTO {PlainAgain._meta.db_table} "
            "(number, status, amount, step, note, placed_at) VALUES ('1', '', 1, 1, '', now())"
        )
        yield


def comparisons(results: Results) -> Iterator[Comparison]:
    sizes = list(dict.fromkeys(key.variant for key in results.values if key.section == "e"))
    for size in sizes:
        yield from _of_size(results, size)
    if len(sizes) > 1:
        small, large = sizes
        for measure, aim in ((MEMORY, BOUNDED), (EVENTS, None)):
            pair = results.of("e", measure, large), results.of("e", measure, small)
            yield compared("e", measure, f"{large} ÷ {small}", pair, aim)


def _of_size(results: Results, size: str) -> Iterator[Comparison]:
    idle, again = results.of("e", IDLE, size), results.of("e", IDLE_AGAIN, size)
    without = [(one + other) / 2 for one, other in zip(idle, again, strict=True)]
    measure = "updates/s of another table"
    computing = results.of("e", COMPUTING, size)
    yield compared(
        "e", measure, f"{size}: while a process computes ÷ no drain", (computing, without)
    )
    if results.has("e", DURING, size):
        during = results.of("e", DURING, size)
        yield compared("e", measure, f"{size}: during the drain ÷ no drain", (during, without))
        subject = f"{size}: during the drain ÷ while a process computes"
        yield compared("e", measure, subject, (during, computing))
    yield compared("e", measure, f"{size}: noise: no drain ÷ no drain", (again, idle))
    dead = results.of("e", DEAD, size)
    subject = f"{size}: how many"
    yield compared("e", "dead rows in the outbox", subject, (dead, [1.0] * len(dead)), NO_DEAD_ROWS)
    if results.has("e", AFTER, size):
        pair = results.of("e", AFTER, size), results.of("e", BEFORE, size)
        yield compared("e", "size of the outbox", f"{size}: at the end ÷ before", pair)
