"""Executes writes twice: first to record their changes, then with the receivers' assignments.

Several statements in one text, ``WITH``, functions, rules and multi-table inheritance write more
than bulksafe could write in their place. Such a write is executed in a savepoint, its changes are
taken, and the savepoint is rolled back. The stored rows among them are locked again and compared.
Then the receivers run with the old state of the database, and the write is executed again. If the
changes differ this time because receivers also wrote, it is repeated once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import transaction

from bulksafe.dispatch.ordering import calls
from bulksafe.object_state import forget_logged, log_again, log_mark
from bulksafe.outbox.events import UPDATED
from bulksafe.writer import delivering
from bulksafe.writer.blocks import Block
from bulksafe.writer.combining import in_order_of_locks
from bulksafe.writer.conflicts import is_asked_for
from bulksafe.writer.fingerprints import recognizable
from bulksafe.writer.known_rows import KnownRows
from bulksafe.writer.locking import lock
from bulksafe.writer.observing import Observer
from bulksafe.writer.retrying import Retries
from bulksafe.writer.row_queue import InBulk
from bulksafe.writer.second_update import store_assigned
from bulksafe.writer.single_rows import delete
from bulksafe.writer.through_turns import Turns, conflicts_of, connected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.db.models import Model

    from bulksafe.call_stack import Row
    from bulksafe.dispatch.ordering import Delivery
    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.fingerprints import Found
    from bulksafe.writer.scopes import Scope
    from bulksafe.writer.session import Session
    from bulksafe.writer.through_rows import RecordedRow

#: The maximum number of executions with different changes; after that, receivers run late.
_ROUNDS = 5


@dataclass(frozen=True, eq=False)
class Recorded:
    """One execution of a write.

    Attributes:
        result: its result.
        found: all of its changes.
        new: the changes without receiver calls so far.
        due: the calls before the write.
        stands: whether it was kept, not rolled back.
        logged: what it has logged, if it was rolled back.
    """

    result: Any
    found: Sequence[Found]
    new: Sequence[Found]
    due: Sequence[Delivery]
    stands: bool
    logged: Sequence[dict[str, str]]


class Through:
    """One write.

    Args:
        session: the connection's.
        scope: the scope of the write.
        operation: executes it.
        is_plain: whether it only changes rows of the tables that it names, so that these can be
            stored one by one as they were recorded.
        is_row_by_row: whether they must be, since receivers read the table after the write.
    """

    def __init__(
        self,
        session: Session,
        scope: Scope,
        operation: Callable[[], Any],
        *,
        is_plain: bool,
        is_row_by_row: bool = False,
    ) -> None:
        self.session = session
        self.scope = scope
        self._operation = operation
        self._is_plain = is_plain
        self._is_row_by_row = is_row_by_row
        self._retries = Retries(session)
        #: The recorded images of stored rows that differed when they were locked.
        self._differed: list[str] = []
        self._known = KnownRows(session.alias)
        #: Whether the rows of the last execution can be stored one by one.
        self._can_be_stored = False

    def run(self) -> Any:
        for number in range(_ROUNDS + 1):
            recorded = self._record(is_last=number == _ROUNDS)
            if recorded.stands:
                break
            turns = Turns(
                self.session,
                self.scope,
                self._known.add(
                    recorded.found,
                    recorded.new,
                    self.scope.ledger,
                    has_no_cascades=self._can_be_stored,
                ),
                calls(recorded.due),
                can_be_stored=self._can_be_stored,
            )
            turns.run(is_row_by_row=self._is_row_by_row)
            if turns.is_begun:
                log_again(self.session.connection, recorded.logged)
                return recorded.result
        self._finish(recorded.found)
        return recorded.result

    # Executing it.

    def _record(self, *, is_last: bool) -> Recorded:
        """Execute the write, and roll it back if it has changes with receivers before the write."""
        while True:
            with self._retries.of_deadlocks():
                recorded = self._execute(is_last=is_last)
                if recorded.stands or self._lock([one.change for one in recorded.new]):
                    return recorded
            self._retries.count()

    def _execute(self, *, is_last: bool) -> Recorded:
        using = self.session.alias
        mark, logged = log_mark(self.session.connection), []
        with Block(using, may_wait=not self.session.observers):
            result = self._operation()
            changes = self.session.take()
            for change in changes:
                self.scope.prepare(change)
            found = recognizable(changes)
            new = self._known.unknown(found)
            own = [one.change for one in new if not self.scope.is_part(one.change)]
            due = delivering.deliveries(own, self.session.listed, delivering.EARLY)
            self._can_be_stored = self._is_storable(changes)
            stands = is_last or not (due or self._has_turns(changes))
            if not stands:
                transaction.set_rollback(True, using=using)
        if not stands:
            self.session.due.clear()
            logged = forget_logged(self.session.connection, mark)
        return Recorded(result, found, new, due, stands, logged)

    def _has_turns(self, changes: Sequence[InlineChange]) -> bool:
        """Whether to store the rows one by one for the receivers after the write.

        If that is not known yet, the receivers are observed: the write may restart.
        """
        if not self._can_be_stored or self._known:
            return False
        early, late = connected(self.session, changes[0])
        conflicts = conflicts_of(self.session, changes[0], late, early)
        if self._is_row_by_row or is_asked_for(late) or conflicts.is_row_by_row:
            return True
        self.scope.progress = InBulk()
        self.scope.observer = Observer(
            conflicts, self.scope.progress, self.session.connection, is_after=True
        )
        return False

    def _lock(self, changes: Sequence[InlineChange]) -> bool:
        """Lock the stored rows. Returns whether they are as they were recorded."""
        if all(change.created for change in changes):
            return True
        with Block(self.session.alias, may_wait=not self.session.observers):
            if lock(in_order_of_locks(changes), self.session.alias):
                return True
        # If the recording before differed in the same rows, they have not changed: a policy may
        # hide rows from queries that a write reaches.
        before = self._differed
        self._differed = [one.print.old for one in recognizable(changes)]
        return before == self._differed

    def _is_storable(self, changes: Sequence[InlineChange]) -> bool:
        """Whether the rows can be stored one by one, in place of executing the write again."""
        return (
            self._is_plain
            and len(changes) > 1
            and len({change.model for change in changes}) == 1
            # A deletion also triggers the foreign key actions of the database.
            and len({change.deleted for change in changes}) == 1
            and all(change.event.depth == 1 for change in changes)
            and not any(change.created and change.model._meta.parents for change in changes)
        )

    def _carry(self, row: RecordedRow, change: InlineChange) -> None:
        self._known.carry(row, change, has_no_cascades=self._can_be_stored)

    # The end.

    def _finish(self, executed: Sequence[Found]) -> None:
        """Store the receivers' assignments, and the changes that the second execution missed."""
        written: dict[Row, InlineChange] = {}
        kept: dict[Row, tuple[Model, set[str], Any]] = {}
        for found in executed:
            change = found.change
            row = self._known.known(found)
            if row is None:
                continue
            row.inherit()
            assigned = set() if change.deleted else row.assigned() | row.inherited
            self._carry(row, change)
            # The row has inherited the values assigned at its earlier change.
            kept.pop(change.row, None)
            written.pop(change.row, None)
            if assigned:
                kept[change.new_row] = row.instance, assigned, change.key()
                written[change.new_row] = change
        missed = self._known.missed_by(executed)
        changes = [found.change for found in executed]
        changes += self._store_assigned(list(kept.values()), written, missed)
        changes += self._delete_missed([row for row in missed if row.change.deleted])
        self.scope.pending += changes

    def _store_assigned(
        self,
        rows: list[tuple[Model, set[str], Any]],
        written: dict[Row, InlineChange],
        missed: Sequence[RecordedRow],
    ) -> list[InlineChange]:
        for row in missed:
            if row.change.event.operation == UPDATED:
                # It gets the recorded values.
                table, changed = row.change.table, row.change.changed
                names = {one.attname for one in table.fields if one.name in changed}
                rows.append((row.instance, names | row.assigned(), row.change.key(old=True)))
        if not rows:
            return []
        by_row = {row.change.row: row for row in missed}
        rest = store_assigned(self.session, rows, written)
        for change in rest:
            if change.row in by_row:
                self._carry(by_row[change.row], change)
        return rest

    def _delete_missed(self, missed: Sequence[RecordedRow]) -> list[InlineChange]:
        changes = []
        for row in missed:
            delete(row.change, self.session.alias)
            found = self.session.take()
            for change in found:
                if change.row == row.change.row:
                    self._carry(row, change)
            changes += found
        return changes
