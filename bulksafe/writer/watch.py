"""What happens on one connection: statements, what the database says of them, and calls."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, connections
from django.db.models.signals import m2m_changed, post_init
from psycopg.pq import TransactionStatus

from bulksafe import call_stack
from bulksafe.contexts import being_called, correct, current, leaving, past_django
from bulksafe.dispatch import arguments, calling, muting
from bulksafe.dispatch.calls import Call
from bulksafe.dispatch.ordering import calls
from bulksafe.exceptions import ReceiversNotRun
from bulksafe.object_state import attributes, in_atomic_block
from bulksafe.outbox.events import INSERTED, UPDATED
from bulksafe.statements import text_of
from bulksafe.writer import connecting, delivering
from bulksafe.writer.buffer import Buffer
from bulksafe.writer.changes import row_of
from bulksafe.writer.collecting import forget
from bulksafe.writer.django_signals import sent
from bulksafe.writer.late import receive_late
from bulksafe.writer.notices import listen
from bulksafe.writer.observing import Observer, Restart
from bulksafe.writer.performing import perform, write
from bulksafe.writer.scopes import Again, Deleting, InHand, Linking, Returned, Saving, Scope
from bulksafe.writer.session import Execution
from bulksafe.writer.taking import (
    Kind,
    Source,
    is_any_shared,
    sorted_by_key,
)
from bulksafe.writer.transactions import Transaction
from bulksafe.writer.vocabulary import (
    ENDS_PART,
    commits,
    is_write,
    vocabulary,
    vocabulary_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from django.db.models import Model, QuerySet

    from bulksafe.declarations import Receiver
    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.connecting import Connected

#: Behind a statement whose changes need not be buffered; ``capture_with_buffer.sql`` looks for it.
#: With the session and the table: a copy of a logged statement is refused.
_IN_HAND = "/* bulksafe: in hand {} {} */"
#: The same, if the database says that it has left them out.
_TO_ANSWER = "/* bulksafe: answer to {} {} */"

#: The SQLSTATEs of a statement that may change rows and not return them: the role, or a policy of
#: the table, does not let it, or a rule does something else instead.
_RETURNS_NOTHING = frozenset({"42501", "0A000"})

#: The SQLSTATEs of what cannot be made once more in a transaction: a procedure that commits by
#: itself, and a held cursor, whose query runs at the commit.
_ONCE = frozenset({"2D000", "42P03"})


class Watch:
    """An execute wrapper: sees that no change passes the receivers by.

    Attributes:
        connection: Django's.
        alias: its name.
        due: the tables and operations of which the database has said that changes wait, and the
            schema of the buffer that they wait in.
        scopes: the writes in progress, the innermost last; those that a running receiver makes are
            on a list of their own.
        is_answered: whether the database has said of the last marked statement that it has left its
            changes to the writer.
        observers: look at the statements of the receivers that run just now.
        is_migrating: whether a migration is being applied.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.alias: str = connection.alias
        self.transaction = Transaction(connection)
        self.buffer = Buffer(connection)
        self.scopes: list[Scope] = []
        self.observers: tuple[Observer, ...] = ()
        self.is_migrating = False
        self.is_answered = False
        self._place: tuple[Any, ...] = ()

    def begin(self) -> None:
        """The connection is a new one, perhaps to another database."""
        settings = self.connection.settings_dict
        place = tuple(settings.get(key) for key in ("HOST", "PORT", "NAME"))
        is_elsewhere = place != self._place
        self.buffer.begin(is_elsewhere=is_elsewhere)
        if is_elsewhere:
            self._place = place
            forget(self.alias)

    # Statements.

    def __call__(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        text = sql if type(sql) is str else text_of(sql, self.connection)
        for observer in self.observers:
            observer.look(text, params)
        if not vocabulary().models:
            return execute(sql, params, many, context)
        execution = Execution(execute, sql, params, many, context, text)
        named = self._named(text)
        if named:
            return write(self, execution, named)
        if self.transaction.is_open:
            return self._run_in_transaction(execution, text)
        return self._run_alone(execution, text, many=many)

    def run(self, run: Callable[[], Any]) -> Any:
        """What Django does not show to wrappers, as ``callproc()``."""
        for observer in self.observers:
            observer.look_at_unknown()
        if not vocabulary().models:
            return run()
        if self.transaction.is_open:
            return self._run_in_transaction(run, "")
        return self._run_alone(run, "", many=False)

    def look_past_django(self, statement: Any) -> None:
        """A receiver executes a statement with a cursor of the driver's."""
        if self.observers:
            text = text_of(statement, self.connection)
            for observer in self.observers:
                observer.look(text, None)

    def _named(self, text: str) -> Sequence[type[Model]]:
        """The models to whose tables a statement writes, as far as its text says."""
        if not is_write(text) or self.transaction.is_broken:
            return ()
        return vocabulary_of(self.connection).named(text)

    def _run_alone(self, run: Callable[[], Any], text: str, *, many: bool) -> Any:
        """A statement of no concern in autocommit."""
        if many:
            # psycopg loses count where the end of a pipeline fails, so that no refusal comes out.
            return perform(self, run, Scope(), vocabulary().models, is_plain=False)
        try:
            return run()
        except ReceiversNotRun as refusal:
            # A function or a trigger has written where the statement names no such table. In
            # autocommit it has left nothing behind: once more, with the receivers.
            self.due.clear()
            forget(self.alias)
            if commits(text):
                raise
            return self._repeat(run, refusal)

    def _run_in_transaction(self, run: Callable[[], Any], text: str) -> Any:
        if self.due and ENDS_PART.match(text):
            # What was written before a savepoint is not delivered inside it: the receivers' writes
            # would be taken back with it. And after a commit it is too late.
            self._deliver_late()
        result = run()
        self.settle_due()
        return result

    def settle_due(self) -> None:
        """Run the receivers of unexpected changes, if their transaction is open."""
        if self.due and self.transaction.status != TransactionStatus.IDLE:
            self._deliver_late()

    def _repeat(self, run: Callable[[], Any], refusal: ReceiversNotRun) -> Any:
        try:
            return perform(self, run, Scope(), vocabulary().models)
        except DatabaseError as error:
            if getattr(error.__cause__, "sqlstate", None) in _ONCE:
                self.due.clear()
                raise refusal from error
            raise

    def _marked(self, sql: str, params: Any) -> str:
        """The statement, for the database not to buffer what it changes; empty if it has to."""
        scope = self.scopes[-1] if self.scopes else None
        if not isinstance(scope, InHand) or not (scope.is_spared and scope.is_storing):
            return ""
        if scope.model is None or not scope.is_own(sql, params):
            return ""
        # Django sends the signals of what it saves, whatever the database says.
        mark = _IN_HAND if isinstance(scope, Saving) else _TO_ANSWER
        return f"{sql} {self._mark(mark, scope.model)}"

    def _mark(self, mark: str, model: type[Model]) -> str:
        return mark.format(self.connection.connection.info.backend_pid, model._meta.db_table)

    def _run_returning(self, returned: Returned, execution: Execution) -> Any:
        """Execute a statement for its rows.

        Raises:
            Again: it may be executed, but not with them.
        """
        kind = returned.kind
        own = f"{execution.sql} {kind.returning} {self._mark(_TO_ANSWER, kind.source.model)}"
        self.is_answered = False
        try:
            result = execution.of(own, execution.params)
        except DatabaseError as error:
            if getattr(error.__cause__, "sqlstate", None) in _RETURNS_NOTHING:
                kind.may_return = False
                raise Again from error
            raise
        returned.rows = execution.context["cursor"].fetchall()
        return result

    def execute_in_bulk(self, execution: Execution) -> Any:
        """Execute a statement, for its rows if no receiver needs more of them."""
        returned = self.scopes[-1].returned if self.scopes else None
        sql, params, text = execution.sql, execution.params, execution.text
        if not execution.many and isinstance(sql, str):
            if returned is not None and params is not None and returned.is_of(text):
                return self._run_returning(returned, execution)
            if own := self._marked(sql, params):
                return execution.of(own, params)
        return execution()

    def _deliver_late(self) -> None:
        """Deliver the changes of a statement that was not expected to make any.

        The statement cannot be taken back alone. If a receiver raises, the changes wait in the
        buffer again: code that catches the error cannot commit them.
        """
        if self.scopes:
            return
        forget(self.alias)
        with self.within(Scope()):
            """All that there is to do comes at its end."""

    # Writes.

    def expect(self, queryset: QuerySet[Any]) -> None:
        """Say that rows are about to be updated or deleted, perhaps by a receiver."""
        for observer in self.observers:
            observer.expect(queryset)

    def returned(self, model: type[Model], operation: str) -> Returned | None:
        """Where the rows of a statement go, if it may return them and no receiver needs more."""
        if self.due or not self._may_deliver_leanly(self.scopes[-1]) or self.is_in_pipeline:
            return None
        source = self.buffer.source_of(model)
        kind = None if source is None else source.kind(operation)
        if kind is None or not kind.may_return or post_init.has_listeners(model):
            return None
        return Returned(kind)

    def within(self, scope: Scope) -> AbstractContextManager[Scope]:
        """A write in progress. All of it, and what receivers do, takes place or none.

        Raises:
            BrokenTransaction: it has not taken place, and a receiver has hidden that.
        """
        return _Within(self, scope)

    def settle(self, scope: Scope) -> None:
        """Deliver what is waiting. What receivers write in turn settles inside their calls."""
        if self.is_migrating:
            self._forget_what_waits()
            return
        if scope.returned is not None and self._settle_returned(scope):
            return
        kind = self._lean_kind(scope)
        if kind is not None and self._settle_leanly(kind, scope):
            return
        self.gather(scope)
        self._deliver_pending(scope)

    def _deliver_pending(self, scope: Scope) -> None:
        pending, scope.pending = scope.pending, []
        self.deliver(scope.left_over(pending), scope.observer)

    def _settle_returned(self, scope: Scope) -> bool:
        """Deliver what a statement has returned. Returns whether that is all that there is.

        Raises:
            Again: more has been changed along with it, perhaps of the same rows.
        """
        returned, scope.returned = scope.returned, None
        if returned is None or returned.rows is None:
            return False
        if not self.is_answered:
            # Muted, or buffered all the same: the rows of partitions are, and all behind PgBouncer.
            returned.kind.may_return = not self.due
            return False
        if self.due:
            returned.kind.may_return = False
            raise Again
        self._call_for(returned.kind, returned.rows, scope)
        return True

    def _may_deliver_leanly(self, scope: Scope) -> bool:
        """Whether the rows of a write say all that decides who is called, and with what."""
        is_known = scope.pending or any(one.knows_rows for one in self.scopes)
        return not is_known and not call_stack.depth()

    def _lean_kind(self, scope: Scope) -> Kind | None:
        """What is due, if it is many rows of one kind whose receivers need nothing but the rows."""
        self.sync()
        if len(self.due) != 1 or not self._may_deliver_leanly(scope):
            return None
        (((oid, operation), self.buffer.home),) = self.due.items()
        source = self.buffer.source(oid)
        if source is None or not source.kind(operation).is_lean:
            return None
        if operation == UPDATED and scope.given_fields is None:
            # Which fields raw SQL has changed, as update_fields says, both images decide.
            return None
        return None if post_init.has_listeners(source.model) else source.kind(operation)

    def _settle_leanly(self, kind: Kind, scope: Scope) -> bool:
        """The same as below for such rows, without an object for each change."""
        rows = self.buffer.take_rows(kind)
        if not rows:
            return True
        if is_any_shared(rows):
            taken = [kind.taken(row) for row in rows]
            changes = self.buffer.combined(taken)
            for change in changes:
                scope.prepare(change)
                scope.add(change)
            self._deliver_pending(scope)
            return True
        self._call_for(kind, kind.images(rows), scope)
        return True

    def _call_for(self, kind: Kind, images: Iterable[tuple[Any, ...]], scope: Scope) -> None:
        table = kind.source.table
        model = table.model
        is_live = delivering.Live(delivering.LATE)
        every = [r for route in kind.routes if not muting.is_muted(r := route.receiver)]
        listed = [receiver for receiver in every if is_live(receiver, model)]
        is_new = kind.operation == INSERTED
        known = arguments.Uncaptured(
            is_new, None if is_new else scope.given_fields, scope.given_origin
        )
        same = {one: arguments.of_each_object(one, model, self.alias, known) for one in every}
        if not is_new:
            images = sorted_by_key(images, table.key)
        for values in images if listed else ():
            instance = table.instance(values)
            row = row_of(model, table.key(values))
            if is_live.refresh():
                listed = [receiver for receiver in every if is_live(receiver, model)]
            for receiver in listed:
                named = arguments.of_object(receiver, same[receiver], instance)
                self.call_with(receiver, named, row, observer=scope.observer)

    def _forget_what_waits(self) -> None:
        """In a migration, the tables are not what the models are, and Django sends nothing."""
        if self.transaction.is_begun:
            self.buffer.discard()
        self.buffer.due.clear()

    @property
    def due(self) -> dict[tuple[int, str], str]:
        return self.buffer.due

    @property
    def is_in_pipeline(self) -> bool:
        return self.buffer.is_in_pipeline

    def sync(self) -> None:
        self.buffer.sync()

    def asking(self) -> AbstractContextManager[Any]:
        return self.buffer.asking()

    def source(self, oid: int) -> Source | None:
        return self.buffer.source(oid)

    def take(self) -> list[InlineChange]:
        if self.is_migrating:
            self.buffer.sync()
            self._forget_what_waits()
        return self.buffer.take()

    def gather(self, scope: Scope) -> None:
        """Take what waits; it goes to the write that it belongs to, or else to ``scope``."""
        for change in self.take():
            owner = next((one for one in reversed(self.scopes) if one.holds(change)), scope)
            owner.prepare(change)
            owner.add(change)

    # Calls.

    def deliver(self, changes: Sequence[InlineChange], observer: Observer | None = None) -> None:
        """Call the receivers that have not been called for the changes yet.

        Args:
            observer: looks at what those of the write's own rows do.
        """
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
        """The first of the two calls of an ``m2m_changed`` receiver, unless it came before."""
        changes: Sequence[Any] = call.changes
        unannounced = [one for one in changes if call.receiver not in one.announced]
        if unannounced:
            self.call(Call(call.receiver, unannounced), "pre")

    def listed(self, change: InlineChange) -> list[Receiver]:
        """The receivers that a change may go to, in their order."""
        source = self.buffer.source(change.event.source)
        if source is None:
            return []
        found = source.receivers(change.event.operation)
        if any(_sends_links(scope, change) for scope in self.scopes):
            return [receiver for receiver in found if receiver.signal is not m2m_changed]
        return found

    def call(self, call: Call, action: str | None = None, observer: Observer | None = None) -> None:
        """Make one call.

        Args:
            action: ``"pre"`` for the first of the two calls of an ``m2m_changed`` receiver.
            observer: looks at what the receiver reads.

        Raises:
            ValueError: the receiver changed ``pk_set``, which nothing would come of.
        """
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
        row: Any,
        context: Any = None,
        observer: Observer | None = None,
    ) -> None:
        """Call a receiver; what it writes is a matter of its own."""
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
                    # Written past Django's cursors.
                    self.settle(Scope())
        finally:
            self.scopes, self.observers = before
        if observer is not None and observer.must_restart:
            # The receiver has caught it.
            raise Restart(observer.progress)
        if not self.scopes:
            # Sent by hand: what comes next is the caller's.
            correct()

    @contextmanager
    def as_scope(self, scope: Scope) -> Iterator[None]:
        """Go on with a write from inside a call of one of its receivers."""
        before = self.scopes, self.observers
        self.scopes, self.observers = [scope], scope.observers
        try:
            yield
        finally:
            self.scopes, self.observers = before


