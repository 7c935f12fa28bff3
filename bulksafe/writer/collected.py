"""The rows of a collected write, which the database stores until they are written."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from django.db import DatabaseError

from bulksafe.dispatch.images import Image
from bulksafe.outbox.events import INSERTED
from bulksafe.outbox.queries import query
from bulksafe.own_cursor import own_portal
from bulksafe.rendering import quoting
from bulksafe.sqlstates import sqlstate
from bulksafe.writer.buffer import CHUNK, MANY
from bulksafe.writer.collected_rows import Part, Reader
from bulksafe.writer.collecting import Uncollectable, places
from bulksafe.writer.combining import sorted_by_key
from bulksafe.writer.readable import readable

if TYPE_CHECKING:
    from psycopg import Cursor

    from bulksafe.writer.collecting import Target
    from bulksafe.writer.scopes import Scope
    from bulksafe.writer.session import Execute, Session
    from bulksafe.writer.staged_rows import Row


class Collection:
    """The rows that one statement would write.

    Args:
        session: the connection's.
        scope: the write.
        target: the statement, and whose rows it writes.
    """

    def __init__(self, session: Session, scope: Scope, target: Target) -> None:
        self.session = session
        self.scope = scope
        self.target = target
        #: Whether its rows come in several chunks.
        self.is_in_chunks = False
        #: The columns that the statement returns, as the driver describes them.
        self.description: Sequence[Any] = ()
        self._home = quoting.identifier(places(session.connection).home)
        self._after = 0
        self._parts: list[Part] = []
        self._reader = Reader(session, scope, target, self._home)

    def collect(self, execute: Execute, cursor: Cursor[Any], sql: str, params: Any) -> Any:
        """Execute the statement on the caller's cursor without writing.

        Returns:
            the result of the execution.

        Raises:
            Uncollectable: a function or a trigger would write.
        """
        self.begin("collect")
        with giving_up_on(NESTED):
            result = execute(sql, params)
        self.description = cursor.description or ()
        self._parts = self._end()
        return result

    def chunks(self) -> Generator[list[Row], None, None]:
        """The rows that the statement would change, in their order; some at a time if many.

        There are none if it changes none, or if it has changed them because the trigger was
        disabled. Updated and deleted rows come in the order of their keys, as in a loop over them.
        Close it after an error: a cursor may be open.
        """
        verb = self.target.statement.verb
        # Numbers are shared with other transactions: there may be fewer rows.
        if len(self._parts) == 1 and verb != "MERGE" and self._parts[0].last - self._after > MANY:
            self.is_in_chunks = True
            yield from self._read_in_chunks(self._parts[0])
            return
        rows = self._rows_of(self._parts)
        if verb in {"UPDATE", "DELETE"}:
            rows = sorted_by_key(rows, lambda row: row.change.key(old=True))
        if rows:
            yield rows

    def begin(self, mode: Literal["collect", "record"]) -> None:
        """Collect the rows of the next statement."""
        ((self._after,),) = self.ask("SELECT {home}.bulksafe_collect(%s)", [mode])

    def end(self) -> list[Row]:
        """Execute later statements as usual. Returns the collected rows."""
        return self._rows_of(self._end())

    def _end(self) -> list[Part]:
        parts = self.ask(
            "SELECT c.source::pg_catalog.int8, c.root::pg_catalog.int8, "
            "c.source::pg_catalog.regclass::pg_catalog.text, "
            "c.root::pg_catalog.regclass::pg_catalog.text, c.operation::pg_catalog.text, c.last, "
            "pg_catalog.row_security_active(c.root) "
            "FROM {home}.bulksafe_collected(%s) AS c",
            [self._after],
        )
        return [Part(*part) for part in parts]

    def _rows_of(self, parts: Iterable[Part]) -> list[Row]:
        found = [row for part in parts for row in self._read(part)]
        return sorted(found, key=lambda row: row.number)

    def discard(self, rows: Iterable[Row]) -> None:
        """Discard rows that will not be written, or have been written otherwise."""
        numbers = [row.number for row in rows]
        if numbers:
            self.ask("SELECT count(*) FROM {home}.bulksafe_unstage(%s)", [numbers])

    def refresh(self, row: Row) -> None:
        """Read a row's stored state again, after receivers of earlier rows."""
        table, change = row.change.table, row.change
        keys = table.model._meta.pk_fields
        matched = " AND ".join(f"t.{quoting.identifier(str(k.column))} = %s" for k in keys)
        columns = ", ".join(f"t.{quoting.identifier(str(one.column))}" for one in table.fields)
        key = change.key(old=True)
        values = key if isinstance(key, tuple) else (key,)
        params = [
            one.get_db_prep_value(value, self.session.connection)
            for one, value in zip(keys, values, strict=True)
        ]
        text = f"SELECT {columns} FROM {row.applying.root} AS t WHERE ".replace("%", "%%")  # noqa: S608
        with readable(table.model):
            found = self.ask(text + matched, params)
        if not found:
            row.is_gone = True
            return
        now = found[0]
        if change.new_image is None:
            row.begin_with(Image(now, table), None)
            return
        new = tuple(
            staged if one.name in row.written else value
            for one, value, staged in zip(table.fields, now, change.new_image.values, strict=True)
        )
        row.begin_with(Image(now, table), Image(new, table))

    def returned(self, row: Row) -> list[tuple[Any, ...]]:
        """The statement's RETURNING values of a stored row."""
        statement = self.target.statement
        if not statement.returning:
            return []
        assert row.instance is not None  # noqa: S101
        keys = self.target.model._meta.pk_fields
        alias = quoting.identifier(statement.alias or statement.table)
        matched = " AND ".join(f"{alias}.{quoting.identifier(str(k.column))} = %s" for k in keys)
        table = f"{row.applying.root} AS {alias} WHERE {matched}"
        params = [
            key.get_db_prep_value(getattr(row.instance, key.attname), self.session.connection)
            for key in keys
        ]
        return self.ask(f"SELECT {statement.returning} FROM {table}", params)  # noqa: S608

    def columns(self, root: str) -> list[str]:
        """The columns of a table that an INSERT may name."""
        return [name for (name,) in self.ask(query("columns"), [root])]

    def ask(self, text: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Execute a query, bypassing Django's cursors."""
        with self.session.asking() as cursor:
            cursor.execute(self._at_home(text), params)
            found: list[tuple[Any, ...]] = cursor.fetchall()
            return found

    def _at_home(self, text: str) -> str:
        return text.replace("{home}", self._home.replace("%", "%%"), 1)

    def _params(self, part: Part) -> list[Any]:
        return [part.oid, self._after, part.last, part.operation]

    def _read(self, part: Part) -> list[Row]:
        source = self._reader.source(part)
        text = self._reader.query(part, source).text
        with readable(source.model):
            rows = self.ask(text, self._params(part))
        return self._reader.rows(part, source, rows)

    def _read_in_chunks(self, part: Part) -> Iterator[list[Row]]:
        source = self._reader.source(part)
        staged = self._reader.query(part, source)
        text = staged.text if part.operation == INSERTED else staged.text_by_key
        connection = self.session.connection
        with own_portal(connection) as portal:
            with readable(source.model), connection.wrap_database_errors:
                portal.execute(
                    self._at_home(text), [part.oid, self._after, part.last, part.operation]
                )
            while True:
                with readable(source.model), connection.wrap_database_errors:
                    rows = portal.fetchmany(CHUNK)
                if not rows:
                    return
                yield self._reader.rows(part, source, rows)


#: The SQLSTATE of the trigger's refusal to collect writes of functions and triggers.
NESTED = "BS004"


@contextmanager
def giving_up_on(*states: str) -> Iterator[None]:
    """Wrap a statement that the write may be executed without, in a different way.

    Args:
        states: SQLSTATEs of its errors.

    Raises:
        Uncollectable: it ended with one of these.
    """
    try:
        yield
    except DatabaseError as error:
        if sqlstate(error) in states:
            raise Uncollectable from error
        raise
