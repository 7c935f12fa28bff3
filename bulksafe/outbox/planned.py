"""Lets PostgreSQL keep the plan of a query that is run over and over."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import psycopg
from django.db import connections

if TYPE_CHECKING:
    from collections.abc import Mapping

#: psycopg's ``prepare_threshold`` that prepares only the statements for which this is requested.
ON_REQUEST = sys.maxsize

#: The number of new events after which a query is planned again.
_GROWTH = 1000
#: How many plans a connection keeps; each takes a quarter of a megabyte on the server.
_MOST = 4


class Planned:
    """Runs one query, which takes longer to plan than to execute.

    Its parameters seldom change and are part of the statement, so the plan is the same as without
    preparing it. psycopg prepares it at its second run, where the connection's
    ``prepare_threshold`` is ``ON_REQUEST``.

    Args:
        using: the database.
    """

    def __init__(self, using: str) -> None:
        self._using = using
        self._connection: psycopg.Connection[Any] | None = None
        self._is_direct = False
        self._statements: set[str] = set()
        self._generation = 0

    def rows(self, text: str, parameters: Mapping[str, Any], events: int) -> list[tuple[Any, ...]]:
        """The rows that the query returns.

        Args:
            text: the query.
            parameters: its parameters.
            events: how many events there have been. A plan for small tables must not be kept when
                they have grown: it may scan them.
        """
        wrapper = connections[self._using]
        wrapper.ensure_connection()
        with wrapper.wrap_database_errors:
            self._use(wrapper.connection)
            self._forget_old(events)
            statement = psycopg.ClientCursor(wrapper.connection).mogrify(text, parameters)
            statement += f"\n-- {self._generation}"
            is_repeated = statement in self._statements
            self._statements.add(statement)
            with psycopg.Cursor(wrapper.connection) as cursor:
                cursor.execute(statement, prepare=is_repeated and self._is_direct)
                return cursor.fetchall()

    def _use(self, connection: psycopg.Connection[Any]) -> None:
        if connection is self._connection:
            return
        self._connection = connection
        self._statements.clear()
        if connection.prepare_threshold == ON_REQUEST:
            connection.prepared_max = _MOST
        # A pooler has process numbers of its own. It may run each transaction in another server
        # process, which does not know the prepared statement.
        ((process,),) = connection.execute("SELECT pg_backend_pid()").fetchall()
        self._is_direct = process == connection.info.backend_pid

    def _forget_old(self, events: int) -> None:
        if events // _GROWTH != self._generation:
            self._generation = events // _GROWTH
            self._statements.clear()
