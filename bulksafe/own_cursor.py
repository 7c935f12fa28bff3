"""A cursor for bulksafe's own statements."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psycopg import ClientCursor

from bulksafe.joining import Joining

if TYPE_CHECKING:
    from collections.abc import Iterator


class _OwnCursor(Joining, ClientCursor[Any]):
    """A driver cursor that no setting of the connection replaces."""


@contextmanager
def own_cursor(connection: Any) -> Iterator[Any]:
    """A cursor that bypasses execute wrappers and all other statement hooks.

    Args:
        connection: Django's connection, whose exceptions it raises.
    """
    with connection.wrap_database_errors, _OwnCursor(connection.connection) as cursor:
        yield cursor
