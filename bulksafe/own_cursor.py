"""Cursors for bulksafe's own statements."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

from psycopg import ClientCursor, ServerCursor
from psycopg.client_cursor import ClientCursorMixin

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def own_cursor(connection: Any) -> Iterator[Any]:
    """A cursor that bypasses execute wrappers and all other statement hooks.

    Args:
        connection: Django's connection, whose exceptions it raises.
    """
    with connection.wrap_database_errors, ClientCursor(connection.connection) as cursor:
        yield cursor


class _Portal(ClientCursorMixin[Any], ServerCursor[Any]):
    """A server-side cursor with parameters in the text, as on Django's cursors."""


_numbers = count(1)


@contextmanager
def own_portal(connection: Any) -> Iterator[Any]:
    """The same, with a result that the server keeps: for the open transaction.

    Its errors are the driver's.
    """
    with _Portal(connection.connection, f"bulksafe_{next(_numbers)}") as cursor:
        yield cursor
