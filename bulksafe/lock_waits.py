"""Limits how long DDL waits for the lock of a table.

While it waits, every later writer of the table waits behind it. So it gives up after
``BULKSAFE["LOCK_TIMEOUT"]`` seconds, lets the writers pass, and tries again.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.core.management import CommandError
from django.db import OperationalError, connections, transaction

from bulksafe import conf
from bulksafe.own_cursor import own_cursor
from bulksafe.sqlstates import sqlstate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor

logger = logging.getLogger("bulksafe")

#: The SQLSTATEs of a lock that was not granted in time, and of a deadlock.
_NOT_GRANTED = frozenset({"55P03", "40P01"})


#: What ``sqlmigrate`` says about an operation, by whether it drops a trigger.
_COMMENTS = {
    False: "-- Locks {table} in SHARE ROW EXCLUSIVE mode: until the transaction ends, writers wait "
    "and readers do not.\n-- Scans no table.",
    True: "-- Locks {table} in ACCESS EXCLUSIVE mode (DROP TRIGGER): until the transaction ends, "
    "writers and readers wait.\n-- Scans no table.",
}


def migrate(
    editor: BaseDatabaseSchemaEditor,
    work: Callable[[], None],
    what: str,
    table: str,
    *,
    drops: bool,
) -> None:
    """Run the DDL of an operation of a migration; for ``sqlmigrate``, say what it locks.

    Args:
        table: the quoted name of the only table that it locks.
        drops: whether it drops triggers.
    """
    if editor.collect_sql:
        editor.collected_sql.append(_COMMENTS[drops].format(table=table))
        work()
    else:
        run(editor.connection.alias, work, what)


def run(using: str, work: Callable[[], None], what: str, seconds: float | None = None) -> None:
    """Run DDL in a transaction, and repeat it while it is not granted a lock.

    Inside a transaction, such as that of an atomic migration, it is run once: the transaction is
    lost, and may hold locks of other tables.

    Args:
        what: the subject of messages, such as ``"Create trigger net on shop.order"``.
        seconds: to wait for each lock; None for the setting's, 0 for no limit of bulksafe's.

    Raises:
        CommandError: a lock was not granted.
    """
    settings = conf.get()
    limit = settings.LOCK_TIMEOUT if seconds is None else seconds
    connection = connections[using]
    attempts = 1 if connection.in_atomic_block else settings.LOCK_ATTEMPTS
    for attempt in range(1, attempts + 1):
        try:
            with transaction.atomic(using=using), _limited(connection, limit):
                work()
            return
        except OperationalError as error:
            if not limit or sqlstate(error) not in _NOT_GRANTED:
                raise
            if attempt == attempts:
                raise CommandError(_refusal(what, limit, attempts, connection)) from error
            logger.warning(
                "%s: no lock within %g s, attempt %d of %d", what, limit, attempt, attempts
            )
        # The writers that waited behind this go first.
        time.sleep(limit)


@contextmanager
def _limited(connection: BaseDatabaseWrapper, seconds: float) -> Iterator[None]:
    """Set ``lock_timeout`` for a block of a transaction; a rollback restores it, too."""
    if not seconds:
        yield
        return
    with own_cursor(connection) as cursor:
        cursor.execute("SHOW lock_timeout")
        ((before,),) = cursor.fetchall()
        cursor.execute(_SET, [f"{max(1, round(seconds * 1000))}ms"])
    yield
    with own_cursor(connection) as cursor:
        cursor.execute(_SET, [before])


_SET = "SELECT pg_catalog.set_config('lock_timeout', %s, true)"


def _refusal(what: str, limit: float, attempts: int, connection: BaseDatabaseWrapper) -> str:
    if connection.in_atomic_block:
        return (
            f"{what}: another transaction has held a lock of the table for more than {limit:g} s "
            '(BULKSAFE["LOCK_TIMEOUT"]). The migration is rolled back and nothing has changed. '
            "Run migrate again; or set “atomic = False” on the migration, and each of its "
            "operations is a transaction of its own that is tried again."
        )
    return (
        f"{what}: in {attempts} attempts, other transactions have held a lock of the table for "
        f'more than {limit:g} s (BULKSAFE["LOCK_TIMEOUT"]). End the long transactions on it '
        "(pg_stat_activity, pg_blocking_pids), and run the command again."
    )
