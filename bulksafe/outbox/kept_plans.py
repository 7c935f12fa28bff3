"""Lets PostgreSQL keep the plans of queries that are run over and over."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import psycopg
from django.db import connections

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

logger = logging.getLogger("bulksafe.sql")

#: The number of new events, and the seconds, after which a query is planned again.
_GROWTH, _SECONDS = 1000, 10.0
#: How many plans a connection keeps; each takes a quarter of a megabyte on the server.
_MOST = 4


class KeptPlans:
    """Runs queries that take longer to plan than to execute.

    Their parameters are part of the statement, so each statement has the plan that it would have
    anyway. A statement is prepared when it is run again soon. It is planned again when the tables
    may have grown: a plan for a small table may scan it.

    Nothing is prepared behind a pooler, which may run each transaction in another server process,
    nor on connections with a ``prepare_threshold``, whose statements psycopg manages.

    Args:
        using: the database.
    """

    def __init__(self, using: str) -> None:
        self._using = using
        self._seen: deque[str] = deque(maxlen=_MOST)
        self._connection: psycopg.Connection[Any] | None = None
        self._can_prepare = False

    def rows(self, text: str, parameters: Mapping[str, Any], events: int) -> list[tuple[Any, ...]]:
        """The rows that the query returns.

        Args:
            text: the query.
            parameters: its parameters.
            events: the number of events so far.
        """
        wrapper = connections[self._using]
        wrapper.ensure_connection()
        connection = wrapper.connection
        with wrapper.wrap_database_errors:
            statement = psycopg.ClientCursor(connection).mogrify(text, parameters)
            statement += f"\n-- {events // _GROWTH} {time.monotonic() // _SECONDS:.0f}"
            logger.debug("%s", statement)
            is_repeated = statement in self._seen
            if not is_repeated:
                self._seen.append(statement)
            is_prepared = is_repeated and self._may_prepare(connection)
            with (
                _preparing(connection) if is_prepared else nullcontext(),
                psycopg.Cursor(connection) as cursor,
            ):
                cursor.execute(statement, prepare=is_prepared)
                return cursor.fetchall()

    def _may_prepare(self, connection: psycopg.Connection[Any]) -> bool:
        if connection is not self._connection:
            self._can_prepare = connection.prepare_threshold is None and _is_direct(connection)
            self._connection = connection
        return self._can_prepare


def _is_direct(connection: psycopg.Connection[Any]) -> bool:
    """Whether no pooler is between: a pooler has process numbers of its own."""
    ((process,),) = connection.execute("SELECT pg_backend_pid()").fetchall()
    return bool(process == connection.info.backend_pid)


@contextmanager
def _preparing(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Let psycopg prepare statements inside the block. Receivers share the connection."""
    most = connection.prepared_max
    connection.prepare_threshold, connection.prepared_max = sys.maxsize, _MOST
    try:
        yield
    finally:
        connection.prepare_threshold, connection.prepared_max = None, most
