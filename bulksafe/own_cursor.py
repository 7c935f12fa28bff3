"""Cursors for bulksafe's own statements."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Self

from psycopg import ClientCursor, ServerCursor
from psycopg.client_cursor import ClientCursorMixin

from bulksafe.joining import Joining

if TYPE_CHECKING:
    from collections.abc import Iterator


#: Lists bulksafe's own queries, which Django does not log.
logger = logging.getLogger("bulksafe.sql")


class _OwnCursor(Joining, ClientCursor[Any]):
    """A driver cursor that no setting of the connection replaces."""

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Self:
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s; args=%s", query, args[0] if args else None)
        return super().execute(query, *args, **kwargs)


@contextmanager
def own_cursor(connection: Any) -> Iterator[Any]:
    """A cursor that bypasses execute wrappers and all other statement hooks.

    Args:
        connection: Django's connection, whose exceptions it raises.
    """
    with connection.wrap_database_errors, _OwnCursor(connection.connection) as cursor:
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
