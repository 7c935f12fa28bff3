"""Making calls: what a receiver raises becomes what is noted with its event."""

from __future__ import annotations

import logging
from asyncio import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, InterfaceError, connections, transaction
from psycopg.pq import TransactionStatus

from bulksafe.exceptions import BrokenTransaction
from bulksafe.outbox.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bulksafe.dispatch.calls import Call
    from bulksafe.outbox.events import Event

logger = logging.getLogger("bulksafe")


#: What a receiver may raise. Neither the process nor a task of its own is the receiver's to end: it
#: would end each listener that comes to the event.
RAISED = (Exception, SystemExit, GeneratorExit, CancelledError)


class CallFailed(Exception):  # noqa: N818
    """A call has failed that had no savepoint: the transaction has to be rolled back."""


@dataclass
class Caller:
    """Makes calls on the connection ``using``, and counts them.

    Attributes:
        using: the database.
        delivered: how many calls were made.
        failed: how many failed.
    """

    using: str
    delivered: int = 0
    failed: int = 0

    @cached_property
    def _connection(self) -> Any:
        return connections[self.using]

    @property
    def is_lost(self) -> bool:
        """Whether the connection is."""
        driver = self._connection.connection
        return driver is None or driver.closed

    @property
    def _is_broken(self) -> bool:
        """Whether the transaction cannot go on."""
        if self._connection.needs_rollback:
            return True
        status = self._connection.connection.info.transaction_status
        return bool(status == TransactionStatus.INERROR)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Around a transaction that receivers share: none of them may end it for the others.

        Neither by closing the connection, nor with an error in what it does after the commit.

        Raises:
            BrokenTransaction: inside a receiver that closes the connection.
        """
        connection = self._connection
        close = connection.close

        def refuse() -> None:
            if not self.is_lost and not connection.connection.broken:
                raise BrokenTransaction(
                    "A receiver closes the connection that it shares with others: leave that out, "
                    "or declare it with atomic=False."
                )
            close()

        connection.close = refuse
        try:
            yield
        finally:
            del connection.close
        connection.run_on_commit = [
            (savepoints, partial(_after_commit, function), robust)
            for savepoints, function, robust in connection.run_on_commit
        ]

    def _check_session(self, call: Call, before: Sequence[str]) -> None:
        """Refuse what would be in the way of everybody who comes after, the worker among them."""
        if Store(self.using).session() != before:
            raise BrokenTransaction(
                f"{call.receiver.name} leaves the connection with another search_path, role, "
                "timeout or mode than it found: put these back, or declare it with atomic=False "
                "and a connection of its own."
            )

    def make(self, call: Call) -> None:
        """Make a call in the open transaction.

        Raises:
            BrokenTransaction: it has left the transaction unusable, and hidden that.
        """
        call()
        if self._is_broken:
            raise BrokenTransaction(
                f"{call.receiver.name} caught a database error without a savepoint around it: put "
                "what may fail into transaction.atomic()."
            )
        self.delivered += 1

    def make_or_fail(self, call: Call) -> None:
        """Make a call in the open transaction, which ends with it if it fails.

        Raises:
            CallFailed: it has; its cause is what it raised.
        """
        try:
            self.make(call)
        except RAISED as error:
            if self.is_lost:
                raise
            raise CallFailed(call.receiver.name) from error

    def attempt(self, call: Call, event: Event) -> BaseException | None:
        """Make a call in a savepoint.

        Returns:
            what it raised.
        """
        try:
            with transaction.atomic(using=self.using):
                before = Store(self.using).session()
                self.make(call)
                self._check_session(call, before)
        except RAISED as error:  # whatever a receiver raises is noted with its event
            return self._noted(call, event, error)
        return None

    def attempt_outside(self, call: Call, event: Event) -> BaseException | None:
        """Make a call while no transaction is open.

        Returns:
            what it raised.
        """
        try:
            call()
        except RAISED as error:  # whatever a receiver raises is noted with its event
            if not isinstance(error, DatabaseError | InterfaceError):
                # The receiver may have closed it, and that is nothing to give it up for.
                self._connection.ensure_connection()
            return self._noted(call, event, error)
        self.delivered += 1
        return None

    def _noted(self, call: Call, event: Event, error: BaseException) -> BaseException:
        """The error, logged; one that took the connection along is none of the receiver's."""
        if self.is_lost or self._connection.needs_rollback:
            raise error
        self.failed += 1
        attempts = event.attempts + 1
        logger.warning(
            "receiver %s failed (attempt %d of %d) on event %d: %s: %s",
            call.receiver.name,
            attempts,
            call.receiver.max_attempts,
            event.seq,
            type(error).__name__,
            error,
            exc_info=error,
            extra={"receiver": call.receiver.name, "seq": event.seq, "attempts": attempts},
        )
        return error


def _after_commit(function: Callable[[], object]) -> None:
    """Call what a receiver left to be called: an error is too late for the event, and its own."""
    try:
        function()
    except RAISED:
        logger.exception("what a receiver does after the commit has failed: %r", function)
