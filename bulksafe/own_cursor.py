"""A cursor for bulksafe's own statements."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psycopg import ClientCursor

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
