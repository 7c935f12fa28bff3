"""Takes the buffered changes of captured tables, with their images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from django.utils.functional import cached_property

from bulksafe.contexts import current
from bulksafe.declarations import receivers
from bulksafe.declarations.lineage import lineage
from bulksafe.dispatch.assigning import keeps_values
from bulksafe.dispatch.images import Image, Table
from bulksafe.dispatch.routes import routes_of
from bulksafe.outbox.events import DELETED, INSERTED, UPDATED, Event
from bulksafe.rendering import quoting
from bulksafe.writer.delivering import BEFORE
from bulksafe.writer.django_sql import is_plain_name
from bulksafe.writer.staged_query import StagedQuery
from bulksafe.writer.take_query import EVENT, in_schema, is_wide, take_query

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from django.db.models import Model
    from psycopg import Cursor

    from bulksafe.declarations import Receiver


class Taken(NamedTuple):
    """One buffered change."""

    event: Event
    model: type[Model]
    old: Image | None
    new: Image | None
    met: frozenset[Receiver]


class Source:
    """A captured table of one database, and the receivers of its rows.

    Args:
        oid: the oid of the table in its changes.
        model: the concrete model.
        using: the database.
    """

    def __init__(self, oid: int, model: type[Model], using: str) -> None:
        self.oid = oid
        self.model = model
        self.using = using
        self.table = Table(model, using)
        self._kinds: dict[str, Kind] = {}

    def take(self, cursor: Cursor[Any], operation: str, after: int, home: str) -> list[Taken]:
        """The changes of one operation that the transaction has made since number ``after``.

        Args:
            cursor: the driver's.
            home: the schema of the buffer.
        """
        return self.kind(operation).take(cursor, after, home)

    def receivers(self, operation: str) -> list[Receiver]:
        """The receivers of an operation, in their order."""
        return [route.receiver for route in self.kind(operation).routes]

    def kind(self, operation: str) -> Kind:
        """The kind of changes for an operation."""
        if operation not in self._kinds:
            self._kinds[operation] = Kind(self, operation)
        return self._kinds[operation]


class Kind:
    """The changes of one table by one operation."""

    def __init__(self, source: Source, operation: str) -> None:
        self.source = source
        self.operation = operation
        self.routes = routes_of(source.model, operation, receivers.is_inline)
        self.sides = [
            side for side, absent in (("old", INSERTED), ("new", DELETED)) if operation != absent
        ]
        #: Whether the statement may return the rows. False after it could not return all of them.
        self.may_return = bool(self.routes) and self.is_lean and is_plain_name(source.model)
        self.every = frozenset(route.receiver for route in self.routes)
        self.conditional = [route for route in self.routes if route.condition is not None]
        #: The schema of the buffer that the changes were last taken from; empty before.
        self.home = ""
        self._staged_queries: dict[tuple[str, tuple[str, ...] | None], StagedQuery] = {}

    @cached_property
    def is_lean(self) -> bool:
        """Whether the new row alone decides which receivers are called, and with what.

        Then the old row is not read, and the changes need no objects.
        """
        model = self.source.model
        return (
            len(lineage(model)) == 1
            and not keeps_values(model)
            and all(map(_is_lean, (route.receiver for route in self.routes)))
        )

    @cached_property
    def is_before_only(self) -> bool:
        """Whether all receivers are called before the write, and need nothing from it."""
        return all(route.receiver.signal_name in BEFORE for route in self.routes)

    @cached_property
    def opening(self) -> str:
        """The beginning of Django's statement for many rows."""
        table = f'"{self.source.model._meta.db_table}"'
        return " ".join(
            ["UPDATE", table, "SET "] if self.operation == UPDATED else ["DELETE FROM", table]
        )

    @cached_property
    def returning(self) -> str:
        """The clause that lets such a statement return the rows, in the form of ``images``."""
        table = quoting.relation(self.source.model._meta.db_table)
        columns = [f"{table}.{quoting.identifier(one.column)}" for one in self.source.table.fields]
        return "RETURNING " + ", ".join(columns)

    @cached_property
    def query(self) -> str:
        """The changes with the rows before and after."""
        return self._query(is_lean=False)

    @cached_property
    def lean_query(self) -> str:
        """The same, without the columns that are unused if no change belongs to a previous one."""
        return self._query(is_lean=True)

    def _query(self, *, is_lean: bool, in_chunks: bool = False) -> str:
        return take_query(
            self.source.table,
            self.operation,
            self.sides,
            self.routes,
            is_lean=is_lean,
            in_chunks=in_chunks,
        )

    def staged_query(self, relation: str, assigned: tuple[str, ...] | None) -> StagedQuery:
        """The query for the staged rows of a table, or of a partition.

        Args:
            assigned: the columns that the statement may change; None if it may change all.
        """
        key = relation, assigned
        if key not in self._staged_queries:
            self._staged_queries[key] = StagedQuery(
                self.source.table, self.operation, self.conditional, relation, assigned
            )
        return self._staged_queries[key]

    @property
    def is_wide(self) -> bool:
        """Whether a query cannot return both images in one row: then each has its own row."""
        return is_wide(self.source.table, self.sides)

    def request(
        self, after: int, home: str, *, most: int | None = None
    ) -> tuple[str, list[object]]:
        """The query for the changes since number ``after``, with its parameters.

        Args:
            most: if more rows than that wait, or the changes of many statements, it takes none.
        """
        return in_schema(home, self.query), self._arguments(after, most)

    def _arguments(self, after: int, most: int | None = None) -> list[object]:
        return [self.source.oid, self.operation, after, most]

    def take(self, cursor: Cursor[Any], after: int, home: str) -> list[Taken]:
        cursor.execute(*self.request(after, home))
        self.home = home
        return self.all_taken(cursor.fetchall())

    def all_taken(self, rows: Sequence[tuple[Any, ...]]) -> list[Taken]:
        """The changes, from the rows of the query."""
        if self.is_wide:
            width = len(self.source.table.fields)
            pairs = zip(rows[::2], rows[1::2], strict=True)
            rows = [(*old[:-1], *new[-width - 1 : -1]) for old, new in pairs]
        return [self.taken(row) for row in rows]

    def lean_rows(self, cursor: Cursor[Any], after: int, home: str) -> list[tuple[Any, ...]]:
        """The changes as the query returns them."""
        cursor.execute(in_schema(home, self.lean_query), self._arguments(after))
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found

    def open(self, portal: Cursor[Any], after: int, home: str, *, is_lean: bool) -> None:
        """Let a server-side cursor take the changes; not if they are wide."""
        text = self._query(is_lean=is_lean, in_chunks=True)
        portal.execute(in_schema(home, text), self._arguments(after))

    def images(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """The part of each row that is the image for the instance."""
        is_update = self.operation == UPDATED
        start = len(EVENT) + (len(self.source.table.fields) if is_update else 0)
        return (row[start:] for row in rows)

    def taken(self, row: tuple[Any, ...]) -> Taken:
        seq, at, part, depth, key = row[: len(EVENT)]
        # All rows of one source are numbered by the same transaction: their xid and bucket would
        # say nothing.
        event = Event(
            0, seq, 0, 0, at, self.source.oid, part, self.operation, depth, key, context=current()
        )
        start = len(EVENT)
        met = self.every
        if self.conditional:
            end = start + len(self.conditional)
            answers = zip(self.conditional, row[start:end], strict=True)
            met -= {route.receiver for route, is_met in answers if not is_met}
            start = end
        table = self.source.table
        images: dict[str, Image | None] = {"old": None, "new": None}
        width = len(table.fields)
        for side in self.sides:
            images[side] = Image(row[start : start + width], table)
            start += width
        return Taken(event, self.source.model, images["old"], images["new"], met)


def _is_lean(receiver: Receiver) -> bool:
    return (
        receiver.signal_name in {"post_save", "post_delete"}
        and receiver.when is None
        and not receiver.batch
        and not receiver.extras
    )


def is_any_shared(rows: Sequence[tuple[Any, ...]], *, is_lean: bool = True) -> bool:
    """Whether any of the changes may belong to the one before it, as ``event_order.is_shared``.

    Args:
        is_lean: whether they are of a lean query, or else are read in chunks.
    """
    _, at, *_, is_shared = rows[0]
    return at is not None if is_lean else bool(is_shared)
