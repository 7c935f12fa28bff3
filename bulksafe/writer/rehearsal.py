"""Rehearse, then perform: receivers that run before a write see what it would do.

The write is made in a savepoint, its changes are taken, and the savepoint is rolled back. The
receivers run on the rows as they would be, beside the database as it is. Then the write is made for
good, and what they have assigned is stored. If it does something else than it did before, because
another transaction came in between or a receiver wrote itself, what differs is rehearsed again.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from django.db import OperationalError, transaction
from django.db.models import AutoField, DateField, TimeField
from django.db.models.constants import OnConflict
from django.db.models.signals import m2m_changed

from bulksafe.caching import forever, per_model
from bulksafe.declarations.lineage import lineage
from bulksafe.dispatch.assigning import assign
from bulksafe.dispatch.calls import Call
from bulksafe.dispatch.ordering import calls
from bulksafe.object_state import require_rollback, set_commit_hooks
from bulksafe.outbox.events import UPDATED
from bulksafe.writer import parents, telling, unstored
from bulksafe.writer.changes import key_of_instance, row_of
from bulksafe.writer.conflicts import Conflicts
from bulksafe.writer.early import assigned_since
from bulksafe.writer.guarding import guarding
from bulksafe.writer.instances import as_before_the_insert, copied, has_new_key, is_numbered
from bulksafe.writer.locking import lock
from bulksafe.writer.observing import Observer
from bulksafe.writer.scopes import Scope
from bulksafe.writer.storing import store
from bulksafe.writer.taking import in_order_of_locks

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from django.db.models import Model

    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.images import Image
    from bulksafe.dispatch.ordering import Delivery
    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.session import Session

logger = logging.getLogger("bulksafe")

#: How often a write may do something else than before; after that, receivers run on what is stored.
_ROUNDS = 5

#: How often rows may be changed by others before they are locked.
_RETRIES = 50
#: How often PostgreSQL may resolve a deadlock against a write, and what it calls that.
_MOST_DEADLOCKS, _DEADLOCK = 5, "40P01"

#: How ``atomic()`` comes to its end.
_SAVEPOINTS = re.compile(r"\s*(?:ROLLBACK|RELEASE|SAVEPOINT)\b", re.IGNORECASE)

#: The most frequent classes of values that cannot be changed in place.
_STEADY = frozenset(
    {
        *(int, str, bool, float, bytes, Decimal, UUID, NoneType),
        *(date, datetime, time, timedelta),
    }
)


class Stale(BaseException):
    """Another transaction has changed rows since they were rehearsed: ends a receiver's call.

    It has executed nothing yet, and is called again. No ``except Exception`` of its is to hear.
    """

    def __init__(self, rehearsal: Rehearsal) -> None:
        super().__init__()
        self.rehearsal = rehearsal


@dataclass(eq=False)
class Rehearsed:
    """A row as it was rehearsed, and what receivers made of it."""

    change: InlineChange
    instance: Model
    #: The values that the instance was made with.
    before: dict[str, Any] = field(default_factory=dict)
    ran: set[Receiver] = field(default_factory=set)
    #: What tells whether a later round does the same to it.
    print: Print | None = None
    #: The change before it of the same row, and what receivers of that one have assigned.
    earlier: Rehearsed | None = None
    inherited: set[str] = field(default_factory=set)
    #: Whether it is stored already, and all receivers have been called for it.
    is_stored: bool = False

    def assigned(self) -> set[str]:
        """The attributes that receivers have assigned."""
        return assigned_since(self.instance, self.before)

    def inherit(self) -> None:
        """Go on from what receivers made of the change before it of the same row."""
        earlier, self.earlier = self.earlier, None
        if earlier is None:
            return
        earlier.inherit()
        kept = self.change.table.all_names - self.change.changed
        attnames = {one.attname for one in self.change.table.fields if one.name in kept}
        for name in (earlier.assigned() | earlier.inherited) & attnames:
            value = earlier.instance.__dict__[name]
            assign(self.instance, {name: copied(value)})
            self.before[name] = copied(value)
            self.inherited.add(name)


#: Changes under names that they have whenever the write is made.
_Named: TypeAlias = "list[tuple[Hashable, InlineChange]]"

#: The names of rows that are new, by what the database has made of them in a round.
Fresh: TypeAlias = "dict[tuple[str, Any], Hashable]"


class Rehearsal:
    """One write.

    Args:
        watch: the connection's.
        scope: what is known of the write.
        operation: makes it.
        is_plain: whether it does nothing but change rows of the table that it names, so that these
            can be stored one by one as they were rehearsed.
    """

    def __init__(
        self,
        watch: Session,
        scope: Scope,
        operation: Callable[[], Any],
        *,
        is_plain: bool = True,
    ) -> None:
        self.watch = watch
        self.scope = scope
        self.operation = operation
        self.is_plain = is_plain
        self.known: dict[Hashable, Rehearsed] = {}
        #: Whether rows are stored one by one, since a receiver has looked at them.
        self.is_row_by_row = False
        self._is_storable = False
        #: Where the write can be taken back to, as long as it stands.
        self._savepoint: str | None = None
        #: Whether rows have been changed by others between their rehearsal and their locks.
        self._is_stale = False
        self._deadlocks = 0
        #: What rows have been rehearsed with that were something else when they were locked.
        self._differed: list[str] = []
        #: Of the round in progress: the rows that receivers are called for, how they look, all rows
        #: in their order, those that are deleted, how many are stored, and the row in hand.
        self._rehearsed_rows: Sequence[InlineChange] = ()
        self._prints: dict[int, Print] = {}
        self._order: list[Rehearsed] = []
        self._deleted: dict[tuple[str, Any], Rehearsed] = {}
        self._stored = self._at = 0
        self._observers: dict[type[Model], Observer] = {}
        self._calls_before = 0
        self._end_guard: Callable[[], None] = lambda: None

    def run(self) -> Any:
        for number in range(_ROUNDS + 1):
            result, changes, is_made = self._round(is_last=number == _ROUNDS)
            if self.is_row_by_row:
                return self._finish_row_by_row(result)
            if is_made:
                break
        self._finish(changes)
        return result

    def _round(self, *, is_last: bool) -> tuple[Any, _Named, bool]:
        """Try it out, and once more if another transaction has changed rows in the meantime.

        Then no receiver has asked the database anything yet, so that nothing of them is there.
        """
        connection = self.watch.connection
        known, hooks = dict(self.known), list(connection.run_on_commit)
        for _ in range(_RETRIES):
            self._is_stale = False
            try:
                tried = self._try_out(is_last=is_last)
            except Stale as stale:
                if stale.rehearsal is not self:
                    raise
                self._is_stale = True
            if not self._is_stale:
                return tried
            self.known = dict(known)
            set_commit_hooks(connection, hooks)
        raise OperationalError(
            f"The rows of a write were changed by others {_RETRIES} times while its receivers "
            "were to be called. Try again."
        )

    def _try_out(self, *, is_last: bool) -> tuple[Any, _Named, bool]:
        """Make the write, call the receivers that come before it, and take it back if they look.

        As long as none of them asks the database anything, nobody can tell that the write has been
        made already, and it need not be made again.

        Returns:
            what it returned, its changes, and whether it stands.
        """
        with transaction.atomic(using=self.watch.alias):
            try:
                result = self.operation()
            except OperationalError as error:
                if not self._is_bearable(error):
                    raise
                raise Stale(self) from error
            changes = self._named(self.watch.take())
            different = [(n, c) for n, c in changes if not self._is_known(n, c)]
            different = [(n, c) for n, c in different if not self._is_unsteady(n, c)]
            self._rehearsed_rows = [change for _, change in different]
            due = self._early_deliveries(self._rehearsed_rows)
            if is_last or not due:
                return result, changes, True
            self._savepoint = self.watch.connection.savepoint_ids[-1]
            with guarding(self.watch.connection, self._withdraw) as self._end_guard:
                try:
                    self._receive(changes, {name for name, _ in different}, due)
                except BaseException:
                    # Whatever a receiver has made of it.
                    if not self._is_stale:
                        raise
            is_made = self._savepoint is not None
        return result, changes, is_made

    def _withdraw(self, text: str = "") -> None:
        """Take the write back, before a receiver's first statement; nobody else may come between.

        Not with Django's own means, which forget what receivers left for the commit.
        """
        if self._is_stale and not _SAVEPOINTS.match(text):
            # Somebody has caught it.
            raise Stale(self)
        savepoint, self._savepoint = self._savepoint, None
        if savepoint is None:
            return
        self._end_guard()
        with telling.outside(self._calls_before), self.watch.as_scope(self.scope):
            self.watch.connection._savepoint_rollback(savepoint)
            self.watch.due.clear()
            try:
                self._is_stale = self._are_changed(self._rehearsed_rows)
            except OperationalError as error:
                if not self._is_bearable(error):
                    raise
                self._is_stale = True
                require_rollback(self.watch.connection)
        if self._is_stale:
            raise Stale(self)

    def _are_changed(self, rows: Sequence[InlineChange]) -> bool:
        """Lock rows. Returns whether others have changed them since they were rehearsed."""
        if lock(in_order_of_locks(rows), self.watch.alias):
            return False
        # Locked, they are what they were in the last rehearsal: nobody else has changed them. A
        # policy may hide rows from queries that a write reaches.
        before, self._differed = self._differed, [Print(row, {}).old for row in rows]
        return before != self._differed

    def _is_bearable(self, error: OperationalError) -> bool:
        """Whether it is a deadlock with another write of the same rows, which is over by now.

        Locks that are let go and taken again make one possible where a single statement would not.
        """
        is_deadlock = getattr(error.__cause__, "sqlstate", None) == _DEADLOCK
        self._deadlocks += is_deadlock
        return is_deadlock and self._deadlocks <= _MOST_DEADLOCKS

    # One round.

    def _named(self, changes: Sequence[InlineChange]) -> _Named:
        """The changes under names that they have in every round."""
        numbers: dict[type[Model], int] = {}
        seen: dict[Hashable, int] = {}
        #: Rows that the database numbers, otherwise each time.
        fresh: Fresh = {}
        found: _Named = []
        for change in changes:
            self.scope.prepare(change)
            name: Hashable
            if change.created and has_new_key(change.model):
                numbers[change.model] = numbers.get(change.model, 0) + 1
                name = ("new", change.model, numbers[change.model])
                fresh[change.new_row] = name
            else:
                row = (change.event.operation, fresh.get(change.row, change.row))
                seen[row] = seen.get(row, 0) + 1
                name = (*row, seen[row])
            found.append((name, change))
        self._prints = {id(change): Print(change, fresh) for change in changes}
        return found

    def _is_known(self, name: Hashable, change: InlineChange) -> bool:
        rehearsed = self.known.get(name)
        return rehearsed is not None and rehearsed.print == self._prints[id(change)]

    def _is_unsteady(self, name: Hashable, change: InlineChange) -> bool:
        """Whether the write makes something else of the same row each time, as ``Now()`` does.

        Then the row gets the values that receivers have seen.
        """
        one = self.known.get(name)
        if one is None:
            return False
        assert one.print is not None  # noqa: S101
        if one.print.old != self._prints[id(change)].old:
            return False
        seen, made = one.change.new_image, change.new_image
        assert seen is not None  # noqa: S101
        assert made is not None  # noqa: S101
        pairs = zip(seen.table.attnames, seen.values, made.values, strict=True)
        different = {name for name, value, other in pairs if value != other}
        if change.created:
            # What tells new rows apart from each other is none of that.
            different -= {key.attname for key in change.model._meta.pk_fields if is_numbered(key)}
            if not different <= _made_anew(change.model):
                return False
        one.inherited |= different
        one.print = self._prints[id(change)]
        return True

    def _early_deliveries(self, changes: Sequence[InlineChange]) -> Sequence[Delivery]:
        own = [change for change in changes if not self.scope.is_part(change)]
        return telling.deliveries(own, self.watch.listed, telling.EARLY)

    def _receive(self, changes: _Named, different: set[Hashable], due: Sequence[Delivery]) -> None:
        """Call the receivers that come before the write.

        Args:
            changes: all that it makes.
            different: the names of those that they have not been called for.
            due: what they are to be called for.
        """
        order: list[Rehearsed] = []
        last: dict[tuple[str, Any], Rehearsed] = {}
        for name, change in changes:
            if name in self.known and name not in different:
                rehearsed = self.known[name]
                self._carry(rehearsed, change)
                rehearsed.change = change
            else:
                rehearsed = _rehearsed(change)
                rehearsed.print = self._prints[id(change)]
                rehearsed.earlier = last.get(change.row)
                self.known[name] = rehearsed
            last[change.new_row] = rehearsed
            order.append(rehearsed)
        places = {id(one.change): place for place, one in enumerate(order)}
        self._order, self._stored = order, 0
        self._deleted = {one.change.row: one for one in order if one.change.deleted}
        self._is_storable = len(order) > 1 and self._can_be_stored(order)
        self._observers = {}
        for call in telling.still_connected(calls(due), telling.EARLY):
            self._call(call, places, order)
            if self._is_stale:
                return

    def _call(self, call: Call, places: dict[int, int], order: Sequence[Rehearsed]) -> None:
        listed = [order[places[id(change)]] for change in call.changes]
        if any(one.is_stored for one in listed):
            listed = [one for one in listed if not one.is_stored]
            call = Call(call.receiver, [one.change for one in listed])
        if not listed:
            return
        action = None
        if call.receiver.signal is m2m_changed:
            action = "pre"
        for one in listed:
            one.inherit()
            ran = one.change.announced if action else one.ran
            ran.add(call.receiver)
        self._calls_before = telling.depth()
        # Links of one instance are one call, so they are not stored one by one.
        is_alone = len(listed) == 1 and not action
        self._at = places[id(call.changes[0])] if is_alone else 0
        self.watch.call(call, action, self._observer(listed[0]))

    # What receivers read.

    def _observer(self, one: Rehearsed) -> Observer:
        model = one.change.model
        if model not in self._observers:
            connection = self.watch.connection
            conflicts = Conflicts(connection, model, one.change.event.operation, ())
            self._observers[model] = Observer(conflicts, self, connection, withdraw=self._withdraw)
        observer = self._observers[model]
        observer.instance = one.instance
        return observer

    def flush(self) -> bool:
        """Store the rows before the one whose receivers are running."""
        if not self._is_storable or self._stored >= self._at:
            return False
        self.is_row_by_row = True
        with telling.outside(self._calls_before):
            self._store_up_to(self._order, self._at)
        return True

    @property
    def is_ahead(self) -> bool:
        return False

    def mark(self) -> Any:
        """How many rows were stored in turn, and all that are stored."""
        return self._stored, {id(one) for one in self._order if one.is_stored}

    def return_to(self, mark: Any) -> None:
        self._stored, stored = mark
        for one in self._order:
            if one.is_stored and id(one) not in stored:
                one.is_stored = False
                if one.change.created:
                    as_before_the_insert(one.instance)

    def _can_be_stored(self, order: Sequence[Rehearsed]) -> bool:
        """Whether the rows can be stored one by one, in place of making the write again."""
        models = {one.change.model for one in order}
        return (
            self.is_plain
            and len(models) == 1
            # The actions of foreign keys of the database come along with a deletion.
            and len({one.change.deleted for one in order}) == 1
            and all(one.change.event.depth == 1 for one in order)
            and not any(one.change.created and one.change.model._meta.parents for one in order)
        )

    def _store_up_to(self, order: Sequence[Rehearsed], end: int) -> None:
        while self._stored < end:
            self._stored += 1
            one = order[self._stored - 1]
            if not one.is_stored:
                one.is_stored = True
                self._store_row(one)

    def _store_row(self, one: Rehearsed) -> None:
        change = one.change
        with self.watch.as_scope(self.scope):
            if change.created:
                rehearsed = change.row
                _keep_number(one)
                _insert(one.instance, self.watch.alias, self.scope.on_conflict)
                if one.instance.pk is not None:
                    self.scope.moved[rehearsed] = one.instance.pk
            elif change.deleted:
                _delete(change, self.watch.alias)
            else:
                # An assigned value may be the row's own again, and no longer when its turn comes.
                written = change.changed | (self.scope.given_fields or set())
                changed = {f.attname for f in change.table.fields if f.name in written}
                names = changed | self._stored_of(one, one.assigned())
                if not names:
                    # An update to the values that were there is a change without a statement.
                    self._carry(one, change)
                    self.watch.tell([change])
                    return
                key = self.scope.moved.get(change.row, change.key(old=True))
                store([(one.instance, names, key)], self.watch.alias)
            self._tell_stored(one)

    def _finish_row_by_row(self, result: Any) -> Any:
        """The write is not made again: its rows are stored as they were rehearsed."""
        self._store_up_to(self._order, len(self._order))
        return result

    def _tell_stored(self, one: Rehearsed) -> None:
        row = one.change.row
        if one.change.created:
            row = row_of(one.change.model, key_of_instance(one.instance))
        elif row in self.scope.moved:
            row = row_of(one.change.model, self.scope.moved[row])
        found = self.watch.take()
        for change in found:
            self.scope.prepare(change)
            if change.row == row:
                self._carry(one, change)
            elif change.deleted and change.row in self._deleted:
                # The database has deleted it along with the other.
                other = self._deleted[change.row]
                other.is_stored = True
                self._carry(other, change)
        self.watch.tell(found)

    # The end.

    def _finish(self, changes: Sequence[tuple[Hashable, InlineChange]]) -> None:
        names = {name for name, _ in changes}
        final: dict[tuple[str, Any], InlineChange] = {}
        rest: list[InlineChange] = []
        kept: dict[tuple[str, Any], tuple[Model, set[str], Any]] = {}
        for name, change in changes:
            one = self.known.get(name)
            if one is not None and self._is_known(name, change):
                one.inherit()
                assigned = set() if change.deleted else one.assigned() | one.inherited
                assigned = self._stored_of(one, assigned)
                self._carry(one, change)
                # What was assigned at an earlier change of the row has gone on from there.
                kept.pop(change.row, None)
                final.pop(change.row, None)
                if assigned:
                    kept[change.new_row] = one.instance, assigned, change.key()
                    final[change.new_row] = change
            rest.append(change)
        to_store = list(kept.values())
        drifted = [one for name, one in self.known.items() if name not in names]
        to_store += [self._drifted(one) for one in drifted if is_update(one.change)]
        if to_store:
            store(to_store, self.watch.alias)
            rest += self._merge(final, drifted)
        self._delete_drifted([one for one in drifted if one.change.deleted])
        self.scope.pending += rest

    def _carry(self, one: Rehearsed, change: InlineChange) -> None:
        """What the receivers left on the rehearsed instance, later ones find there."""
        change.take_in_hand(one.instance)
        change.done |= one.ran
        change.announced |= one.change.announced
        change.given_fields = one.change.given_fields
        table = change.table
        if change.deleted or change.new_image is None:
            if self._is_storable:
                # No row of other models is deleted along with it.
                parents.forget([one.instance], {}, gone=lineage(change.model))
            return
        assigned = one.assigned() | one.inherited
        if change.created or change is not one.change:
            # A new row had no key before, which the database has given it since.
            values = table.converted(change.new_image.values)
            pairs = zip(table.attnames, values, strict=True)
            different = {n: value for n, value in pairs if one.before.get(n, value) != value}
            assign(one.instance, {n: value for n, value in different.items() if n not in assigned})
        if change.created:
            one.instance._state.adding = False
            one.instance._state.db = self.watch.alias
        parents.forget([one.instance], {})

    def _stored_of(self, one: Rehearsed, assigned: set[str]) -> set[str]:
        """What is stored of what receivers have assigned: an upsert names the fields."""
        is_upsert = self.scope.on_conflict.get("on_conflict") is OnConflict.UPDATE
        if not is_upsert or not is_update(one.change):
            return assigned
        given = {field.attname for field in self.scope.on_conflict["update_fields"]}
        if left_out := assigned - given:
            unstored.warn(one.change.model, one.ran, left_out)
        return assigned & given

    def _drifted(self, one: Rehearsed) -> tuple[Model, set[str], Any]:
        """A row that the write has missed since receivers ran: it gets what was rehearsed."""
        changed = {f.attname for f in one.change.table.fields if f.name in one.change.changed}
        return one.instance, changed | one.assigned(), one.change.key(old=True)

    def _delete_drifted(self, drifted: Sequence[Rehearsed]) -> None:
        for one in drifted:
            _delete(one.change, self.watch.alias)
            found = self.watch.take()
            for change in found:
                if change.row == one.change.row:
                    self._carry(one, change)
            self.scope.pending += found

    def _merge(
        self, final: dict[tuple[str, Any], InlineChange], drifted: Sequence[Rehearsed]
    ) -> list[InlineChange]:
        """What was stored afterwards belongs to the change that it was stored for."""
        by_row = {one.change.row: one for one in drifted}
        rest = []
        for change in self.watch.take():
            first = final.get(change.row)
            one = by_row.get(change.row)
            if first is not None:
                first.end_with(change)
                self._refresh(first)
            else:
                if one is not None:
                    self._carry(one, change)
                rest.append(change)
        return rest

    def _refresh(self, change: InlineChange) -> None:
        """Let the instance have what the database made of the values, as a new query would."""
        if change.new_image is None:
            return
        table, instance = change.table, change.instance
        values = table.converted(change.new_image.values)
        pairs = zip(table.attnames, values, strict=True)
        assign(instance, {n: value for n, value in pairs if instance.__dict__.get(n) != value})


def receive_late(watch: Session, changes: Sequence[InlineChange]) -> None:
    """Call receivers that were to come before the write for rows that are stored already.

    Nobody knew of the write before. What they assign is stored all the same.
    """
    late = Rehearsal(watch, Scope(), lambda: None)
    found = telling.deliveries(changes, watch.listed, telling.BEFORE)
    if not found:
        return
    wanted = {id(delivery.change) for delivery in found}
    by_change = {id(c): _rehearsed(c, is_stored=True) for c in changes if id(c) in wanted}
    for call in telling.still_connected(calls(found), telling.BEFORE):
        for change in call.changes:
            by_change[id(change)].ran.add(call.receiver)
        watch.call(call)
    to_store = []
    final = {}
    for one in by_change.values():
        one.change.done |= one.ran
        assigned = set() if one.change.deleted else one.assigned()
        if assigned:
            to_store.append((one.instance, assigned, one.change.key()))
            final[one.change.new_row] = one.change
    if to_store:
        # Part of the write that is told, whatever scope that is in.
        with watch.as_scope(late.scope):
            store(to_store, watch.alias)
            rest = late._merge(final, [])
        if rest:
            watch.tell(rest)


def _keep_number(one: Rehearsed) -> None:
    """Let a new row have the number that the write has returned: nobody else will get it."""
    image = one.change.new_image
    assert image is not None  # noqa: S101
    values = dict(zip(image.table.attnames, image.table.converted(image.values), strict=True))
    for key in one.change.model._meta.pk_fields:
        if getattr(one.instance, key.attname) is None:
            setattr(one.instance, key.attname, values[key.attname])


def _insert(instance: Model, using: str, on_conflict: dict[str, Any]) -> None:
    """Store a new row as it was rehearsed: without what fields do before a save.

    Another transaction may have stored one like it since.
    """
    meta = type(instance)._meta
    has_key = None not in [getattr(instance, key.attname) for key in meta.pk_fields]
    fields = [
        one
        for one in meta.local_concrete_fields
        if not one.generated and (has_key or not isinstance(one, AutoField))
    ]
    # What is ignored returns nothing, which Django does not expect.
    is_ignored = on_conflict.get("on_conflict") == OnConflict.IGNORE
    returning = [] if is_ignored else meta.db_returning_fields
    manager: Any = type(instance)._base_manager
    rows = manager._insert(
        [instance], fields=fields, returning_fields=returning, using=using, raw=True, **on_conflict
    )
    for one, value in zip(returning, rows[0] if rows else (), strict=False):
        setattr(instance, one.attname, value)


def _delete(change: InlineChange, using: str) -> None:
    rows: Any = change.model._base_manager.using(using).filter(pk=change.key(old=True))
    rows._raw_delete(using)


def is_update(change: InlineChange) -> bool:
    return change.event.operation == UPDATED


def _rehearsed(change: InlineChange, *, is_stored: bool = False) -> Rehearsed:
    instance = change.instance
    if change.created and not is_stored:
        as_before_the_insert(instance)
    values = instance.__dict__
    before = {
        name: value if type(value := values[name]) in _STEADY else copied(value)
        for name in change.table.attnames
        if name in values
    }
    return Rehearsed(change, instance, before)


@per_model(forever)
def _made_anew(model: type[Model]) -> frozenset[str]:
    """The attributes of a new row that may be others whenever it is made: times, and defaults."""
    return frozenset(
        one.attname
        for one in model._meta.concrete_fields
        if isinstance(one, DateField | TimeField) or one.has_db_default() or one.generated
    )


@per_model(forever)
def _references(model: type[Model]) -> list[tuple[str, str]]:
    """The fields that hold numbers of rows, with the label of the rows' model."""
    found = []
    one: Any
    for one in model._meta.concrete_fields:
        if one.primary_key or (one.is_relation and one.target_field.primary_key):
            known = one.related_model if one.is_relation else one.model
            found.append((one.attname, known._meta.concrete_model._meta.label_lower))
    return found


