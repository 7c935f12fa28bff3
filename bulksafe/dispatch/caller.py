"""Makes calls, inside or outside of a transaction, each within its time limit."""

from __future__ import annotations

import logging
import os
from asyncio import CancelledError
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from django.db import DatabaseError, InterfaceError, connections
from django.utils.functional import cached_property
from psycopg.pq import TransactionStatus

from bulksafe import conf
from bulksafe.declarations.receivers import listened
from bulksafe.dispatch import sharing
from bulksafe.dispatch.activity import Activity
from bulksafe.exceptions import BrokenTransaction, CallTimedOut, PermanentFailure, RetryAfter
from bulksafe.object_state import commit_hooks, set_commit_hooks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.calls import Call

logger = logging.getLogger("bulksafe")


#: Exceptions of receivers to catch. SystemExit and a cancelled task count too: a receiver that ends
#: the process would end every listener that reaches the event.
RAISED = (Exception, SystemExit, GeneratorExit, KeyboardInterrupt, CancelledError)


class Caller:
    """Makes calls on a connection, and counts them.

    Args:
        using: the database.
        activity: shows the call that is being made.

    Attributes:
        slow: seconds after which a call is too slow for a batch.
    """

    def __init__(self, using: str, activity: Activity) -> None:
        self.using = using
        self.activity = activity
        settings = conf.get()
        self._timeout = settings.TIMEOUT
        self.slow = settings.SLOW_CALL

    @cached_property
    def _connection(self) -> BaseDatabaseWrapper:
        return connections[self.using]

    @property
    def is_lost(self) -> bool:
        """Whether the connection is lost."""
        return sharing.is_lost(self._connection)

    @property
    def _is_broken(self) -> bool:
        """Whether the transaction cannot continue."""
        if self._connection.needs_rollback:
            return True
        # Not through psycopg's ``info``: asked after each call.
        status = self._connection.connection.pgconn.transaction_status
        return bool(status == TransactionStatus.INERROR)

    @property
    def _is_in_transaction(self) -> bool:
        """Whether a transaction is open, or every statement would open one."""
        connection = self._connection
        if self.is_lost:
            return False
        status = connection.connection.info.transaction_status
        is_idle = status == TransactionStatus.IDLE
        return not is_idle or connection.in_atomic_block or not connection.get_autocommit()

    def timeout(self, receiver: Receiver) -> float:
        """Seconds that a call of the receiver may take."""
        return self._timeout if receiver.timeout is None else receiver.timeout

    def longest(self) -> float:
        """Seconds that the call of any receiver may take."""
        return max([self.timeout(receiver) for receiver in listened()], default=self._timeout)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Wrap a transaction that receivers share: no receiver may break it for the others.

        This covers closing the connection, and errors in on-commit callbacks. Calls that are rolled
        back do not count.

        Raises:
            BrokenTransaction: inside a receiver that closes the connection.
        """
        connection = self._connection
        delivered = self.activity.delivered
        try:
            with sharing.open_connection(connection):
                yield
        except BaseException:
            self.activity.delivered = delivered
            raise
        hooks = [
            (savepoints, partial(_after_commit, function), robust)
            for savepoints, function, robust in commit_hooks(connection)
        ]
        set_commit_hooks(connection, hooks)

    # Making calls.

    def make(self, call: Call, limit: float) -> None:
        """Make a call in the open transaction.

        Args:
            limit: seconds that it may take.

        Raises:
            BrokenTransaction: it left the transaction unusable and caught the error.
            CallTimedOut: it exceeded the limit.
        """
        earlier = len(commit_hooks(self._connection))
        self._run(call, limit)
        self._limit_callbacks(call, earlier)
        if self._is_broken:
            raise BrokenTransaction(
                f"{call.receiver.name} caught a database error without a savepoint around it: put "
                "what may fail into transaction.atomic()."
            )
        self.activity.delivered += 1

    def _limit_callbacks(self, call: Call, earlier: int) -> None:
        """Apply the receiver's timeout to its on-commit callbacks.

        Args:
            earlier: the number of callbacks of earlier calls in the transaction.
        """
        callbacks = commit_hooks(self._connection)
        callbacks[earlier:] = [
            (savepoints, partial(self.follow, call, function), robust)
            for savepoints, function, robust in callbacks[earlier:]
        ]

    def follow(self, call: Call, function: Callable[[], object]) -> None:
        """Run the follow-up of a call within a limit: otherwise it could block its queue for ever.

        An error comes too late to fail the event.
        """
        limit = self.timeout(call.receiver)
        self.activity.begin(call, limit, limit)
        try:
            _after_commit(function)
        except CallTimedOut:
            logger.exception(
                "an on-commit callback or the dead_letter signal of %s exceeded its timeout, and "
                "will not be repeated",
                call.receiver.name,
            )
        finally:
            self.activity.end()

    def check_constraints(self, call: Call | None, limit: float) -> None:
        """Check deferred constraints now, within a limit: COMMIT would wait without one.

        The check of a foreign key waits for the lock of a session that holds the referenced row.

        Args:
            call: the call of the transaction; None for several, none of which is to blame.
            limit: seconds that it may take.

        Raises:
            CallTimedOut: it exceeded the limit.
            IntegrityError: a constraint is violated.
        """
        if call is None:
            self.activity.begin_check(limit)
        else:
            self.activity.begin(call, limit, limit)
        try:
            with self._connection.cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        finally:
            self.activity.end()

    def check_session(self, call: Call, before: Sequence[str], after: Sequence[str] | None) -> None:
        """Refuse changed session settings, which would affect later calls and the worker itself.

        Raises:
            BrokenTransaction: the call left the connection's settings changed.
        """
        if before != after:
            raise BrokenTransaction(
                f"{call.receiver.name} leaves the connection with a different search_path, role, "
                "timeout or mode than before: restore them, or declare it with atomic=False "
                "and a connection of its own."
            )

    def make_outside(self, call: Call) -> None:
        """Make a call while no transaction is open.

        Raises:
            BrokenTransaction: it left a transaction open, which later calls would share.
            CallTimedOut: it exceeded its timeout.
        """
        try:
            self._run(call, self.timeout(call.receiver))
            if self._is_in_transaction:
                raise BrokenTransaction(
                    f"{call.receiver.name} left a transaction open, which was rolled back: end "
                    "each transaction inside the receiver."
                )
        except RAISED as error:
            if self._is_in_transaction or self._is_closed_by(error):
                self._connection.close()
                self._connection.connect()
            raise
        self.activity.delivered += 1

    def _is_closed_by(self, error: BaseException) -> bool:
        """Whether a receiver has closed the connection, which is not an error outside.

        Otherwise it was lost in the call, whose error says only that.
        """
        if self._connection.connection is None:
            return True
        return self.is_lost and not isinstance(error, DatabaseError | InterfaceError)

    def _run(self, call: Call, limit: float) -> None:
        self.activity.begin(call, limit, self.timeout(call.receiver))
        process = os.getpid()
        try:
            call()
        finally:
            if os.getpid() != process:
                # The receiver has forked, and this child process would use the same connection.
                os._exit(1)
            self.activity.end()

    def noted(self, call: Call, error: BaseException, attempt: int) -> BaseException:
        """Log the error; a lost connection is not the receiver's error, and is raised."""
        if self.is_lost or self._connection.needs_rollback:
            raise error
        self.activity.failed += 1
        receiver, change = call.receiver, call.changes[-1]
        is_expected = isinstance(error, RetryAfter | PermanentFailure)
        logger.log(
            logging.INFO if is_expected else logging.WARNING,
            "receiver %s failed (attempt %d of %d) for %s %s, event %d: %s: %s",
            receiver.name,
            attempt,
            receiver.max_attempts,
            change.model._meta.label,
            change.event.key,
            change.event.seq,
            type(error).__name__,
            error,
            exc_info=None if is_expected else error,
            extra={"receiver": receiver.name, "seq": change.event.seq, "attempts": attempt},
        )
        return error


def _after_commit(function: Callable[[], object]) -> None:
    """Run an on-commit callback: its error comes too late to fail the event, and is only logged."""
    try:
        function()
    except CallTimedOut:
        raise
    except RAISED:
        logger.exception(
            "an on-commit callback of a receiver failed, and will not be repeated: %r", function
        )
