"""Connections that receivers share: no receiver may close one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakSet

from bulksafe.exceptions import BrokenTransaction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

#: Django connections whose open transaction receivers share.
_shared: WeakSet[BaseDatabaseWrapper] = WeakSet()


@contextmanager
def open_connection(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Wrap the calls of receivers that share the open transaction of a Django connection."""
    _shared.add(connection)
    try:
        yield
    finally:
        _shared.discard(connection)


def check_close(connection: BaseDatabaseWrapper) -> None:
    """Called before a Django connection is closed.

    Raises:
        BrokenTransaction: receivers share its transaction, which is still usable.
    """
    if connection in _shared and not is_lost(connection) and not connection.connection.broken:
        raise BrokenTransaction(
            "A receiver closes a connection that it shares with other receivers. "
            "Remove the close() call, or "
            "declare it with atomic=False."
        )


def is_lost(connection: BaseDatabaseWrapper) -> bool:
    """Whether a Django connection has no open driver connection."""
    driver = connection.connection
    return driver is None or bool(driver.closed)
