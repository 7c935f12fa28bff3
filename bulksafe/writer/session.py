"""What the ways of a write need of the connection that it is made over: see ``watch``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from django.db.models import Model

    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.calls import Call
    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.observing import Observer
    from bulksafe.writer.scopes import Returned, Scope
    from bulksafe.writer.taking import Source


#: Executes a statement with its parameters on the caller's cursor.
Execute: TypeAlias = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Execution:
    """A statement that a cursor of Django's is about to execute.

    Attributes:
        execute: the rest of Django's execute wrappers.
        sql, params, many, context: what they get.
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

    @property
    def cursor(self) -> Any:
        """The driver's."""
        return self.context["cursor"].cursor


class Session(Protocol):
    """A connection, the writes that are in progress on it, and the changes that wait."""

    alias: str
    connection: Any
    scopes: list[Scope]
    is_answered: bool
    is_migrating: bool

    @property
    def due(self) -> dict[tuple[int, str], str]:
        """The tables and operations of which the database has said that changes wait."""

    @property
    def is_in_pipeline(self) -> bool:
        """Whether statements are sent before the results of others have come."""

    # A write.

    def within(self, scope: Scope) -> AbstractContextManager[Scope]:
        """A write in progress. All of it, and what receivers do, takes place or none."""

    def as_scope(self, scope: Scope) -> AbstractContextManager[None]:
        """Go on with a write from inside a call of one of its receivers."""

    def execute_in_bulk(self, execution: Execution) -> Any:
        """Execute a statement, for its rows if no receiver needs more of them."""

    def returned(self, model: type[Model], operation: str) -> Returned | None:
        """Where the rows of a statement go, if it may return them and no receiver needs more."""

    def asking(self) -> AbstractContextManager[Any]:
        """A cursor of the driver's for what waits in the buffer."""

    # Its changes.

    def source(self, oid: int) -> Source | None:
        """The table of the oid: None if this code knows no receivers of it."""

    def sync(self) -> None:
        """Let the database say what waits, where statements are sent in a pipeline."""

    def take(self) -> list[InlineChange]:
        """The changes that wait in the buffer, those of one row put together."""

    def gather(self, scope: Scope) -> None:
        """Take what waits; it goes to the write that it belongs to, or else to ``scope``."""

    # Calls.

    def settle(self, scope: Scope) -> None:
        """Deliver what is waiting."""

    def deliver(self, changes: Sequence[InlineChange], observer: Observer | None = None) -> None:
        """Call the receivers that have not been called for the changes yet."""

    def listed(self, change: InlineChange) -> list[Receiver]:
        """The receivers that a change may go to, in their order."""

    def call(self, call: Call, action: str | None = None, observer: Observer | None = None) -> None:
        """Make one call."""

    def call_with(
        self,
        receiver: Receiver,
        named: dict[str, Any],
        row: Any,
        context: Any = None,
        observer: Observer | None = None,
    ) -> None:
        """Call a receiver; what it writes is a matter of its own."""
