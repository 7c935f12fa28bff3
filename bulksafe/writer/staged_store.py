"""Writes the rows of a collected write, and reports them on the caller's cursor."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError

from bulksafe.hidden import hidden
from bulksafe.object_state import set_rowcount
from bulksafe.sqlstates import sqlstate
from bulksafe.writer import returned_rows
from bulksafe.writer.retrying import CONFLICTS, Overtaken
from bulksafe.writer.staged_rows import assigned_to
from bulksafe.writer.storing import batches, store
from bulksafe.writer.taking_along import execute_and_take, kind_on
from bulksafe.writer.unbuffered import in_hand_mark

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg import Cursor

    from bulksafe.writer.applying import Applying, Assigned
    from bulksafe.writer.collected import Collection
    from bulksafe.writer.collecting import Target
    from bulksafe.writer.session import Execute, Session
    from bulksafe.writer.staged_rows import Row


class StagedStore:
    """Stores the rows of one write.

    Args:
        session: the connection's.
        target: the statement, and whose rows it writes.
        collection: the staged rows.
        execute: executes a statement with parameters on the caller's cursor.
        cursor: the driver's cursor behind it.
    """

    def __init__(
        self,
        session: Session,
        target: Target,
        collection: Collection,
        execute: Execute,
        cursor: Cursor[Any],
    ) -> None:
        self._session = session
        self._target = target
        self._collection = collection
        self._execute = execute
        self._cursor = cursor
        #: Whether one statement wrote all rows, so the caller's cursor has its result.
        self._is_whole = False
        #: The rows that were written in parts: their number and returned values.
        self._count = 0
        self._returned: list[tuple[Any, ...]] = []

    def store(self, rows: Sequence[Row], *, is_all: bool) -> None:
        """Write rows.

        Args:
            is_all: whether the write has no other rows.

        Raises:
            Overtaken: rows with the same keys were stored meanwhile.
        """
        parts = list(self._parts(rows))
        for part in parts:
            self._write(part, is_all=is_all and len(parts) == 1)

    def mark(self) -> tuple[int, int]:
        return self._count, len(self._returned)

    def return_to(self, mark: tuple[int, int]) -> None:
        """The database has rolled back to the mark."""
        self._count = mark[0]
        del self._returned[mark[1] :]

    def report(self) -> None:
        """Set the statement's result on the caller's cursor."""
        if self._is_whole:
            return
        if self._target.statement.returning:
            description, rows = self._collection.description, self._returned
            self._execute(*returned_rows.select(self._session, description, rows))
        else:
            set_rowcount(self._cursor, self._count)

    def _parts(self, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        """The rows in groups that one statement can write."""
        groups: dict[tuple[Applying, str], list[Row]] = defaultdict(list)
        for row in rows:
            groups[row.applying, row.change.event.operation].append(row)
        options = self._session.connection.settings_dict.get("OPTIONS", {})
        for group in groups.values():
            if options.get("server_side_binding"):
                # The protocol limits the parameters of a statement.
                yield from batches(group, 3 + len(self._target.model._meta.concrete_fields))
            else:
                yield group

    def _write(self, rows: Sequence[Row], *, is_all: bool) -> None:
        saved = [row for row in rows if row.is_saved]
        rest = [row for row in rows if not row.is_saved]
        if saved:
            # A receiver has called save() on the instance of a new row: continue from there.
            self._collection.discard(saved)
            for row in saved:
                row.save(self._session.alias)
                self._returned += self._collection.returned(row)
            self._count += len(saved)
        if not rest:
            return
        assigned, later = assigned_to(rest)
        operation = rest[0].change.event.operation
        text, params = self._statement(operation, rest, assigned)
        is_last = self._is_last(operation)
        if is_last:
            mark = in_hand_mark(self._session, self._target.model)
            text = f"{text} {mark.replace('%', '%%')}"
        with self._noticing_overtakers():
            if is_all and not saved:
                self._is_whole = True
                self._write_all(operation, text, params, takes_rows=not is_last)
            else:
                connection = self._session.connection
                with hidden(connection), connection.cursor() as cursor:
                    cursor.execute(text, params)
                    self._count += cursor.rowcount
                    if self._target.statement.returning:
                        self._returned += cursor.fetchall()
        if later:
            with hidden(self._session.connection):
                store(later, self._session.alias)

    def _write_all(
        self, operation: str, text: str, params: Sequence[Any], *, takes_rows: bool
    ) -> None:
        execute = partial(self._execute, text, params)
        kind = None
        if takes_rows:
            kind = kind_on(self._session, self._target.model, operation, self._cursor)
        if kind is None:
            execute()
        else:
            execute_and_take(self._session, self._cursor, text, execute, kind)

    def _is_last(self, operation: str) -> bool:
        """Whether no receiver is called after the write, so the rows need not be captured."""
        source = self._session.buffer.source_of(self._target.model)
        return source is not None and source.kind(operation).is_before_only

    def _statement(
        self, operation: str, rows: Sequence[Row], assigned: Sequence[Assigned]
    ) -> tuple[str, list[Any]]:
        applying, numbers = rows[0].applying, [row.number for row in rows]
        match operation:
            case "U":
                return applying.update(numbers, assigned)
            case "D":
                return applying.delete(numbers)
        columns = self._collection.columns(applying.root)
        return applying.insert(numbers, assigned, columns)

    @contextmanager
    def _noticing_overtakers(self) -> Iterator[None]:
        """Wrap the writing of rows that the statement would leave out or update if they existed.

        Raises:
            Overtaken: they exist by now.
        """
        try:
            yield
        except IntegrityError as error:
            state = sqlstate(error)
            if self._target.statement.has_conflict and state in CONFLICTS:
                raise Overtaken(error) from error
            raise
