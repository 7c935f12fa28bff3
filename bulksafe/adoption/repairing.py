"""Writes computed columns again, in transactions so short that writers do not notice.

A row is written with the UPDATE of a queryset, like by anybody else: its triggers set the value,
other rules judge it, receivers run and captures record the change.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.db.models import BooleanField, Expression, Model, QuerySet
from psycopg.pq import TransactionStatus

from bulksafe.adoption import keys
from bulksafe.adoption.errors import goes_away, is_about_no_row, message_of
from bulksafe.adoption.looking import Found, Look
from bulksafe.adoption.tables import Table, reading, trusted_path
from bulksafe.muting import muted
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bulksafe.adoption.keys import Key

#: Milliseconds to wait for a lock that a writer holds. The writer may wait for rows of this
#: transaction meanwhile, so this is far below PostgreSQL's deadlock_timeout.
LOCK_TIMEOUT = 30

#: Seconds that rows may add to the time of a transaction: so long may a writer wait for them.
_TARGET = 0.04

UNCHANGED = "the UPDATE did not correct it: another trigger keeps it from being written"
LOCKED = "another transaction holds its lock"


class SQL(Expression):
    """A text as an expression. Django's RawSQL would join parents whose columns it mentions."""

    def __init__(self, text: str, output_field: Any) -> None:
        super().__init__(output_field=output_field)
        self.text = text

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[()]]:
        return f"({self.text})".replace("%", "%%"), ()


@dataclass
class Outcome:
    """What became of rows.

    Attributes:
        repaired: rows that are right now.
        refused: rows that cannot be written, with the reason.
        locked: rows that are in use, to be tried again.
        until: the key of the last row of the transaction.
    """

    repaired: list[Found] = field(default_factory=list)
    refused: list[tuple[Found, str]] = field(default_factory=list)
    locked: list[Found] = field(default_factory=list)
    until: Key | None = None

    def __iadd__(self, other: Outcome) -> Outcome:
        self.repaired += other.repaired
        self.refused += other.refused
        self.locked += other.locked
        return self


@dataclass
class Pace:
    """How many rows a transaction writes, so that writers do not wait long for them.

    Attributes:
        most: the maximum.
        size: the number for the next transaction.
        shortest: the seconds of the shortest transaction. Fewer rows would not make it shorter.
    """

    most: int
    size: int = 1
    shortest: float = math.inf

    def adapt(self, seconds: float) -> None:
        """Take the time of a transaction into account."""
        self.shortest = min(self.shortest, seconds)
        added = seconds - self.shortest
        if added > _TARGET:
            self.slow_down()
        elif added < _TARGET / 4:
            self.size = min(self.size * 2, self.most)

    def slow_down(self) -> None:
        self.size = max(self.size // 2, 1)


@dataclass
class Repair:
    """Repairs computed columns of one table.

    Attributes:
        model: the model of the table.
        look: finds the rows whose columns are wrong.
        steps: what to assign to the fields, with an UPDATE for each step.
        pace: how many rows a transaction writes.
        muted: labels of observed columns. Between two steps they are wrong, which is no violation.
    """

    model: type[Model]
    look: Look
    steps: Sequence[Mapping[str, Any]]
    pace: Pace
    muted: Sequence[str] = ()

    @property
    def table(self) -> Table:
        return self.look.table

    def repair(self, wrong: Sequence[Found]) -> Iterator[Outcome]:
        """Write rows again, with as many in each transaction as the time allows."""
        start = 0
        while start < len(wrong):
            rows = wrong[start : start + self.pace.size]
            start += len(rows)
            outcome = self._write(rows)
            outcome.until = rows[-1].key
            yield outcome

    def _write(self, rows: Sequence[Found]) -> Outcome:
        """Write rows in one transaction; in smaller ones if one of them is refused."""
        try:
            written = self._written([row.key for row in rows])
        except Exception as error:
            # Anything that a receiver raises refuses a row, too.
            if self._is_lost(error):
                raise
            if goes_away(error):
                # With fewer rows, other writers are less often in the way.
                self.pace.slow_down()
            if len(rows) > 1:
                half = len(rows) // 2
                outcome = self._write(rows[:half])
                outcome += self._write(rows[half:])
                return outcome
            if goes_away(error):
                return Outcome(locked=list(rows))
            return Outcome(refused=[(rows[0], message_of(error))])
        return self._outcome(rows, written)

    def _written(self, wanted: Sequence[Key]) -> set[Key]:
        """Write those of the rows that are wrong and not locked by other transactions."""
        among = keys.among(self.table, wanted, keys.key_columns(self.table))
        # In the order of the keys, and without waiting: there is no deadlock, and no writer waits
        # for rows that wait for another writer.
        locking = "FOR NO KEY UPDATE SKIP LOCKED"
        with transaction.atomic(using=self.table.using):
            with connections[self.table.using].cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{LOCK_TIMEOUT}ms"])
                with trusted_path(cursor, self.table):
                    started = time.monotonic()
                    own = [row.key for row in self.look.matching(cursor, among, locking=locking)]
            if own:
                self._update(own)
        if own:
            self.pace.adapt(time.monotonic() - started)
        return set(own)

    def _update(self, wanted: Sequence[Key]) -> None:
        relation = quoting.relation(self.model._meta.db_table)
        columns = [f"{relation}.{quoting.identifier(column)}" for column in self.table.key]
        among = SQL(keys.among(self.table, wanted, columns), BooleanField())
        # Not the default manager, which may hide rows.
        rows: QuerySet[Any] = QuerySet(self.model, using=self.table.using).filter(among)
        using = self.table.using
        with muted(*self.muted, using=using) if self.muted else nullcontext():
            for values in self.steps:
                rows.update(**values)

    def _outcome(self, rows: Sequence[Found], written: set[Key]) -> Outcome:
        """What has become of rows, after the commit: looking would hold the locks for longer."""
        among = keys.among(self.table, [row.key for row in rows], keys.key_columns(self.table))
        with reading(self.table) as cursor:
            wrong = {row.key for row in self.look.matching(cursor, among)}
        return Outcome(
            repaired=[row for row in rows if row.key in written - wrong],
            refused=[(row, UNCHANGED) for row in rows if row.key in written & wrong],
            locked=[row for row in rows if row.key in wrong - written],
        )

    def _is_lost(self, error: Exception) -> bool:
        """Whether no other row can be written either."""
        connection = connections[self.table.using]
        if connection.connection is None or connection.connection.closed:
            return True
        # A signal in the middle of a query can leave its transaction open. To go on would hide the
        # signal, and take every row for refused.
        is_idle = connection.connection.info.transaction_status == TransactionStatus.IDLE
        is_between = connection.settings_dict["AUTOCOMMIT"] and not connection.in_atomic_block
        return (is_between and not is_idle) or is_about_no_row(error)
