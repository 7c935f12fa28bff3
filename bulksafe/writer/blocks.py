"""bulksafe's own transactions and savepoints, which cost no round trips of their own.

A block is Django's ``atomic()``, so that nested blocks, ``on_commit()`` and ``set_rollback()`` work
with it. Only its commands are sent later: see ``bulksafe.joining``.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from django.db import InternalError, connections, transaction
from psycopg.pq import TransactionStatus

from bulksafe.hidden import hidden, hiding_transaction
from bulksafe.joining import begun_commands_of, commands_of
from bulksafe.object_state import attributes

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.backends.base.base import BaseDatabaseWrapper

#: The mark of a connection while a block of bulksafe's sets its savepoint: whether it may wait.
_MAY_WAIT = "_bulksafe_savepoint_may_wait"


class Block(transaction.Atomic):
    """``atomic()`` for a write of bulksafe's.

    Args:
        using: the database.
        may_wait: whether its savepoint may be set with the next statement. It may not if changes
            wait for receivers, which must run before it, or if a receiver is being observed, whose
            observer has to see it.
        is_logged: whether Django's logs have its BEGIN and COMMIT, because Django would send them.
    """

    def __init__(self, using: str, *, may_wait: bool, is_logged: bool = False) -> None:
        super().__init__(using, savepoint=True, durable=False)
        self._may_wait = may_wait
        self._is_logged = is_logged

    def __enter__(self) -> None:
        connection = connections[str(self.using)]
        if not connection.in_atomic_block and connection.get_autocommit():
            with nullcontext() if self._is_logged else hiding_transaction(connection):
                super().__enter__()
            commands_of(connection.connection).begin(may_wait=not _binds_on_server(connection))
            return
        kept = attributes(connection)
        kept[_MAY_WAIT] = self._may_wait
        try:
            super().__enter__()
        finally:
            del kept[_MAY_WAIT]


def _binds_on_server(connection: BaseDatabaseWrapper) -> bool:
    """Whether each statement is a message of its own, with its parameters."""
    return bool(getattr(connection.features, "uses_server_side_binding", False))


# For Django's methods of the same names.


def savepoint(original: Callable[..., None], connection: Any, sid: str) -> None:
    may_wait = attributes(connection).get(_MAY_WAIT)
    if may_wait is None or connection.connection is None:
        original(connection, sid)
        return
    driver = connection.connection
    commands = commands_of(driver)
    is_usable = driver.pgconn.transaction_status in {
        TransactionStatus.IDLE,
        TransactionStatus.INTRANS,
    }
    if may_wait and is_usable and not _binds_on_server(connection):
        commands.set_savepoint(sid, connection.ops.savepoint_create_sql(sid))
        return
    with hidden(connection):
        original(connection, sid)
    commands.note_savepoint(sid)


def savepoint_commit(original: Callable[..., None], connection: Any, sid: str) -> None:
    driver = connection.connection
    commands = None if driver is None else begun_commands_of(driver)
    if commands is None or not commands.has_savepoint(sid):
        original(connection, sid)
    else:
        commands.release(sid, connection.ops.savepoint_commit_sql(sid))


def savepoint_rollback(original: Callable[..., None], connection: Any, sid: str) -> None:
    """Roll back.

    Raises:
        InternalError: the savepoint does not exist, because the server has refused to parse the
            message that would have set it. Django then marks the outer block for rollback.
    """
    driver = connection.connection
    commands = None if driver is None else begun_commands_of(driver)
    if commands is None or not commands.has_savepoint(sid):
        original(connection, sid)
        return
    if sid in commands.lost:
        raise InternalError(f"The savepoint {sid} was not set: a statement had a syntax error.")
    if not commands.withdraw(sid):
        with hidden(connection):
            original(connection, sid)
