"""Writes that are executed twice: first to learn what they do, then with what receivers decide.

Several statements in one text, ``WITH``, functions, rules and multi-table inheritance write more
than bulksafe could write in their place. Such a write is executed in a savepoint, its changes are
taken, and the savepoint is rolled back. The stored rows among them are locked again and compared.
Then the receivers run beside the database as it is, and the write is executed for good. What it
changes otherwise than before, because receivers have written too, goes through once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import transaction

from bulksafe.dispatch.ordering import calls
from bulksafe.outbox.events import UPDATED
from bulksafe.writer import delivering
from bulksafe.writer.conflicts import is_asked_for
from bulksafe.writer.fingerprints import Found, differing, may_differ, recognizable
from bulksafe.writer.locking import lock
from bulksafe.writer.observing import Observer
from bulksafe.writer.retrying import Retries
from bulksafe.writer.row_queue import InBulk
from bulksafe.writer.second_update import store_assigned
from bulksafe.writer.single_rows import delete
from bulksafe.writer.taking import in_order_of_locks
from bulksafe.writer.through_rows import RecordedRow, recorded_row
from bulksafe.writer.through_turns import Turns, conflicts_of, connected

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from django.db.models import Model

    from bulksafe.dispatch.ordering import Delivery
    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.scopes import Scope
    from bulksafe.writer.session import Session

#: How often a write may do something else than before; after that, receivers run late.
_ROUNDS = 5


@dataclass(frozen=True, eq=False)
class Recorded:
    """One execution of a write.

    Attributes:
        result: what it has returned.
        found: all of its changes.
        new: those that no receiver has been called for.
        due: what is to be delivered before the write.
        stands: whether it was not rolled back.
    """

    result: Any
    found: Sequence[Found]
    new: Sequence[Found]
    due: Sequence[Delivery]
    stands: bool


class Through:
    """One write.

    Args:
        watch: the connection's.
        scope: what is known of the write.
        operation: executes it.
        is_plain: whether it does nothing but change rows of the tables that it names, so that these
            can be stored one by one as they were recorded.
        is_row_by_row: whether they have to be, as receivers look at the table after the write.
    """

    def __init__(
        self,
        watch: Session,
        scope: Scope,
        operation: Callable[[], Any],
        *,
        is_plain: bool,
        is_row_by_row: bool = False,
    ) -> None:
        self.watch = watch
        self.scope = scope
        self._operation = operation
        self._is_plain = is_plain
        self._is_row_by_row = is_row_by_row
        self._retries = Retries(watch)
        #: How stored rows were recorded that were something else when they were locked.
        self._differed: list[str] = []
        self._known: dict[Hashable, RecordedRow] = {}
        #: Of the last execution: whether it has changed the same rows as the one before, and
        #: whether these can be stored one by one.
        self._is_aligned = self._can_be_stored = False

    def run(self) -> Any:
        for number in range(_ROUNDS + 1):
            recorded = self._record(is_last=number == _ROUNDS)
            if recorded.stands:
                break
            turns = Turns(
                self.watch,
                self.scope,
                self._rows(recorded),
                calls(recorded.due),
                can_be_stored=self._can_be_stored,
            )
            turns.run(is_row_by_row=self._is_row_by_row)
            if turns.is_begun:
                return recorded.result
        self._finish(recorded.found)
        return recorded.result

    # Executing it.

    def _record(self, *, is_last: bool) -> Recorded:
        """Execute the write. It is rolled back if it makes changes that receivers come before."""
        while True:
            with self._retries.of_deadlocks():
                recorded = self._execute(is_last=is_last)
                if recorded.stands or self._lock([one.change for one in recorded.new]):
                    return recorded
            self._retries.count()

    def _execute(self, *, is_last: bool) -> Recorded:
        using = self.watch.alias
        with transaction.atomic(using=using):
            result = self._operation()
            changes = self.watch.take()
            for change in changes:
                self.scope.prepare(change)
            found = recognizable(changes)
            self._is_aligned = {one.name for one in found} == self._known.keys()
            new = [one for one in found if not self._is_known(one)]
            own = [one.change for one in new if not self.scope.is_part(one.change)]
            due = delivering.deliveries(own, self.watch.listed, delivering.EARLY)
            self._can_be_stored = self._is_storable(changes)
            stands = is_last or not (due or self._has_turns(changes))
            if not stands:
                transaction.set_rollback(True, using=using)
        if not stands:
            self.watch.due.clear()
        return Recorded(result, found, new, due, stands)

    def _has_turns(self, changes: Sequence[InlineChange]) -> bool:
        """Whether the rows are to be stored one by one for the receivers after the write.

        Where that is not known yet, the receivers are observed: the write may begin again.
        """
        if not self._can_be_stored or self._known:
            return False
        early, late = connected(self.watch, changes[0])
        conflicts = conflicts_of(self.watch, changes[0], late, early)
        if self._is_row_by_row or is_asked_for(late) or conflicts.is_row_by_row:
            return True
        self.scope.progress = InBulk()
        self.scope.observer = Observer(
            conflicts, self.scope.progress, self.watch.connection, is_after=True
        )
        return False

    def _lock(self, changes: Sequence[InlineChange]) -> bool:
        """Lock the stored rows. Returns whether they are as they were recorded."""
        with transaction.atomic(using=self.watch.alias):
            if lock(in_order_of_locks(changes), self.watch.alias):
                return True
        # Locked, they are what they were at the recording before: they have not changed. A policy
        # may hide rows from queries that a write reaches.
        before = self._differed
        self._differed = [one.print.old for one in recognizable(changes)]
        return before == self._differed

    def _is_known(self, found: Found) -> bool:
        """Whether receivers have been called for a change.

        If the statement gives the row other values each time, it gets those that they have seen.
        """
        row = self._known.get(found.name)
        if row is None:
            return False
        if row.found.print == found.print:
            return True
        different = differing(row.found, found)
        if different is None or not (self._is_aligned or may_differ(found.change, different)):
            return False
        row.inherited |= different
        row.found = Found(row.found.name, row.found.change, found.print)
        return True

    def _rows(self, recorded: Recorded) -> list[RecordedRow]:
        order: list[RecordedRow] = []
        last: dict[tuple[str, Any], RecordedRow] = {}
        new = {id(one) for one in recorded.new}
        for found in recorded.found:
            change = found.change
            if id(found) in new:
                row = self._known[found.name] = recorded_row(found, self.scope.ledger)
                row.earlier = last.get(change.row)
            else:
                row = self._known[found.name]
                self._carry(row, change)
                row.found = found
            last[change.new_row] = row
            order.append(row)
        return order

    def _is_storable(self, changes: Sequence[InlineChange]) -> bool:
        """Whether the rows can be stored one by one, in place of executing the write again."""
        return (
            self._is_plain
            and len(changes) > 1
            and len({change.model for change in changes}) == 1
            # The actions of foreign keys of the database come along with a deletion.
            and len({change.deleted for change in changes}) == 1
            and all(change.event.depth == 1 for change in changes)
            and not any(change.created and change.model._meta.parents for change in changes)
        )

    def _carry(self, row: RecordedRow, change: InlineChange) -> None:
        row.carry_to(change, self.watch.alias, has_no_cascades=self._can_be_stored)

    # The end.

    def _finish(self, executed: Sequence[Found]) -> None:
        """Store what receivers have assigned, and what the write has missed since they ran."""
        written: dict[tuple[str, Any], InlineChange] = {}
        kept: dict[tuple[str, Any], tuple[Model, set[str], Any]] = {}
        for found in executed:
            change = found.change
            row = self._known.get(found.name)
            if row is None or not self._is_known(found):
                continue
            row.inherit()
            assigned = set() if change.deleted else row.assigned() | row.inherited
            self._carry(row, change)
            # What was assigned at an earlier change of the row has gone on from there.
            kept.pop(change.row, None)
            written.pop(change.row, None)
            if assigned:
                kept[change.new_row] = row.instance, assigned, change.key()
                written[change.new_row] = change
        names = {found.name for found in executed}
        missed = [row for name, row in self._known.items() if name not in names]
        changes = [found.change for found in executed]
        changes += self._store_assigned(list(kept.values()), written, missed)
        changes += self._delete_missed([row for row in missed if row.change.deleted])
        self.scope.pending += changes

    def _store_assigned(
        self,
        rows: list[tuple[Model, set[str], Any]],
        written: dict[tuple[str, Any], InlineChange],
        missed: Sequence[RecordedRow],
    ) -> list[InlineChange]:
        for row in missed:
            if row.change.event.operation == UPDATED:
                # It gets what was recorded.
                table, changed = row.change.table, row.change.changed
                names = {one.attname for one in table.fields if one.name in changed}
                rows.append((row.instance, names | row.assigned(), row.change.key(old=True)))
        if not rows:
            return []
        by_row = {row.change.row: row for row in missed}
        rest = store_assigned(self.watch, rows, written)
        for change in rest:
            if change.row in by_row:
                self._carry(by_row[change.row], change)
        return rest

    def _delete_missed(self, missed: Sequence[RecordedRow]) -> list[InlineChange]:
        changes = []
        for row in missed:
            delete(row.change, self.watch.alias)
            found = self.watch.take()
            for change in found:
                if change.row == row.change.row:
                    self._carry(row, change)
            changes += found
        return changes
