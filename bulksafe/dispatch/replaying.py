"""Replays existing rows for an after-commit receiver: each row becomes an event."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from django.core.exceptions import EmptyResultSet, FieldError, ValidationError
from django.db import DataError, OperationalError, ProgrammingError, connections, transaction
from django.db.models import QuerySet
from django.utils.functional import cached_property
from psycopg.errors import DeadlockDetected, LockNotAvailable, SerializationFailure

from bulksafe.dispatch.replayable import condition_on_rows, operation_of
from bulksafe.outbox.events import Replay
from bulksafe.outbox.store import Store
from bulksafe.planning import fields
from bulksafe.planning.expressions import NEW
from bulksafe.planning.images import stored_row
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import Model

    from bulksafe.declarations import Receiver

#: The values of a row's primary key, as PostgreSQL's text.
Key: TypeAlias = tuple[str, ...]

#: The context of a replayed event.
CONTEXT = {"replay": True}

#: A concurrent transaction has locked or changed a row.
_BUSY = (LockNotAvailable, DeadlockDetected, SerializationFailure)


class BadRows(Exception):  # noqa: N818
    """The rows cannot be selected; the message is Django's or PostgreSQL's."""


@dataclass(frozen=True)
class Batch:
    """The result of one transaction.

    Attributes:
        rows: the number of rows that it read.
        events: the number of events written; other rows do not meet the receiver's condition.
        last: the key of the last row.
    """

    rows: int
    events: int
    last: Key


@dataclass(frozen=True)
class Rows:
    """The rows of a replay.

    Attributes:
        receiver: the receiver to call.
        model: one of the receiver's models.
        using: the database.
        lookups: Django lookups that select the rows.
        after: only rows after this key; None for all.
        ignore_when: whether to include rows that do not meet the receiver's condition.
    """

    receiver: Receiver
    model: type[Model]
    using: str
    lookups: Mapping[str, Any] = field(default_factory=dict)
    after: Key | None = None
    ignore_when: bool = False

    def check(self) -> None:
        """Check that the rows can be selected.

        Raises:
            BadRows: a lookup or the key does not fit the model.
            NotReplayable: the condition depends on the row before the change.
        """
        if self.after is not None and len(self.after) != len(self.model._meta.pk_fields):
            names = ", ".join(one.name for one in self.model._meta.pk_fields)
            raise BadRows(f"The primary key of {self.model._meta.label} consists of {names}.")
        if self._is_empty:
            return
        try:
            # PostgreSQL converts constants when it plans.
            self._ask("replay_estimate", **self._reading)
        except (DataError, ProgrammingError) as error:
            raise BadRows(str(error).partition("\n")[0]) from error

    def count(self) -> int:
        """How many events a replay would write now."""
        if self._is_empty:
            return 0
        return int(self._ask("replay_count", **self._reading)[0][0])

    def estimate(self) -> int:
        """The planner's estimate of the number of rows."""
        if self._is_empty:
            return 0
        return int(self._ask("replay_estimate", **self._parts)[0][0][0]["Plan"]["Plan Rows"])

    def replay(self, size: int, pause: float = 0.0) -> Iterator[Batch]:
        """Write the events of all rows, one transaction per batch.

        A batch with a locked row is retried with half of its rows, down to one. Only a transaction
        without other locks waits, so it cannot deadlock with writers.

        Args:
            size: rows of a batch.
            pause: seconds between two batches.
        """
        last, rows = self.after, size
        while not self._is_empty:
            try:
                with transaction.atomic(using=self.using):
                    batch = self._batch(last, rows)
            except OperationalError as error:
                if not isinstance(error.__cause__, _BUSY):
                    raise
                rows = max(rows // 2, 1)
                continue
            if batch is None:
                return
            yield batch
            last, rows = batch.last, min(rows * 2, size)
            time.sleep(pause)

    def _batch(self, last: Key | None, rows: int) -> Batch | None:
        store = Store(self.using)
        store.rows("replay_settings")
        replay = Replay(self.receiver.name, self.receiver.queue, self.receiver.atomic)
        parameters = {
            "limit": rows,
            "table": quoting.relation(self.model._meta.db_table),
            "operation": operation_of(self.receiver)[0],
            "matched": replay.matched,
            "context": json.dumps(CONTEXT),
        }
        parts = self._reading | {
            "after": self._beyond(last),
            "wait": "NOWAIT" if rows > 1 else "",
            "aliases": ", ".join(stored_row(self.model).aliases),
        }
        ((found, written, key),) = store.rows("replay", parameters, **parts)
        if written:
            store.rows("wake")
        return Batch(found, written, tuple(key)) if found else None

    def _ask(self, name: str, **parts: str) -> list[tuple[Any, ...]]:
        with transaction.atomic(using=self.using):
            Store(self.using).rows("replay_settings")
            return Store(self.using).rows(name, {}, after=self._beyond(self.after), **parts)

    # The parts of the queries.

    @cached_property
    def _reading(self) -> dict[str, str]:
        row = stored_row(self.model)
        own = quoting.identifier(NEW)
        columns = fields.primary_key_columns(self.model)
        names = [f"c.{name}" for name in self._names]
        return self._parts | _escaped(
            key=row.key,
            image=row.image,
            source=row.source,
            columns=", ".join(f"{own}.{quoting.identifier(column)}" for column in columns),
            condition=self._condition,
            chosen=", ".join(names),
            texts=", ".join(f"{name}::text" for name in names),
            descending=", ".join(f"{name} DESC" for name in names),
        )

    @cached_property
    def _parts(self) -> dict[str, str]:
        return _escaped(rows=self._query or "", names=", ".join(self._names))

    @cached_property
    def _condition(self) -> str:
        return "true" if self.ignore_when else f"({condition_on_rows(self.receiver, self.model)})"

    @property
    def _names(self) -> list[str]:
        """Column names for the key that differ from all columns of the tables."""
        numbers = range(1, len(self.model._meta.pk_fields) + 1)
        return [quoting.identifier(f"bulksafe#{number}") for number in numbers]

    @property
    def _is_empty(self) -> bool:
        return self._query is None

    @cached_property
    def _query(self) -> str | None:
        """SQL for the keys of the rows; None if the lookups can never match."""
        names = [one.attname for one in self.model._meta.pk_fields]
        try:
            rows: QuerySet[Any, Any] = (
                QuerySet(self.model, using=self.using).order_by().values_list(*names)
            )
            if self.lookups:
                # A lookup through a relation may return a row several times.
                rows = rows.filter(**self.lookups).distinct()
            text, parameters = rows.query.get_compiler(self.using).as_sql()
        except EmptyResultSet:
            return None
        except (FieldError, ValidationError, TypeError, ValueError) as error:
            listed = error.messages if isinstance(error, ValidationError) else [str(error)]
            raise BadRows(" ".join(listed)) from error
        operations: Any = connections[self.using].ops
        return str(operations.compose_sql(text, parameters))

    def _beyond(self, key: Key | None) -> str:
        if key is None:
            return "true"
        values = ", ".join(quoting.literal(value) for value in key)
        return f"({', '.join(self._names)}) > ({values})".replace("%", "%%")


def _escaped(**parts: str) -> dict[str, str]:
    """Table names and values may contain psycopg's parameter syntax."""
    return {name: text.replace("%", "%%") for name, text in parts.items()}
