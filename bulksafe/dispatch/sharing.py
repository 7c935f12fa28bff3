"""Connections that several receivers share: none of them may close one for the others."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakSet

from bulksafe.exceptions import BrokenTransaction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

#: Django's connections whose open transaction receivers share.
_shared: WeakSet[BaseDatabaseWrapper] = WeakSet()


@contextmanager
def open_connection(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Around the calls of receivers that share the open transaction of a connection of Django's."""
    _shared.add(connection)
    try:
        yield
    finally:
        _shared.discard(connection)


def check_close(connection: BaseDatabaseWrapper) -> None:
    """Called before a connection of Django's is closed.

    Raises:
        BrokenTransaction: receivers share its transaction, and it could go on.
    """
    if connection in _shared and not is_lost(connection) and not connection.connection.broken:
        raise BrokenTransaction(
            "A receiver closes the connection that it shares with others: leave that out, or "
            "declare it with atomic=False."
        )


def is_lost(connection: BaseDatabaseWrapper) -> bool:
    """Whether a connection of Django's has none of the driver's, or a closed one."""
    driver = connection.connection
    return driver is None or bool(driver.closed)
