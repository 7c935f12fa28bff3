"""(b) How long after COMMIT a receiver runs, when the listener has been idle."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import quantiles

import psycopg
from django.db import connection

from benchmarks.listener import database
from benchmarks.listener.listening import listen
from benchmarks.listener.models import Captured, Plain, Seen
from benchmarks.listener.plan import Plan
from benchmarks.listener.processes import Forked, WorkerError
from benchmarks.listener.receivers import NOTHING, calls
from benchmarks.options import turned
from benchmarks.results import Comparison, Results, compared
from benchmarks.timings import Aim

AGAINST_NOTIFY = Aim(3, at_most=True)

BULKSAFE, BARE, BARE_AGAIN = "bulksafe", "bare LISTEN/NOTIFY", "bare LISTEN/NOTIFY, again"
SENT, RETURNED = "from COMMIT sent", "from COMMIT returned"
#: Seconds between two commits: the listener has gone to sleep again by then.
PAUSE = 0.03, 0.06
_PATIENCE = 15.0


def _listen_bare(commits: int) -> None:
    """As little as possible: wait for a notification, and note the time."""
    with psycopg.connect(database.url(), autocommit=True) as listening:
        listening.execute("LISTEN benchmark")
        for _ in listening.notifies(timeout=_PATIENCE):
            calls.note()
            if calls.number == commits:
                return


def _listen(commits: int) -> None:
    """The listener, which is stopped after the last event."""
    listen(NOTHING, lambda: calls.number >= commits)


_INSERT = (
    "INSERT INTO {} (number, status, amount, step, note, placed_at) "
    "VALUES ('1', 'draft', 1, 1, '', now())"
)
WRITERS = {
    BULKSAFE: (_listen, [_INSERT.format(Captured._meta.db_table)]),
    BARE: (
        _listen_bare,
        [_INSERT.format(Plain._meta.db_table), "SELECT pg_notify('benchmark', '')"],
    ),
}
WRITERS[BARE_AGAIN] = WRITERS[BARE]


class Latency:
    """The same commits, one by one, to each kind of listener."""

    section = "b"

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan = plan
        self.results = results
        results.note(
            "b",
            f"{SENT}: the commit itself is in it, the same for all. {RETURNED}: what is left when "
            "the writer has the answer to its COMMIT; below zero, the receiver was faster.",
        )

    def round(self, number: int, say: Callable[[str], None]) -> None:
        for name in turned(list(WRITERS), number):
            say(name)
            self._measure(name)

    def _measure(self, name: str) -> None:
        work, statements = WRITERS[name]
        database.empty(Captured, Plain, Seen)
        database.reset_outbox()
        listener = Forked(partial(work, self.plan.commits), record_times=True)
        listener.go()
        try:
            time.sleep(0.5)
            moments = [self._commit(statements) for _ in range(self.plan.commits)]
            received = listener.outcome().times
        finally:
            listener.kill()
        if len(received) != len(moments):
            raise WorkerError(f"{name}: {len(received)} of {len(moments)} commits were delivered.")
        for which, measure in enumerate((SENT, RETURNED)):
            waited = [time - moment[which] for time, moment in zip(received, moments, strict=True)]
            cuts = quantiles(waited, n=20)
            self.results.add("b", f"p50 {measure}", name, cuts[9] * 1e3)
            self.results.add("b", f"p95 {measure}", name, cuts[18] * 1e3)

    def _commit(self, statements: list[str]) -> tuple[float, float]:
        """When COMMIT was sent, and when it returned."""
        time.sleep(random.uniform(*PAUSE))
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            for statement in statements:
                cursor.execute(statement)
            sent = time.monotonic()
            cursor.execute("COMMIT")
            return sent, time.monotonic()


def comparisons(results: Results) -> Iterator[Comparison]:
    for percentile in ("p50", "p95"):
        for start, aim in ((SENT, AGAINST_NOTIFY), (RETURNED, None)):
            measure = f"{percentile} {start}"
            bare = results.mean_of("b", measure, BARE, BARE_AGAIN)
            if start == SENT or min(bare) > 0:
                own = results.of("b", measure, BULKSAFE)
                yield compared("b", measure, f"{BULKSAFE} ÷ {BARE}", (own, bare), aim)
        again = results.of("b", f"{percentile} {SENT}", BARE_AGAIN)
        first = results.of("b", f"{percentile} {SENT}", BARE)
        yield compared("b", f"{percentile} {SENT}", "noise: bare ÷ bare", (again, first))
