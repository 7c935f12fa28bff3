"""Patches of connections: violations, contexts, and receivers at the end of transactions.

A receiver of ``connection_created`` extends each new connection: the error wrapper, the class of
the driver's cursors, and the execute wrappers of contexts and of the writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connections
from django.db.backends.base import base
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.postgresql.operations import DatabaseOperations
from django.db.backends.signals import connection_created
from psycopg import Connection

from bulksafe import contexts, hidden, joining
from bulksafe.dispatch import sharing
from bulksafe.outbox import schema
from bulksafe.patches import cursors, errors
from bulksafe.patches.patching import Patch
from bulksafe.writer import attaching, blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from bulksafe.patches.patching import Original


def extend_connections() -> None:
    """Extend open and future connections; a second call changes nothing."""
    connection_created.connect(_extend, dispatch_uid="bulksafe.extend_connection")
    for connection in connections.all(initialized_only=True):
        _extend(sender=type(connection), connection=connection)


def _extend(sender: object, connection: BaseDatabaseWrapper, **kwargs: object) -> None:
    """Receiver of ``connection_created``."""
    if connection.vendor != "postgresql":
        return
    connection.wrap_database_errors = errors.ViolationWrapper(connection)
    driver = connection.connection
    if driver is not None:
        driver.cursor_factory = cursors.noticed(errors.translating(driver.cursor_factory))
    contexts.carry(sender, connection)
    attaching.attach(sender, connection)


def _commit(original: Original[None], self: DatabaseWrapper) -> None:
    attaching.before_commit(self)
    carrier = contexts.carrier_of(self)
    if carrier is not None:
        carrier.correct()
    try:
        original(self)
    finally:
        _end(self)


def _rollback(original: Original[None], self: DatabaseWrapper) -> None:
    _end(self)
    original(self)


def _end(connection: DatabaseWrapper) -> None:
    """The transaction ends, and with it the identity and the commands that wait."""
    carrier = contexts.carrier_of(connection)
    if carrier is not None:
        carrier.end()
    driver = connection.connection
    commands = None if driver is None else joining.begun_commands_of(driver)
    if commands is not None:
        commands.end()


def _close(original: Original[None], self: DatabaseWrapper) -> None:
    sharing.check_close(self)
    original(self)


def _execute_sql_flush(
    original: Original[None], self: DatabaseOperations, sql_list: Sequence[str]
) -> None:
    if not sql_list:
        original(self, sql_list)
        return
    mute = "SELECT set_config('bulksafe.muted', '{*}', true)"
    own = schema.EMPTY if schema.exists(self.connection.alias) else []
    original(self, [mute, *sql_list, *own])


LATE = (
    Patch(
        DatabaseWrapper,
        "_commit",
        _commit,
        "Receivers of writes that bypassed Django's cursors run before the commit, which would "
        "refuse it. Deferred triggers run without the identity of an earlier call, and the next "
        "transaction begins without one.",
    ),
    Patch(
        DatabaseWrapper,
        "_rollback",
        _rollback,
        "The next transaction begins without an identity.",
    ),
    Patch(
        DatabaseWrapper,
        "_savepoint",
        blocks.savepoint,
        "bulksafe's own savepoints are set with the next statement, and are not logged.",
    ),
    Patch(
        DatabaseWrapper,
        "_savepoint_commit",
        blocks.savepoint_commit,
        "They are released with the next statement.",
    ),
    Patch(
        DatabaseWrapper,
        "_savepoint_rollback",
        blocks.savepoint_rollback,
        "A savepoint that was never set needs no rollback.",
    ),
    Patch(
        Connection,
        "_start_query",
        joining.start_query,
        "All of psycopg's cursors call it before a statement: the commands that wait go first.",
    ),
    Patch(
        Connection,
        "_exec_command",
        joining.exec_command,
        "psycopg sends BEGIN, COMMIT and savepoints with it: the commands that wait go first.",
    ),
    Patch(
        DatabaseWrapper,
        "make_debug_cursor",
        hidden.make_debug_cursor,
        "connection.queries does not list bulksafe's own statements.",
    ),
    Patch(
        base,
        "debug_transaction",
        hidden.debug_transaction,
        "Nor the transaction that a write of its own has.",
    ),
    Patch(
        DatabaseWrapper,
        "close",
        _close,
        "A receiver must not close the connection of a transaction that it shares with others.",
    ),
    Patch(
        DatabaseOperations,
        "execute_sql_flush",
        _execute_sql_flush,
        "flush and TransactionTestCase empty the database: rules on deletion are muted, and the "
        "events of the deleted rows leave the outbox.",
    ),
)
