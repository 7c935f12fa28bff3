"""Turns what the database has collected into rows to be written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from bulksafe import call_stack
from bulksafe.contexts import current
from bulksafe.dispatch.images import Image
from bulksafe.outbox.events import DELETED, INSERTED, Event
from bulksafe.writer.applying import Applying
from bulksafe.writer.changes import InlineChange
from bulksafe.writer.collecting import Uncollectable
from bulksafe.writer.staged_rows import Row

if TYPE_CHECKING:
    from bulksafe.writer.collecting import Target
    from bulksafe.writer.scopes import Scope
    from bulksafe.writer.session import Session
    from bulksafe.writer.staged_query import StagedQuery
    from bulksafe.writer.taking import Kind, Source


class Part(NamedTuple):
    """The rows of one table that one operation would change.

    Attributes:
        oid: the oid of the table or partition.
        root_oid: the oid of the partitioned table, or the same.
        relation, root: the names of both, as SQL of this session writes them.
        operation: the operation on the rows.
        last: the number of the last row.
        is_secured: whether policies may hide rows from this role: a statement may write rows that a
            lookup by key cannot see.
    """

    oid: int
    root_oid: int
    relation: str
    root: str
    operation: str
    last: int
    is_secured: bool


@dataclass(frozen=True)
class Reader:
    """Makes the rows of one write.

    Attributes:
        session: the connection's.
        scope: the write.
        target: the statement, and whose rows it writes.
        home: the schema of bulksafe's own tables, quoted.
    """

    session: Session
    scope: Scope
    target: Target
    home: str

    def source(self, part: Part) -> Source:
        source = self.session.source(part.root_oid)
        if source is None or part.is_secured:
            raise Uncollectable
        return source

    def query(self, part: Part, source: Source) -> StagedQuery:
        """The query for the rows of a part."""
        statement = self.target.statement
        # A different statement may delete rows, or insert them.
        assigned = statement.assigned if statement.verb == "UPDATE" else None
        return source.kind(part.operation).staged_query(part.relation, assigned)

    def rows(self, part: Part, source: Source, rows: Iterable[tuple[Any, ...]]) -> list[Row]:
        """The rows of a part, from the rows of the query."""
        kind, query = source.kind(part.operation), self.query(part, source)
        applying = Applying(
            self.target.model,
            self.home,
            part.relation,
            part.root,
            self.target.statement,
            self.scope.given_fields is not None,
            self.session.connection,
        )
        return [
            Row(row[0], applying, self._change(source, kind, query, row), self.scope.ledger)
            for row in rows
        ]

    def _change(
        self, source: Source, kind: Kind, query: StagedQuery, row: tuple[Any, ...]
    ) -> InlineChange:
        old, new = query.images(row)
        table = source.table
        change = InlineChange(
            Event(0, row[0], 0, 0, 0.0, source.oid, None, kind.operation, 1, "", context=current()),
            source.model,
            None if kind.operation == INSERTED else Image(old, table),
            None if kind.operation == DELETED else Image(new, table),
            using=self.session.alias,
            event_id="",
            met=kind.every - query.unmet(row) if kind.conditional else kind.every,
            calls=call_stack.calls(),
        )
        self.scope.prepare(change)
        return change
