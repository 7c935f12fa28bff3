"""A collected write: its rows are known before they are written.

Django's own statement is executed once, while a trigger collects its rows and nothing is written;
the rows stay locked. Receivers run with the old state of the database. Then one statement writes
the collected rows with the receivers' assignments: each row has one event, and each of its triggers
and rules sees the final values.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from bulksafe.declarations.order import in_order
from bulksafe.dispatch.ordering import calls, split_at_batches
from bulksafe.object_state import query_of, set_query
from bulksafe.writer import delivering, parents
from bulksafe.writer.changes import InlineChange
from bulksafe.writer.collected import Collection
from bulksafe.writer.collecting import live
from bulksafe.writer.conflicts import Conflicts, is_asked_for
from bulksafe.writer.observing import Observer
from bulksafe.writer.recorded import Recording
from bulksafe.writer.row_queue import RowQueue
from bulksafe.writer.scopes import is_one_write
from bulksafe.writer.staged_rows import Row
from bulksafe.writer.staged_store import StagedStore

if TYPE_CHECKING:
    from psycopg import Cursor

    from bulksafe.call_stack import Row as RowName
    from bulksafe.dispatch.calls import Call
    from bulksafe.dispatch.ordering import Delivery
    from bulksafe.writer.collecting import Target
    from bulksafe.writer.scopes import Scope
    from bulksafe.writer.session import Execute, Session


class Staged:
    """One collected write.

    Args:
        session: the connection's.
        scope: the write.
        target: the statement, and whose rows it writes.
        execute: executes a statement with parameters on the caller's cursor.
        cursor: the driver's cursor behind it.
        is_row_by_row: whether each row must be written separately.
    """

    def __init__(
        self,
        session: Session,
        scope: Scope,
        target: Target,
        execute: Execute,
        cursor: Cursor[Any],
        *,
        is_row_by_row: bool = False,
    ) -> None:
        self.session = session
        self.scope = scope
        self.target = target
        self.rows: list[Row] = []
        self._execute = execute
        self._cursor = cursor
        kind = Recording if target.statement.has_conflict else Collection
        self._collection = kind(session, scope, target)
        self._store = StagedStore(session, target, self._collection, execute, cursor)
        self._calls: dict[int, list[Call]] = {}
        #: The deliveries to batch=True receivers, and to the receivers after them.
        self._rest: list[Delivery] = []
        self._by_change: dict[int, Row] = {}
        #: Whether rows were written already, so that stored rows may have changed.
        self._is_begun = False
        #: Whether triggers have written to other rows of the table.
        self._has_spread = False
        self._is_live = delivering.Live(delivering.BEFORE)
        early, late = live(target)
        self._conflicts = Conflicts(
            session.connection, target.model, target.operation, late, early=early
        )
        self.queue = RowQueue(
            session,
            scope,
            self,
            self._conflicts,
            is_row_by_row=is_row_by_row or is_asked_for([*early, *late]),
            is_whole=any(receiver.batch for receiver in (*early, *late)),
        )
        self._observer = Observer(self._conflicts, self.queue, session.connection)

    def run(self, sql: str, params: Any) -> Any:
        """Make the write.

        Raises:
            Uncollectable: a function or a trigger would write.
        """
        result = self._collection.collect(self._execute, self._cursor, sql, params)
        with closing(self._collection.chunks()) as chunks:
            for self.rows in chunks:
                self._run_chunk()
        if self.rows:
            self._store.report()
            if self.session.connection.queries_logged:
                set_query(self._cursor, query_of(self._cursor, sql, params))
        return result

    def _run_chunk(self) -> None:
        if not self.queue.is_in_order:
            # Its rows are locked, and no receiver so far was seen to touch them.
            self._is_begun = False
        self._plan()
        self.scope.observer = Observer(
            self._conflicts, self.queue, self.session.connection, is_after=True
        )
        self.queue.run()
        self._collection.discard(row for row in self.rows if row.is_gone)
        if self._collection.is_in_chunks:
            self.scope.ledger.clear()

    def _plan(self) -> None:
        """Determine the receivers of each row."""
        self._calls.clear()
        self._by_change = {id(row.change): row for row in self.rows}
        changes = [row.change for row in self.rows]
        due = delivering.deliveries(changes, self.session.listed, delivering.BEFORE)
        first, _ = split_at_batches(in_order(list(dict.fromkeys(one.receiver for one in due))))
        singles = set(first)
        for call in calls([one for one in due if one.receiver in singles]):
            self._calls.setdefault(id(call.changes[0]), []).append(call)
        self._rest = [one for one in due if one.receiver not in singles]

    # The rows, for the queue.

    def __len__(self) -> int:
        return len(self.rows)

    def before(self, place: int) -> None:
        row = self.rows[place]
        if self._is_begun and not row.change.created and self._may_have_changed():
            self._collection.refresh(row)
        due = [] if row.is_gone else self._calls.get(id(row.change), [])
        self._is_live.refresh()
        for call in due:
            self._call(call, self._observer)

    def _may_have_changed(self) -> bool:
        """Whether a row, which is locked, may have changed since it was collected."""
        return self._has_spread or self._conflicts.may_write_to_table

    def _call(self, call: Call, observer: Observer | None) -> None:
        if self._is_live(call.receiver, self.target.model):
            for change in call.changes:
                self._by_change[id(change)].begin(call.receiver)
            self.session.call(call, None, observer)

    def _call_batches(self, rows: Sequence[Row]) -> None:
        """Call the batch=True receivers, and the receivers after them."""
        changes = {id(row.change) for row in rows}
        for call in calls([one for one in self._rest if id(one.change) in changes]):
            self._call(call, None)

    def store(self, start: int, end: int) -> None:
        rows = [row for row in self.rows[start:end] if not row.is_gone]
        if self._rest:
            self._call_batches(rows)
        if end - start > 1:
            parents.forget([row.instance for row in rows if row.instance is not None], {})
        is_all = end - start == len(self.rows) and not self._is_begun
        is_all = is_all and not self._collection.is_in_chunks
        self._is_begun = True
        self._store.store(rows, is_all=is_all)
        self._deliver(rows)

    def mark(self) -> tuple[tuple[int, int], set[int]]:
        return self._store.mark(), {id(row) for row in self.rows if row.is_gone}

    def return_to(self, mark: tuple[tuple[int, int], set[int]], start: int, end: int) -> None:
        stored, gone = mark
        self._store.return_to(stored)
        for row in self.rows:
            row.is_gone = row.is_gone and id(row) in gone
        for row in self.rows[start:end]:
            row.return_to_before()

    # The written rows.

    def _deliver(self, rows: Sequence[Row]) -> None:
        by_key = {row.stored_row: row for row in rows}
        found: list[InlineChange] = []
        last: dict[RowName, int] = {}
        for change in self.session.take():
            self.scope.prepare(change)
            place = last.get(change.row)
            if change.row in by_key and place is not None and is_one_write(found[place], change):
                # A trigger has written to the row again. As in a save(), that is one change.
                change.begin_with(found[place])
                found[place] = change
            else:
                place = len(found)
                found.append(change)
            last[change.new_row] = place
        for change in found:
            row = by_key.get(change.row)
            if row is not None:
                row.carry_to(change)
            else:
                self._has_spread = self._has_spread or change.model is self.target.model
        self.session.deliver(self.scope.left_over(found), self.scope.observer)
