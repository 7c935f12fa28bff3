"""The execute wrapper that carries the context into the database."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from django.db import DatabaseError, transaction

from bulksafe.call_stack import running
from bulksafe.contexts.identity import identity, in_force
from bulksafe.contexts.setting import IdentitySetting
from bulksafe.sqlstates import sqlstate
from bulksafe.statements import fits_in_transaction, may_write, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper
    from psycopg import Connection
    from psycopg.abc import Query

#: Called with Django's connection before a statement that bypasses execute wrappers.
past_django: list[Callable[[BaseDatabaseWrapper, Query], None]] = []

#: The SQLSTATE of a procedure or DO block that commits.
_COMMITS_ITSELF = "2D000"


class Carrier:
    """Execute wrapper that sets the identity of the writer in the database before a write.

    The identity is the context, with the names of the receivers being called. It is a setting local
    to the transaction: set before the first write, set again where it changes, cleared when its
    block ends before the transaction does. A write in autocommit gets a transaction.

    It stays set after a receiver's call, since the next call is usually of the same receiver. The
    next statement that may write corrects it, including statements of driver cursors.

    Attributes:
        connection: Django's.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self._setting = IdentitySetting(connection)
        self.begin()

    def begin(self) -> None:
        """Track a new driver connection."""
        self._setting.begin()
        driver = self.connection.connection
        if driver is not None:
            _carriers[driver] = ref(self)

    def end(self) -> None:
        """The transaction has ended, and the setting with it."""
        self._setting.end()

    def __call__(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        if not self._has_work():
            return execute(sql, params, many, context)
        text = sql if type(sql) is str else text_of(sql, self.connection)
        run = functools.partial(execute, sql, params, many, context)
        needs_transaction = self.prepare(text)
        with self._setting.seen():
            result = self._run_alone(run) if needs_transaction else run()
        self._setting.follow(text, params)
        return result

    def notice(self, statement: Query) -> None:
        """A driver cursor is about to send a statement: correct the identity for it."""
        if self._setting.is_seen:
            return
        if self._setting.is_set and self._setting.written_by != running():
            self.correct()
        for look in past_django:
            look(self.connection, statement)

    def prepare(self, text: str) -> bool:
        """Set the identity for a statement that may write, if a transaction is open.

        Returns:
            whether the statement needs a transaction of its own to have one.
        """
        if not self._has_work():
            return False
        self._setting.notice_end()
        if not may_write(text):
            return False
        if self._setting.is_in_transaction:
            self._setting.set()
            return False
        return bool(identity()) and fits_in_transaction(text)

    @contextmanager
    def carrying(self, text: str) -> Iterator[None]:
        """Wrap a statement that bypasses execute wrappers."""
        if not self.prepare(text):
            yield
            return
        with transaction.atomic(using=self.connection.alias):
            self._setting.set()
            yield

    def correct(self) -> None:
        """Set the present identity if the open transaction has a different one."""
        self._setting.correct()

    def _run_alone(self, run: Callable[[], Any]) -> Any:
        """Run a statement in a transaction of its own."""
        try:
            with transaction.atomic(using=self.connection.alias):
                self._setting.set()
                return run()
        except DatabaseError as error:
            if sqlstate(error) != _COMMITS_ITSELF:
                raise
        # A procedure that commits fails inside a transaction: it runs without an identity.
        return run()

    def _has_work(self) -> bool:
        return bool(self._setting.is_set or running() or in_force.get())


#: By driver connection: a pool hands these from one Django connection to another.
_carriers: WeakKeyDictionary[Connection[Any], ref[Carrier]] = WeakKeyDictionary()


def notice(driver: Connection[Any], statement: Query) -> None:
    """A driver cursor is about to send a statement.

    Args:
        statement: as psycopg takes it.
    """
    found = _carriers.get(driver)
    carrier = None if found is None else found()
    if carrier is not None:
        carrier.notice(statement)


def carrier_of(connection: BaseDatabaseWrapper) -> Carrier | None:
    """The carrier of a Django connection, if it has one."""
    wrappers = connection.execute_wrappers
    return next((one for one in wrappers if isinstance(one, Carrier)), None)


def carry(sender: object, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Receiver of ``connection_created``: let the connection carry contexts."""
    if connection.vendor != "postgresql":
        return
    carrier = carrier_of(connection)
    if carrier is None:
        connection.execute_wrappers.insert(0, Carrier(connection))
    else:
        carrier.begin()
