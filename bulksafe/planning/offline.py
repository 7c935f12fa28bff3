"""Django's PostgreSQL compiler without a server, so that migrations can be made anywhere."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.postgresql.operations import DatabaseOperations

from bulksafe.compat import OLDEST_POSTGRESQL
from bulksafe.rendering import quoting


class _Operations(DatabaseOperations):
    def compose_sql(self, sql: str, params: Any) -> str:
        return inline(sql, params)


class _Connection(DatabaseWrapper):
    """A PostgreSQL connection that is never opened.

    Features are those of the oldest server that is supported: the SQL is the same wherever it is
    made.
    """

    ops_class = _Operations
    pg_version = OLDEST_POSTGRESQL

    def connect(self) -> None:
        raise AssertionError("compiling an invariant must not need a database connection")


@cache
def connection() -> DatabaseWrapper:
    return _Connection({"OPTIONS": {}, "TIME_ZONE": None, "NAME": "offline"}, DEFAULT_DB_ALIAS)


def inline(sql: str, params: Any) -> str:
    """``sql`` with its ``%s`` replaced by literals."""
    return sql % tuple(quoting.literal(param) for param in params) if params else sql % ()
