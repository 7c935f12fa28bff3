"""The setting that holds the identity of the writer in the transaction of one connection."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from psycopg.pq import PipelineStatus, TransactionStatus

from bulksafe.call_stack import running
from bulksafe.contexts.identity import identity
from bulksafe.statements import may_set, may_undo_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper
    from psycopg import Connection

_SETTING = "bulksafe.context"
_SET = "SELECT set_config(%s, %s, true)"


class _Here(threading.local):
    """Thread-local state: like connections, it does not belong to a ``contextvars.Context``.

    Attributes:
        settings: the settings that are set in an open transaction.
    """

    def __init__(self) -> None:
        self.settings: WeakSet[IdentitySetting] = WeakSet()


_here = _Here()


def correct() -> None:
    """Set the current identity on this thread's connections that have a different one.

    For statements that bypass execute wrappers. Sends nothing if no identity has been set.
    """
    for setting in tuple(_here.settings):
        setting.correct()


class IdentitySetting:
    """The setting, which is local to the transaction.

    Attributes:
        connection: Django's.
        is_set: whether the open transaction has been given an identity.
        written_by: the receivers that were being called then.
        is_seen: whether the statement being sent has the right identity.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self._known: ref[Connection[Any]] | None = None
        self.is_seen = False
        self.is_set = False
        self.written_by: tuple[str, ...] = ()
        #: The value of the setting; None if unknown.
        self._value: str | None = ""

    def begin(self) -> None:
        """Track a new driver connection."""
        driver = self.connection.connection
        # A strong reference would keep closed connections alive.
        self._known = None if driver is None else ref(driver)
        self.is_seen = False
        self.end()

    def end(self) -> None:
        """The transaction has ended, and the setting with it."""
        self.is_set = False
        self.written_by = ()
        self._value = ""
        _here.settings.discard(self)

    @contextmanager
    def seen(self) -> Iterator[None]:
        """Wrap a statement whose identity is right; a plain read needs none."""
        before, self.is_seen = self.is_seen, True
        try:
            yield
        finally:
            self.is_seen = before

    def set(self) -> None:
        """Set the current identity in the open or beginning transaction."""
        wanted = identity()
        if wanted == self._value or self._status == TransactionStatus.INERROR:
            return
        with self.connection.wrap_database_errors, self.seen():
            # Not through Django's cursor, whose wrappers would be called again.
            self._driver.execute(_SET, [_SETTING, wanted])
        self._value, self.written_by, self.is_set = wanted, running(), True
        _here.settings.add(self)

    def correct(self) -> None:
        """Set the current identity if the open transaction has a different one."""
        if self.is_set and not self.notice_end() and self._is_ready:
            self.set()

    def notice_end(self) -> bool:
        """Whether the transaction with the identity has ended."""
        has_ended = self._status in {TransactionStatus.IDLE, TransactionStatus.UNKNOWN}
        if has_ended and self.is_set:
            self.end()
        return has_ended

    def follow(self, text: str, params: Any) -> None:
        """Track the effect of a statement on the setting."""
        if not self.is_set or self.notice_end():
            return
        if _sets_by_hand(text, params):
            # Inside a block, the next write sets the block's. Outside, it is the user's to set.
            self._value = None if identity() else ""
        elif may_undo_settings(text):
            # At once: a rollback to a savepoint restores the identity of a block that has ended.
            self._value = None
            self.correct()

    @property
    def is_in_transaction(self) -> bool:
        return (
            self.connection.in_atomic_block
            or not self.connection.get_autocommit()
            # Started with a raw BEGIN.
            or self._status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}
        )

    @property
    def _driver(self) -> Any:
        return None if self._known is None else self._known()

    @property
    def _status(self) -> int:
        """The driver's view of the transaction, a ``TransactionStatus``."""
        driver = self._driver
        if driver is None or self.connection.connection is None:
            return TransactionStatus.UNKNOWN
        return int(driver.pgconn.transaction_status)

    @property
    def _is_ready(self) -> bool:
        """Whether a statement can be sent: not after an error, nor during a COPY."""
        if self._status == TransactionStatus.ACTIVE:
            return bool(self._driver.pgconn.pipeline_status != PipelineStatus.OFF)
        return self._status == TransactionStatus.INTRANS


def _sets_by_hand(text: str, params: Any) -> bool:
    if not may_set(text):
        return False
    named = params.values() if isinstance(params, dict) else params or ()
    return _SETTING in text or _SETTING in [one for one in named if isinstance(one, str)]