class Print:
    """Both images of a change as text, with names in the place of the numbers of new rows.

    As text: a NaN equals no other. It is made when it is asked for, which mostly it is not.
    """

    def __init__(self, change: InlineChange, fresh: Fresh) -> None:
        self._change = change
        self._images = change.old_image, change.new_image
        self._fresh = fresh
        if not all(
            image is None or _STEADY.issuperset(map(type, image.values)) for image in self._images
        ):
            # A receiver may change in place what it finds.
            self._texts  # noqa: B018

    @cached_property
    def _texts(self) -> tuple[str, str]:
        old, new = (_print_of(image, self._change, self._fresh) for image in self._images)
        return old, new

    @property
    def old(self) -> str:
        return self._texts[0]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Print):
            return NotImplemented
        return self is other or self._texts == other._texts

    __hash__ = None  # type: ignore[assignment]


def _print_of(image: Image | None, change: InlineChange, fresh: Fresh) -> str:
    if image is None or not fresh:
        return repr(image and image.values)
    values = dict(zip(image.table.attnames, image.values, strict=True))
    for name, label in _references(change.model):
        values[name] = fresh.get((label, values[name]), values[name])
    if change.created and change.model._meta.pk_fields[1:]:
        for key in change.model._meta.pk_fields:
            values[key.attname] = None if is_numbered(key) else values[key.attname]
    return repr(values)
