"""Collects an ``INSERT … ON CONFLICT``, where only the execution shows which rows are new.

It is executed in a savepoint, while a trigger keeps the rows before they are written, and rolled
back. Then all rows are staged, and the stored ones among them are locked again and compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import transaction

from bulksafe.outbox.events import UPDATED
from bulksafe.rendering import quoting
from bulksafe.sqlstates import NOT_ALLOWED
from bulksafe.writer.blocks import Block
from bulksafe.writer.collected import NESTED, Collection, giving_up_on
from bulksafe.writer.collecting import Uncollectable
from bulksafe.writer.relations import relations_of
from bulksafe.writer.retrying import Retries

if TYPE_CHECKING:
    from psycopg import Cursor

    from bulksafe.dispatch.images import Image
    from bulksafe.writer.applying import Applying
    from bulksafe.writer.collecting import Target
    from bulksafe.writer.scopes import Scope
    from bulksafe.writer.session import Execute, Session
    from bulksafe.writer.staged_rows import Row


class _Kept(NamedTuple):
    """A row as collected by the trigger."""

    number: int
    source: int
    operation: str
    old: str | None
    new: str | None


class Recording(Collection):
    """The rows that one ``INSERT … ON CONFLICT`` would write."""

    def __init__(self, session: Session, scope: Scope, target: Target) -> None:
        super().__init__(session, scope, target)
        self.rows: list[Row] = []

    def chunks(self) -> Generator[list[Row], None, None]:
        if self.rows:
            yield self.rows

    def collect(self, execute: Execute, cursor: Cursor[Any], sql: str, params: Any) -> Any:
        """Record the statement; see ``Collection.collect``.

        Raises:
            Uncollectable: it may write to other tables, or its rows cannot be distinguished.
        """
        if self._writes_elsewhere(sql):
            raise Uncollectable
        retries, is_staged = Retries(self.session), False
        while not is_staged:
            with retries.of_deadlocks():
                is_staged = self._stage(self._record(sql, params))
            if not is_staged:
                retries.count()
        # Without rows, the statement is executed only for its result.
        return None if self.rows else execute(sql, params)

    def _writes_elsewhere(self, text: str) -> bool:
        """Whether a function that the statement calls may write: that is rolled back."""
        relations = relations_of(self.session.connection)
        touched, own = relations.touched(text), relations.closed(self.target.statement.table)
        return (touched.is_opaque and not own.is_opaque) or not touched.writes <= own.writes

    # Recording.

    def _record(self, sql: str, params: Any) -> list[_Kept]:
        """Execute the statement and roll it back. Returns the collected rows."""
        with Block(self.session.alias, may_wait=not self.session.observers):
            self.begin("record")
            written = self._execute(sql, params)
            rows = self.end()
            self.rows = self._stored(rows, written)
            kept = self._unstage([row.number for row in self.rows])
            transaction.set_rollback(True, using=self.session.alias)
        self.session.due.clear()
        return kept

    def _execute(self, sql: str, params: Any) -> list[tuple[Any, ...]]:
        """Execute the statement past Django's cursors. Returns the keys of the written rows."""
        connection = self.session.connection
        with (
            # The role may be allowed to execute the statement, but not to read the keys.
            giving_up_on(NESTED, NOT_ALLOWED),
            connection.wrap_database_errors,
            connection.create_cursor() as cursor,
        ):
            text = self._returning_keys(sql)
            cursor.execute(text) if params is None else cursor.execute(text, params)
            width = len(cursor.description) - len(self._keys)
            self.description = cursor.description[:width]
            return [row[width:] for row in cursor.fetchall()]

    def _returning_keys(self, sql: str) -> str:
        """The statement with the keys of rows appended to its RETURNING."""
        statement = self.target.statement
        alias = quoting.identifier(statement.alias or statement.table)
        keys = ", ".join(f"{alias}.{name}" for name in self._keys).replace("%", "%%")
        # On a line of its own: a comment may end the text.
        return f"{sql.rstrip().rstrip(';')}\n{',' if statement.returning else 'RETURNING'} {keys}"

    def _stored(self, rows: Sequence[Row], written: Sequence[tuple[Any, ...]]) -> list[Row]:
        """The written rows: the trigger also collects an INSERT's rows that then conflict.

        Raises:
            Uncollectable: a trigger has given rows other keys.
        """
        updated = {
            _key(row.change.new_image): row for row in rows if row.change.event.operation == UPDATED
        }
        keys = set(written)
        found = [
            row
            for row in rows
            if (key := _key(row.change.new_image)) in keys
            and (key not in updated or updated[key] is row)
        ]
        if len(found) != len(written):
            raise Uncollectable
        return found

    def _unstage(self, numbers: Sequence[int]) -> list[_Kept]:
        found = self.ask(
            "SELECT s.n, s.source::pg_catalog.int8, s.operation::pg_catalog.text, s.old, s.new "
            "FROM {home}.bulksafe_unstage(%s) AS s ORDER BY s.n",
            [list(numbers)],
        )
        return [_Kept(*row) for row in found]

    # Staging.

    def _stage(self, kept: Sequence[_Kept]) -> bool:
        """Stage the rows, and lock the stored ones.

        Returns:
            whether these are unchanged. Otherwise nothing is staged.
        """
        if not kept:
            return True
        with Block(self.session.alias, may_wait=not self.session.observers):
            numbers = self.ask(
                "SELECT s.n FROM {home}.bulksafe_stage("
                "%s::pg_catalog.oid[], %s::pg_catalog.text[], "
                "%s::pg_catalog.text[], %s::pg_catalog.text[]) AS s (n)",
                [list(column) for column in zip(*(one[1:] for one in kept), strict=True)],
            )
            for row, (number,) in zip(self.rows, numbers, strict=True):
                row.number = number
            is_unchanged = self._lock(kept)
            if not is_unchanged:
                transaction.set_rollback(True, using=self.session.alias)
        return is_unchanged

    def _lock(self, kept: Sequence[_Kept]) -> bool:
        """Lock the stored rows, in the order in which the statement has locked them."""
        parts: dict[tuple[int, Applying], list[int]] = defaultdict(list)
        for row, one in zip(self.rows, kept, strict=True):
            if one.operation == UPDATED:
                parts[one.source, row.applying].append(row.number)
        found: list[tuple[bool]] = []
        for (source, applying), numbers in parts.items():
            with giving_up_on(NOT_ALLOWED):
                params = [source, numbers[0] - 1, numbers[-1]]
                found += self.ask(self._locking(applying), params)
        return len(found) == sum(map(len, parts.values())) and all(same for (same,) in found)

    def _locking(self, applying: Applying) -> str:
        """SQL that locks the stored rows of one table and returns whether each is unchanged."""
        columns = [quoting.identifier(name) for name in self.columns(applying.root)]
        # As text: not every type can be compared.
        same = " AND ".join(
            f"t.{name}::pg_catalog.text IS NOT DISTINCT FROM (o.r).{name}::pg_catalog.text"
            for name in columns
        )
        matched = " AND ".join(f"t.{name} = (o.r).{name}" for name in self._keys)
        texts = [
            one.replace("%", "%%") for one in (same, applying.root, applying.relation, matched)
        ]
        return (
            f"SELECT {texts[0]} FROM {texts[1]} AS t JOIN ("  # noqa: S608
            f"SELECT s.n, s.old::{texts[2]} AS r "
            "FROM {home}.bulksafe_staged_rows(%s::pg_catalog.oid, %s, %s) AS s "
            f"WHERE s.operation OPERATOR(pg_catalog.=) 'U' OFFSET 0) AS o ON {texts[3]} "
            "ORDER BY o.n FOR NO KEY UPDATE OF t"
        )

    @property
    def _keys(self) -> list[str]:
        """The columns of the primary key, quoted."""
        return [quoting.identifier(str(k.column)) for k in self.target.model._meta.pk_fields]


def _key(image: Image | None) -> tuple[Any, ...]:
    """The primary key of a row as the driver reads it."""
    assert image is not None  # noqa: S101
    values = dict(zip(image.table.attnames, image.values, strict=True))
    return tuple(values[one.attname] for one in image.table.model._meta.pk_fields)