class _Within(AbstractContextManager[Scope]):
    """A write in progress.

    No generator: that would not let the StopIteration of a receiver out.
    """

    def __init__(self, watch: Watch, scope: Scope) -> None:
        self.watch = watch
        self.scope = scope
        self._transaction = ExitStack()

    def __enter__(self) -> Scope:
        watch = self.watch
        if watch.due and watch.scopes:
            # What an outer write has changed by now is none of this one's.
            watch.gather(watch.scopes[-1])
        self.scope.observers = watch.observers
        watch.scopes.append(self.scope)
        try:
            self._transaction.enter_context(watch.transaction.atomic())
        except BaseException:
            watch.scopes.remove(self.scope)
            raise
        return self.scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        scopes = self.watch.scopes
        try:
            if error is not None:
                self._transaction.__exit__(kind, error, traceback)
                return
            with self._transaction:
                self.watch.settle(self.scope)
                self.watch.transaction.check("A receiver that Django calls for this write")
                # What is left to be done after the commit is no part of it.
                scopes.remove(self.scope)
        finally:
            if self.scope in scopes:
                scopes.remove(self.scope)
        if not scopes:
            # What comes next is the caller's, and no receiver's.
            correct()


def _sends_links(scope: Scope, change: InlineChange) -> bool:
    """Whether it is Django's to send ``m2m_changed`` for a row of a many-to-many table.

    It is while a manager is at work. And Django sends nothing for what is deleted along with one of
    the two that it connects.
    """
    if isinstance(scope, Linking):
        return scope.through is change.model
    return isinstance(scope, Deleting) and change.deleted and scope.root is not change.model


