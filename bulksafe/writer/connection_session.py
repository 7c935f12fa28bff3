"""The session of one connection: writes in progress, waiting changes and receiver calls."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from django.db.models.signals import m2m_changed

from bulksafe import call_stack
from bulksafe.contexts import being_called, correct, current
from bulksafe.dispatch import arguments, calling
from bulksafe.dispatch.calls import Call
from bulksafe.dispatch.ordering import calls
from bulksafe.writer import chunked_delivery, delivering, lean_delivery, unbuffered
from bulksafe.writer.buffer import Buffer
from bulksafe.writer.collecting import forget
from bulksafe.writer.late import receive_late
from bulksafe.writer.observing import Observer, Restart
from bulksafe.writer.open_write import OpenWrite
from bulksafe.writer.scopes import Scope
from bulksafe.writer.transactions import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import QuerySet
    from psycopg import Cursor

    from bulksafe.call_stack import Row
    from bulksafe.declarations import Receiver
    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.taking import Source
    from bulksafe.writer.waiting import Key, Waiting


#: The ways to deliver without a change object for each row, if a write allows it.
_WAYS = unbuffered, chunked_delivery, lean_delivery


class ConnectionSession:
    """Implements :class:`.session.Session`, which documents what is public here.

    Args:
        connection: Django's.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self.alias = connection.alias
        self.transaction = Transaction(connection)
        self.buffer = Buffer(connection)
        self.due: dict[Key, Waiting] = self.buffer.due
        self.scopes: list[Scope] = []
        self.observers: tuple[Observer, ...] = ()
        self.is_migrating = False
        self.is_answered = False
        self._place: tuple[object, ...] = ()

    def begin(self) -> None:
        """Track a new driver connection, perhaps to a different database."""
        settings = self.connection.settings_dict
        place = tuple(settings.get(key) for key in ("HOST", "PORT", "NAME"))
        is_elsewhere = place != self._place
        self.buffer.begin(is_elsewhere=is_elsewhere)
        if is_elsewhere:
            self._place = place
            forget(self.alias)

    # Writes.

    def expect(self, queryset: QuerySet[Any]) -> None:
        """Notify observers that rows are about to be updated or deleted."""
        for observer in self.observers:
            observer.expect(queryset)

    def within(self, scope: Scope) -> AbstractContextManager[Scope]:
        return OpenWrite(self, scope)

    @contextmanager
    def as_scope(self, scope: Scope) -> Iterator[None]:
        before = self.scopes, self.observers
        self.scopes, self.observers = [scope], scope.observers
        try:
            yield
        finally:
            self.scopes, self.observers = before

    # Waiting changes.

    @property
    def is_in_pipeline(self) -> bool:
        return self.buffer.is_in_pipeline

    def sync(self) -> None:
        self.buffer.sync()

    def asking(self) -> AbstractContextManager[Cursor[Any]]:
        return self.buffer.asking()

    def source(self, oid: int) -> Source | None:
        return self.buffer.source(oid)

    def take(self) -> list[InlineChange]:
        if self.is_migrating:
            self.buffer.sync()
            self._discard()
        return self.buffer.take()

    def gather(self, scope: Scope) -> None:
        if not self.due and not self.is_in_pipeline:
            return
        for change in self.take():
            owner = next((one for one in reversed(self.scopes) if one.holds(change)), scope)
            owner.prepare(change)
            owner.add(change)

    def _discard(self) -> None:
        """In a migration, tables and models differ, and Django sends no signals."""
        if self.transaction.is_begun:
            self.buffer.discard()
        self.buffer.due.clear()

    # Delivery.

    def settle(self, scope: Scope) -> None:
        if self.is_migrating:
            self._discard()
        elif not any(way.settle(self, scope) for way in _WAYS):
            self.gather(scope)
            self.deliver_pending(scope)

    def deliver_pending(self, scope: Scope) -> None:
        pending, scope.pending = scope.pending, []
        self.deliver(scope.left_over(pending), scope.observer)

    def deliver(self, changes: Sequence[InlineChange], observer: Observer | None = None) -> None:
        if not changes:
            return
        if any(r.signal_name in delivering.BEFORE for r in self._receivers_of(changes)):
            receive_late(self, changes)
        listed = delivering.deliveries(changes, self.listed, delivering.LATE)
        for call in delivering.still_connected(calls(listed), delivering.LATE):
            if call.receiver.signal is m2m_changed:
                self._announce(call)
            is_own = observer is not None and observer.conflicts.model is call.changes[-1].model
            self.call(call, observer=observer if is_own else None)

    def _receivers_of(self, changes: Sequence[InlineChange]) -> set[Receiver]:
        kinds = {(change.event.source, change.event.operation) for change in changes}
        return {
            receiver
            for oid, operation in kinds
            if (source := self.buffer.source(oid)) is not None
            for receiver in source.receivers(operation)
        }

    def _announce(self, call: Call) -> None:
        """Make the first of the two calls of an ``m2m_changed`` receiver, unless it was made."""
        changes: Sequence[Any] = call.changes
        unannounced = [one for one in changes if call.receiver not in one.announced]
        if unannounced:
            self.call(Call(call.receiver, unannounced), "pre")

    def listed(self, change: InlineChange) -> list[Receiver]:
        source = self.buffer.source(change.event.source)
        if source is None:
            return []
        found = source.receivers(change.event.operation)
        if any(scope.sends_links(change) for scope in self.scopes):
            return [receiver for receiver in found if receiver.signal is not m2m_changed]
        return found

    # Calls.

    def call(self, call: Call, action: str | None = None, observer: Observer | None = None) -> None:
        last: Any = call.changes[-1]
        named = arguments.of_changes(call.receiver, call.changes, is_before=action == "pre")
        given = frozenset(named.get("pk_set", ()))
        self.call_with(call.receiver, named, last.row, last.context, observer)
        if action == "pre" and given != named["pk_set"]:
            raise ValueError(delivering.edited_links(call, named))

    def call_with(
        self,
        receiver: Receiver,
        named: dict[str, Any],
        row: Row,
        context: Mapping[str, Any] | None = None,
        observer: Observer | None = None,
    ) -> None:
        before = self.scopes, self.observers
        self.scopes = []
        if observer is not None:
            observer.begin(receiver, named.get("instance"))
            self.observers = (*self.observers, observer)
        try:
            inside = call_stack.calls().plus(receiver.name, row)
            with being_called(inside, current() if context is None else context):
                is_open, status = self.transaction.is_open, self.transaction.status
                calling.call(receiver.function, named)
                if not self.transaction.is_as_before(status):
                    self.transaction.check_call(receiver.name, was_open=is_open, status=status)
                if self.due:
                    # Changes of driver cursors.
                    self.settle(Scope())
        finally:
            self.scopes, self.observers = before
        if observer is not None and observer.must_restart:
            # The receiver caught the exception that restarts the write.
            raise Restart(observer.progress)
        if not self.scopes:
            # The signal was sent by hand: the next statement is the caller's.
            correct()
