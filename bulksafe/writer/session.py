"""The connection interface for writes, implemented by ``connection_session``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from bulksafe.joining import Tail, allows_tail, following

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from psycopg import Cursor

    from bulksafe.call_stack import Row
    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.calls import Call
    from bulksafe.writer.buffer import Buffer
    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.observing import Observer
    from bulksafe.writer.scopes import Scope
    from bulksafe.writer.taking import Source
    from bulksafe.writer.transactions import Transaction
    from bulksafe.writer.waiting import Key, Waiting


#: Executes a statement with its parameters on the caller's cursor.
Execute: TypeAlias = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Execution:
    """A statement that a cursor of Django's is about to execute.

    Attributes:
        execute: the rest of Django's execute wrappers.
        sql, params, many, context: their arguments.
        text: the statement as text.
    """

    execute: Callable[..., Any]
    sql: Any
    params: Any
    many: bool
    context: dict[str, Any]
    text: str

    def __call__(self) -> Any:
        return self.execute(self.sql, self.params, self.many, self.context)

    def of(self, sql: Any, params: Any) -> Any:
        """Execute another statement on the same cursor."""
        return self.execute(sql, params, False, self.context)

    def with_text(self, text: str) -> Any:
        """Execute the statement with text after it, hidden from users' wrappers and logs.

        Args:
            text: SQL without placeholders.
        """
        if not allows_tail(self.cursor):
            return self.of(f"{self.sql} {text.replace('%', '%%')}", self.params)
        with following(self.cursor, Tail(self.text, f" {text}")):
            return self()

    @property
    def cursor(self) -> Any:
        """The driver's."""
        return self.context["cursor"].cursor


class Session(Protocol):
    """One connection, its writes in progress and its waiting changes.

    Attributes:
        alias: the connection's.
        connection: Django's.
        transaction: the connection's.
        buffer: the changes that wait.
        scopes: the writes in progress, the innermost last. While a receiver runs, the list holds
            the receiver's own writes only.
        observers: observe the statements of the running receivers.
        due: the tables and operations with waiting changes, and the schema of their buffer.
        is_answered: whether the database has reported that it left the changes of the last marked
            statement out of the buffer.
        is_migrating: whether a migration is being applied.
    """

    alias: str
    connection: BaseDatabaseWrapper
    transaction: Transaction
    buffer: Buffer
    scopes: list[Scope]
    observers: tuple[Observer, ...]
    due: dict[Key, Waiting]
    is_answered: bool
    is_migrating: bool

    @property
    def is_in_pipeline(self) -> bool:
        """Whether statements are sent before the results of others have come."""

    # A write.

    def within(self, scope: Scope) -> AbstractContextManager[Scope]:
        """Execute a write in one transaction with its receivers.

        Raises:
            BrokenTransaction: the transaction was rolled back, and the error was caught.
        """

    def as_scope(self, scope: Scope) -> AbstractContextManager[None]:
        """Continue a write from inside a call of one of its receivers."""

    def asking(self) -> AbstractContextManager[Cursor[Any]]:
        """A driver cursor to read the buffer."""

    # Its changes.

    def source(self, oid: int) -> Source | None:
        """The table with the oid; None if this code has no receivers for it."""

    def sync(self) -> None:
        """In a pipeline, receive the notices of the statements sent so far."""

    def take(self) -> list[InlineChange]:
        """Take the changes out of the buffer, combined per row."""

    def gather(self, scope: Scope) -> None:
        """Take the changes and add each to the write that holds it, or else to ``scope``."""

    # Calls.

    def settle(self, scope: Scope) -> None:
        """Deliver all waiting changes. What receivers write settles inside their calls."""

    def deliver_pending(self, scope: Scope) -> None:
        """Deliver the changes that a write has taken."""

    def deliver(self, changes: Sequence[InlineChange], observer: Observer | None = None) -> None:
        """Call the receivers that have not been called for the changes yet.

        Args:
            observer: observes the calls for rows of the write's own model.
        """

    def listed(self, change: InlineChange) -> list[Receiver]:
        """The receivers that a change may go to, in their order."""

    def call(self, call: Call, action: str | None = None, observer: Observer | None = None) -> None:
        """Make one call.

        Args:
            action: ``"pre"`` for the first of the two calls of an ``m2m_changed`` receiver.
            observer: observes the receiver's statements.

        Raises:
            ValueError: the receiver changed ``pk_set``, which would have no effect.
        """

    def call_with(
        self,
        receiver: Receiver,
        named: dict[str, Any],
        row: Row,
        context: Mapping[str, Any] | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Call a receiver. Its writes are not part of the write that it is called for.

        Args:
            context: the context of the change; None for the one in force.
        """