# Connections.


def watch_of(connection: Any) -> Watch:
    """The watch of a connection of Django's."""
    found = begun_watch_of(connection)
    if found is None:
        found = attributes(connection)[_WATCH] = Watch(connection)
    return found


def begun_watch_of(connection: Any) -> Watch | None:
    """The watch of a connection of Django's, if it was asked for before."""
    return attributes(connection).get(_WATCH)


_WATCH = "_bulksafe_watch"


def watching(using: str) -> Watch | None:
    """The watch of a database, if it is one that can have critical receivers."""
    connection = connections[using]
    return watch_of(connection) if connection.vendor == "postgresql" else None


@contextmanager
def migrating(connection: Any) -> Iterator[None]:
    """While a migration is applied to the database of a connection of Django's."""
    if connection.vendor != "postgresql":
        yield
        return
    watch = watch_of(connection)
    before, watch.is_migrating = watch.is_migrating, True
    try:
        yield
        # What was written past Django's cursors.
        watch.take()
    finally:
        watch.is_migrating = before
        forget(connection.alias)


def attach(sender: object, connection: Any, **kwargs: Any) -> None:
    """Receiver of ``connection_created``: watch the connection."""
    if connection.vendor != "postgresql":
        return
    watch = watch_of(connection)
    if not any(isinstance(wrapper, Watch) for wrapper in connection.execute_wrappers):
        connection.execute_wrappers.insert(0, watch)
    watch.begin()
    if connection.connection is not None:
        listen(connection.connection, watch)


def before_commit(connection: Any) -> None:
    """Deliver what was written past Django's cursors, before the transaction is committed.

    Raises:
        Exception: whatever a receiver raises; the transaction is rolled back then.
    """
    watch = begun_watch_of(connection)
    if watch is None:
        return
    watch.sync()
    if not watch.due:
        return
    if connection.connection.info.transaction_status != TransactionStatus.INTRANS:
        watch.due.clear()
        return
    try:
        with in_atomic_block(connection):
            watch.settle(Scope())
    except BaseException:
        connection.rollback()
        raise


def _settle_due() -> None:
    """Run the receivers of what a block wrote past Django's cursors inside the block."""
    for connection in connections.all(initialized_only=True):
        watch = begun_watch_of(connection)
        if watch is not None:
            watch.settle_due()


def _look_past_django(connection: Any, statement: Any) -> None:
    watch = begun_watch_of(connection)
    if watch is not None:
        watch.look_past_django(statement)


past_django.append(_look_past_django)
leaving.append(_settle_due)


def _sent(connected: Connected, connection: Any, named: dict[str, Any]) -> None:
    sent(watch_of(connection), connected, named)


connecting.sent.append(_sent)
