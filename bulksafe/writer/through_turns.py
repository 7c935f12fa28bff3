"""The rows of a twice-executed write, whose receivers are called before the second execution.

If one of them reads rows before its own, all rows are stored one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db.models.signals import m2m_changed

from bulksafe.dispatch.calls import Call
from bulksafe.hidden import hidden
from bulksafe.writer import delivering
from bulksafe.writer.changes import key_of_instance, row_of
from bulksafe.writer.conflicts import Conflicts, is_asked_for
from bulksafe.writer.instances import as_before_the_insert
from bulksafe.writer.observing import Observer
from bulksafe.writer.row_queue import RowQueue
from bulksafe.writer.single_rows import delete, insert
from bulksafe.writer.storing import store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulksafe.declarations import Receiver
    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.scopes import Scope
    from bulksafe.writer.session import Session
    from bulksafe.writer.through_rows import RecordedRow


class Turns:
    """The rows of one execution.

    Args:
        session: the connection's.
        scope: the write.
        rows: all that it changes, in their order.
        due: the calls before the write.
        can_be_stored: whether the rows can be stored one by one, in place of executing the write
            again.
    """

    def __init__(
        self,
        session: Session,
        scope: Scope,
        rows: Sequence[RecordedRow],
        due: Sequence[Call],
        *,
        can_be_stored: bool,
    ) -> None:
        self.session = session
        self.scope = scope
        self.rows = rows
        #: Whether rows were stored, so the write must not be executed again.
        self.is_begun = False
        # Links of one instance are one call, as are the rows of a batch.
        is_grouped = any(len(call.changes) > 1 for call in due)
        self._can_be_stored = can_be_stored and not is_grouped
        self._by_change = {id(row.change): row for row in rows}
        self._deleted = {row.change.row: row for row in rows if row.change.deleted}
        self._calls: dict[int, list[Call]] = {}
        for call in due:
            first = rows[0].change if is_grouped else call.changes[0]
            self._calls.setdefault(id(first), []).append(call)
        self._observer: Observer | None = None
        self._is_live = delivering.Live(delivering.EARLY)

    def run(self, *, is_row_by_row: bool) -> None:
        """Call the receivers, and store the rows if one of them depends on their order."""
        first = self.rows[0].change
        early, late = connected(self.session, first)
        conflicts = conflicts_of(self.session, first, late, early)
        queue = RowQueue(
            self.session,
            self.scope,
            self,
            conflicts,
            is_row_by_row=is_row_by_row or is_asked_for([*early, *late]),
            # Rows cannot be written in bulk once others are stored one by one.
            is_whole=True,
        )
        if self._can_be_stored:
            connection = self.session.connection
            self._observer = Observer(conflicts, queue, connection)
            self.scope.observer = Observer(conflicts, queue, connection, is_after=True)
            self.scope.progress = queue
        queue.run()

    # The rows, for the queue.

    def __len__(self) -> int:
        return len(self.rows)

    def before(self, place: int) -> None:
        row = self.rows[place]
        self._is_live.refresh()
        for call in self._calls.get(id(row.change), ()):
            if self._is_live(call.receiver, call.changes[-1].model):
                self._call(call)

    def _call(self, call: Call) -> None:
        rows = [self._by_change[id(change)] for change in call.changes]
        rows = [row for row in rows if not row.is_stored]
        if not rows:
            return
        action = "pre" if call.receiver.signal is m2m_changed else None
        for row in rows:
            row.inherit()
            if action:
                row.change.announced.add(call.receiver)
            else:
                self.scope.ledger.note(call.receiver, row.instance)
        self.session.call(Call(call.receiver, [row.change for row in rows]), action, self._observer)

    def store(self, start: int, end: int) -> None:
        if not self._can_be_stored or (end - start == len(self.rows)):
            # The write is executed again.
            return
        self.is_begun = True
        for row in self.rows[start:end]:
            if not row.is_stored:
                row.is_stored = True
                self._store(row)

    def mark(self) -> set[int]:
        return {id(row) for row in self.rows if row.is_stored}

    def return_to(self, mark: set[int], start: int, end: int) -> None:
        for row in self.rows:
            if row.is_stored and id(row) not in mark:
                row.is_stored = False
                if row.change.created:
                    as_before_the_insert(row.instance)

    # Row by row.

    def _store(self, row: RecordedRow) -> None:
        change, using = row.change, self.session.alias
        if change.created:
            recorded = change.row
            with hidden(self.session.connection):
                insert(row, using, self.scope.on_conflict)
            if row.instance.pk is not None:
                self.scope.moved[recorded] = row.instance.pk
        elif change.deleted:
            with hidden(self.session.connection):
                delete(change, using)
        else:
            # An assigned value may equal the row's own now, but not at its turn.
            written = change.changed | (self.scope.given_fields or set())
            changed = {f.attname for f in change.table.fields if f.name in written}
            names = changed | row.assigned()
            if not names:
                # An update without changed values is a change without a statement.
                self._carry(row, change)
                self.session.deliver([change], self.scope.observer)
                return
            key = self.scope.moved.get(change.row, change.key(old=True))
            with hidden(self.session.connection):
                store([(row.instance, names, key)], using)
        self._deliver_stored(row)

    def _deliver_stored(self, row: RecordedRow) -> None:
        stored = row.change.row
        if row.change.created:
            stored = row_of(row.change.model, key_of_instance(row.instance))
        elif stored in self.scope.moved:
            stored = row_of(row.change.model, self.scope.moved[stored])
        found = self.session.take()
        for change in found:
            self.scope.prepare(change)
            if change.row == stored:
                self._carry(row, change)
            elif change.deleted and change.row in self._deleted:
                # A cascade has already deleted it.
                other = self._deleted[change.row]
                other.is_stored = True
                self._carry(other, change)
        self.session.deliver(self.scope.left_over(found), self.scope.observer)

    def _carry(self, row: RecordedRow, change: InlineChange) -> None:
        row.carry_to(change, self.session.alias, has_no_cascades=self._can_be_stored)


def connected(session: Session, change: InlineChange) -> tuple[list[Receiver], list[Receiver]]:
    """The connected receivers of a row: before the write, and after it."""
    is_live = delivering.Live((*delivering.BEFORE, *delivering.LATE))
    found = [one for one in session.listed(change) if is_live(one, change.model)]
    early = [one for one in found if one.signal_name in delivering.BEFORE]
    return early, [one for one in found if one not in early]


def conflicts_of(
    session: Session,
    change: InlineChange,
    late: Sequence[Receiver],
    early: Sequence[Receiver],
) -> Conflicts:
    """The dependencies of the receivers of such rows."""
    return Conflicts(session.connection, change.model, change.event.operation, late, early=early)
