"""A collected write: its rows are known before they are written.

Django's own statement is executed once, while a trigger keeps its rows and nothing is written; the
rows stay locked. Receivers run beside the old database. Then one statement writes the rows from
what was kept, with what receivers have assigned: each row has one event, and each of its triggers
and rules sees the final values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError

from bulksafe.declarations.order import in_order
from bulksafe.dispatch.ordering import calls, split_at_batches
from bulksafe.object_state import set_rowcount
from bulksafe.writer import delivering, parents, returned_rows
from bulksafe.writer.applying import Applying, Assigned
from bulksafe.writer.changes import InlineChange
from bulksafe.writer.collected import Collection
from bulksafe.writer.collecting import live
from bulksafe.writer.conflicts import Conflicts, is_asked_for
from bulksafe.writer.observing import Observer
from bulksafe.writer.recorded import Recording
from bulksafe.writer.retrying import CONFLICTS, Overtaken
from bulksafe.writer.row_queue import RowQueue
from bulksafe.writer.scopes import is_one_write
from bulksafe.writer.staged_rows import Row, assigned_to
from bulksafe.writer.storing import batches, store
from bulksafe.writer.taking import sorted_by_key

if TYPE_CHECKING:
    from bulksafe.dispatch.calls import Call
    from bulksafe.dispatch.ordering import Delivery
    from bulksafe.writer.collecting import Target
    from bulksafe.writer.scopes import Scope
    from bulksafe.writer.session import Execute, Session


class Staged:
    """One collected write.

    Args:
        watch: the connection's.
        scope: the write.
        target: the statement, and whose rows it writes.
        execute: executes a statement with parameters on the caller's cursor.
        cursor: the driver's cursor behind it.
        is_row_by_row: whether each row is to be written by itself.
    """

    def __init__(
        self,
        watch: Session,
        scope: Scope,
        target: Target,
        execute: Execute,
        cursor: Any,
        *,
        is_row_by_row: bool = False,
    ) -> None:
        self.watch = watch
        self.scope = scope
        self.target = target
        self.rows: list[Row] = []
        self._execute = execute
        self._cursor = cursor
        kind = Recording if target.statement.has_conflict else Collection
        self._collection = kind(watch, scope, target)
        self._calls: dict[int, list[Call]] = {}
        #: What is due to receivers that are called for many rows at once, and to those after them.
        self._rest: list[Delivery] = []
        self._by_change: dict[int, Row] = {}
        #: Whether rows were written already, so that what is stored may have changed.
        self._is_begun = False
        self._is_live = delivering.Live(delivering.BEFORE)
        #: Whether one statement has written all of the rows, so that the caller's cursor has it.
        self._is_whole = False
        #: What was written in parts: the number of rows, and what they returned.
        self._count = 0
        self._returned: list[tuple[Any, ...]] = []
        early, late = live(target)
        self._conflicts = Conflicts(
            watch.connection, target.model, target.operation, late, early=early
        )
        self.queue = RowQueue(
            watch,
            scope,
            self,
            self._conflicts,
            is_row_by_row=is_row_by_row or is_asked_for([*early, *late]),
            is_whole=any(receiver.batch for receiver in (*early, *late)),
        )
        self._observer = Observer(self._conflicts, self.queue, watch.connection)

    def run(self, sql: str, params: Any) -> Any:
        """Make the write.

        Raises:
            Uncollectable: a function or a trigger would write.
        """
        result = self._collection.collect(self._execute, self._cursor, sql, params)
        self.rows = self._collection.rows
        if not self.rows:
            return result
        self._put_in_order()
        self._plan()
        self.scope.observer = Observer(
            self._conflicts, self.queue, self.watch.connection, is_after=True
        )
        self.queue.run()
        self._collection.discard(row for row in self.rows if row.is_gone)
        self._finish()
        return result

    def _put_in_order(self) -> None:
        """Updated and deleted rows in the order of their keys, as a loop over them has them."""
        if self.target.statement.verb in {"UPDATE", "DELETE"}:
            self.rows = sorted_by_key(self.rows, lambda row: row.change.key(old=True))

    def _plan(self) -> None:
        """Find out who is called for which row."""
        self._by_change = {id(row.change): row for row in self.rows}
        changes = [row.change for row in self.rows]
        due = delivering.deliveries(changes, self.watch.listed, delivering.BEFORE)
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
        if self._is_begun and not row.change.created:
            self._collection.refresh(row)
        due = [] if row.is_gone else self._calls.get(id(row.change), [])
        self._is_live.refresh()
        for call in due:
            self._call(call, self._observer)

    def _call(self, call: Call, observer: Observer | None) -> None:
        if self._is_live(call.receiver, self.target.model):
            for change in call.changes:
                self._by_change[id(change)].begin(call.receiver)
            self.watch.call(call, None, observer)

    def _call_batches(self, rows: Sequence[Row]) -> None:
        """Call the receivers that are called for many rows at once, and those after them."""
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
        self._is_begun = True
        parts = list(self._parts(rows))
        for part in parts:
            self._write(part, is_all=is_all and len(parts) == 1)
        self._deliver(rows)

    def mark(self) -> Any:
        return self._count, len(self._returned), {id(row) for row in self.rows if row.is_gone}

    def return_to(self, mark: Any, start: int, end: int) -> None:
        self._count = mark[0]
        del self._returned[mark[1] :]
        for row in self.rows:
            row.is_gone = row.is_gone and id(row) in mark[2]
        for row in self.rows[start:end]:
            row.return_to_before()

    # Writing.

    def _parts(self, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        """The rows by what one statement can write."""
        groups: dict[tuple[Applying, str], list[Row]] = defaultdict(list)
        for row in rows:
            groups[row.applying, row.change.event.operation].append(row)
        options = self.watch.connection.settings_dict.get("OPTIONS", {})
        for group in groups.values():
            if options.get("server_side_binding"):
                # A statement has so many parameters then, and no more.
                yield from batches(group, 3 + len(self.target.model._meta.concrete_fields))
            else:
                yield group

    def _write(self, rows: Sequence[Row], *, is_all: bool) -> None:
        saved = [row for row in rows if row.is_saved]
        rest = [row for row in rows if not row.is_saved]
        if saved:
            # A receiver has called save() on the instance of a new row: this goes on from there.
            self._collection.discard(saved)
            for row in saved:
                row.save(self.watch.alias)
                self._returned += self._collection.returned(row)
            self._count += len(saved)
        if not rest:
            return
        assigned, later = assigned_to(rest)
        text, params = self._statement(rest, assigned)
        with self._noticing_overtakers():
            if is_all and not saved:
                self._is_whole = True
                self._execute(text, params)
            else:
                with self.watch.connection.cursor() as cursor:
                    cursor.execute(text, params)
                    self._count += cursor.rowcount
                    if self.target.statement.returning:
                        self._returned += cursor.fetchall()
        if later:
            store(later, self.watch.alias)

    def _statement(
        self, rows: Sequence[Row], assigned: Sequence[Assigned]
    ) -> tuple[str, list[Any]]:
        applying, numbers = rows[0].applying, [row.number for row in rows]
        match rows[0].change.event.operation:
            case "U":
                return applying.update(numbers, assigned)
            case "D":
                return applying.delete(numbers)
        columns = self._collection.columns(applying.root)
        return applying.insert(numbers, assigned, columns)

    @contextmanager
    def _noticing_overtakers(self) -> Iterator[None]:
        """Around writing rows that the statement would leave out or update if they were there.

        Raises:
            Overtaken: they are, by now.
        """
        try:
            yield
        except IntegrityError as error:
            state = getattr(error.__cause__, "sqlstate", None)
            if self.target.statement.has_conflict and state in CONFLICTS:
                raise Overtaken(error) from error
            raise

    # What was written.

    def _deliver(self, rows: Sequence[Row]) -> None:
        by_key = {row.stored_row: row for row in rows}
        found: list[InlineChange] = []
        last: dict[tuple[str, Any], int] = {}
        for change in self.watch.take():
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
        self.watch.deliver(self.scope.left_over(found), self.scope.observer)

    def _finish(self) -> None:
        """Let the caller's cursor say what the statement would have said."""
        if self._is_whole:
            return
        if self.target.statement.returning:
            description, rows = self._collection.description, self._returned
            self._execute(*returned_rows.select(self.watch, description, rows))
        else:
            set_rowcount(self._cursor, self._count)
