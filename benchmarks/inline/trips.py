"""(g) The messages to the server and the statements in them, which no machine changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from django.db import connection, transaction

from benchmarks.inline import bulk, database
from benchmarks.inline.bulk import BY_HAND, CRITICAL, TABLES, Way, beside_loops
from benchmarks.inline.models import CriticalChanged, SignalAfter
from benchmarks.inline.plan import Plan
from benchmarks.inline.single import (
    ALONE,
    AMONG,
    AUTOCOMMIT,
    BLOCK,
    INSERT,
    MODES,
    PLAIN,
    UPDATE,
    measure_of,
    orders_of,
)
from benchmarks.results import Comparison, Results, compared
from benchmarks.timings import Aim
from tests.acceptance.wire import recorded

NO_MORE = Aim(1, at_most=True)
#: What the receivers do may not be committed before they have run, so COMMIT is one of its own.
AND_A_COMMIT = Aim(2, at_most=True)
AIMS = {AUTOCOMMIT: AND_A_COMMIT, ALONE: NO_MORE, AMONG: NO_MORE}

_ANSWERS = re.compile(r"^B\t\d+\tReadyForQuery", re.MULTILINE)
_DONE = re.compile(r"^B\t\d+\tCommandComplete", re.MULTILINE)

#: With ``old``, a receiver needs the row that is stored, which a signal does not give.
SAVED = {**TABLES, "post_save with old": (CriticalChanged, SignalAfter)}


class Sent(NamedTuple):
    """What a write has sent.

    Attributes:
        trips: messages that the client waits for.
        statements: commands like ``SAVEPOINT`` among them.
    """

    trips: int
    statements: int


def sent_by(write: Callable[[], object]) -> Sent:
    connection.ensure_connection()
    with recorded(connection.connection) as texts:
        write()
    return Sent(len(_ANSWERS.findall(texts[0])), len(_DONE.findall(texts[0])))


class Trips:
    """Each write once: the numbers are the same each time."""

    section = "g"

    def __init__(self, plan: Plan, results: Results) -> None:
        self.rows = plan.rows
        self.results = results
        results.note("g", f"{BLOCK} calls of save(), the mean of one. In bulk: {self.rows:,} rows.")

    def round(self, number: int, say: Callable[[str], None]) -> None:
        for signal, tables in SAVED.items():
            for operation in (INSERT, UPDATE):
                for mode in MODES:
                    measure = measure_of(operation, mode, signal)
                    say(measure)
                    for name, model in zip((CRITICAL, PLAIN), tables, strict=True):
                        self._add(measure, name, _saves(model, operation, mode), BLOCK)
        for signal, tables in TABLES.items():
            for operation, ways in beside_loops(*tables).items():
                measure = bulk.measure_of(operation, signal)
                say(measure)
                for name in (CRITICAL, BY_HAND):
                    self._add(measure, name, _in_bulk(ways[name], self.rows))

    def _add(self, measure: str, name: str, sent: Sent, calls: int = 1) -> None:
        self.results.add("g", measure, f"{name}: round trips", sent.trips / calls)
        self.results.add("g", measure, f"{name}: statements", sent.statements / calls)


def _saves(model: Any, operation: str, mode: str) -> Sent:
    """The first writes ask what is installed and have statements prepared: they do not count."""
    database.fill(model, BLOCK)
    run = MODES[mode]
    run(orders_of(model, operation))
    orders = orders_of(model, operation)
    if mode != AMONG:
        return sent_by(lambda: run(orders))
    with transaction.atomic():
        # BEGIN travels in front of the first statement of the block, and is not of the save.
        model.objects.exists()
        return sent_by(lambda: [order.save() for order in orders])


def _in_bulk(way: Way, rows: int) -> Sent:
    return sent_by(way.prepare(way.table, rows))


def comparisons(results: Results) -> Iterator[Comparison]:
    for signal in SAVED:
        for operation in (INSERT, UPDATE):
            for mode, aim in AIMS.items():
                yield _compared(results, measure_of(operation, mode, signal), PLAIN, aim)
    for signal, tables in TABLES.items():
        for operation in beside_loops(*tables):
            yield _compared(results, bulk.measure_of(operation, signal), BY_HAND)


def _compared(results: Results, measure: str, other: str, aim: Aim | None = None) -> Comparison:
    ours, theirs = (results.of("g", measure, f"{name}: round trips") for name in (CRITICAL, other))
    return compared("g", measure, f"round trips, {CRITICAL} ÷ {other}", (ours, theirs), aim)
