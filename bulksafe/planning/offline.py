"""Django's PostgreSQL compiler without a server, so that migrations can be created anywhere."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, cast

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.utils import load_backend

from bulksafe.compat import OLDEST_POSTGRESQL
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Iterable


@cache
def connection() -> DatabaseWrapper:
    """A PostgreSQL connection that is never opened.

    It uses the project's own backend class, so PostGIS types and others work. It has the features
    of the oldest supported server, so the SQL is the same everywhere.
    """
    backend = _backend()

    class Operations(backend.ops_class):  # type: ignore[misc, name-defined]
        def compose_sql(self, sql: str, params: Iterable[object] | None) -> str:
            return inline(sql, params)

    class Connection(backend):  # type: ignore[misc, valid-type]
        ops_class = Operations
        pg_version = OLDEST_POSTGRESQL

        def connect(self) -> None:
            raise AssertionError("compiling an invariant must not need a database connection")

    return Connection({"OPTIONS": {}, "TIME_ZONE": None, "NAME": "offline"}, DEFAULT_DB_ALIAS)


def _backend() -> type[DatabaseWrapper]:
    for configured in settings.DATABASES.values():
        wrapper = load_backend(configured["ENGINE"]).DatabaseWrapper
        if issubclass(wrapper, DatabaseWrapper):
            return cast("type[DatabaseWrapper]", wrapper)
    return DatabaseWrapper


def inline(sql: str, params: Iterable[object] | None) -> str:
    """``sql`` with its ``%s`` replaced by literals."""
    return sql % tuple(quoting.literal(param) for param in params) if params else sql % ()
