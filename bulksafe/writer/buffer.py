"""The buffered changes for in-transaction receivers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError
from psycopg import Pipeline
from psycopg.pq import PipelineStatus

from bulksafe.declarations import receivers
from bulksafe.dispatch.sources import by_oid
from bulksafe.exceptions import ReceiversNotRun
from bulksafe.outbox.queries import query
from bulksafe.own_cursor import own_cursor, own_portal
from bulksafe.sqlstates import NOT_ALLOWED, sqlstate
from bulksafe.writer.combining import combined, in_key_order
from bulksafe.writer.readable import readable
from bulksafe.writer.take_query import in_schema
from bulksafe.writer.taking import Kind, Source, Taken
from bulksafe.writer.vocabulary import vocabulary
from bulksafe.writer.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model
    from psycopg import Cursor

    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.waiting import Key


#: The number of rows of which instances exist at a time, in a write of many rows.
CHUNK = 2000

#: The number of rows of one statement from which they are delivered in chunks. More are not
#: returned by the statement itself, see ``buffer_rows.sql``.
MANY = 20_000

_HAS_PIPELINES = Pipeline.is_supported()


class Buffer:
    """The undelivered changes of one connection.

    Args:
        connection: Django's.

    Attributes:
        due: the waiting changes by table and operation, as reported by the database.
        home: the schema of the last buffer that was read.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self.due: dict[Key, Waiting] = {}
        self.home = ""
        self._after = 0
        self._sources: dict[int, Source] = {}
        self._by_model: dict[type[Model], Source] = {}
        self._known = -1
        self._prefix = ""

    def begin(self, *, is_elsewhere: bool) -> None:
        """Reset for a new connection, perhaps to a different database."""
        self.due.clear()
        self._after = 0
        if is_elsewhere:
            self._known, self._prefix = -1, ""

    def only_kind(self) -> Kind | None:
        """The kind of the waiting changes, if there is one and this code has receivers for it."""
        if len(self.due) != 1:
            return None
        (((oid, operation), waiting),) = self.due.items()
        self.home = waiting.home
        source = self.source(oid)
        return None if source is None else source.kind(operation)

    def take_rows(self, kind: Kind) -> list[tuple[Any, ...]]:
        """The rows of the query for the only due kind of changes."""
        self.due.clear()
        with readable(kind.source.model), self.asking() as cursor:
            rows = kind.lean_rows(cursor, self._after, self.home)
        if rows:
            self._after = rows[-1][0]
        return rows

    def chunks(self, kind: Kind, *, is_lean: bool) -> Generator[list[tuple[Any, ...]], None, None]:
        """The rows of the query for the only due kind of changes, which the server keeps.

        Close it after an error: a cursor is open.
        """
        self.due.clear()
        with own_portal(self.connection) as portal:
            with readable(kind.source.model), self._explained():
                kind.open(portal, self._after, self.home, is_lean=is_lean)
            while True:
                with readable(kind.source.model), self._explained():
                    rows = portal.fetchmany(CHUNK)
                if not rows:
                    return
                self._after = max(self._after, *(row[0] for row in rows))
                yield rows

    def request(self, kind: Kind) -> str:
        """The query for the next changes of a kind, unless they are many, ready to execute."""
        with own_cursor(self.connection) as cursor:
            text: str = cursor.mogrify(*kind.request(self._after, kind.home, most=MANY))
            return text

    def keep_taken(self, kind: Kind, taken: Sequence[Taken]) -> None:
        """Keep changes that came back with their statement until they are delivered."""
        if taken:
            self.due[kind.source.oid, kind.operation] = Waiting(kind.home, taken)

    def combined(self, taken: list[Taken]) -> list[InlineChange]:
        """The taken rows as changes, in their order."""
        return in_key_order(combined(taken, self.connection.alias, self.prefix))

    def discard(self) -> None:
        """Discard waiting changes: in a migration, tables differ from the models.

        Django sends no signals for historical models either.
        """
        due = dict(self.due)
        self.due.clear()
        for (oid, operation), waiting in due.items():
            with self.asking() as cursor:
                cursor.execute(in_schema(waiting.home, query("discard_buffered")), [oid, operation])

    def take(self) -> list[InlineChange]:
        """The waiting changes, combined per row."""
        taken: list[Taken] = []
        self.sync()
        while self.due:
            # All at once: otherwise the query that looks up a table would deliver the other
            # changes.
            due = dict(self.due)
            self.due.clear()
            for (oid, operation), waiting in due.items():
                self.home = waiting.home
                taken += waiting.taken
                source = self.source(oid) if waiting.notices else None
                if source is not None:
                    with readable(source.model), self.asking() as cursor:
                        taken += source.take(cursor, operation, self._after, self.home)
        if not taken:
            return []
        taken.sort(key=lambda one: one.event.seq)
        self._after = taken[-1].event.seq
        return self.combined(taken)

    @contextmanager
    def asking(self) -> Iterator[Cursor[Any]]:
        """A driver cursor to read the buffer.

        Raises:
            ReceiversNotRun: the connection's role may not read it.
        """
        with self._explained(), own_cursor(self.connection) as cursor:
            yield cursor

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with self.connection.wrap_database_errors:
                yield
        except DatabaseError as error:
            refusal = refusal_of(error)
            if refusal is error:
                raise
            raise refusal from error

    @property
    def is_in_pipeline(self) -> bool:
        driver = self.connection.connection
        if driver is None or driver.closed or not _HAS_PIPELINES:
            return False
        return bool(driver.pgconn.pipeline_status != PipelineStatus.OFF)

    def sync(self) -> None:
        """In a pipeline, receive the database's notices of waiting changes."""
        if self.is_in_pipeline:
            with self.connection.wrap_database_errors, self.connection.connection.pipeline():
                """Entering a nested pipeline sends and receives everything pending."""

    @property
    def prefix(self) -> str:
        """The prefix of this database's event ids."""
        if not self._prefix:
            with self.asking() as cursor:
                cursor.execute(in_schema(self.home, "SELECT {home}.bulksafe_prefix()"), [])
                ((self._prefix,),) = cursor.fetchall()
        return self._prefix

    def source(self, oid: int) -> Source | None:
        """The table with the oid; None if this code has no receivers for it."""
        if self._known != receivers.changes() or oid not in self._sources:
            self._find_sources()
        return self._sources.get(oid)

    def source_of(self, model: type[Model]) -> Source | None:
        if self._known != receivers.changes():
            self._find_sources()
        return self._by_model.get(model)

    def _find_sources(self) -> None:
        models = by_oid(vocabulary().models, self.connection.alias)
        self._sources = {key: Source(key, m, self.connection.alias) for key, m in models.items()}
        self._by_model = {source.model: source for source in self._sources.values()}
        self._known = receivers.changes()


def refusal_of(error: DatabaseError) -> DatabaseError:
    """The error of reading the buffer, with the fix if the connection's role may not read it."""
    if sqlstate(error) != NOT_ALLOWED:
        return error
    return ReceiversNotRun(
        "Critical receivers have to run for this write, and the database role of the "
        "connection may not take its changes from the buffer. Add the role to "
        'BULKSAFE["WRITER_ROLES"] and run “manage.py migrate”, or use a different role.'
    )
