"""Receivers in the writer's transaction in tests whose commits are real.

Import the fixtures ``_django_db_helper``, ``clean`` and ``committed`` into the test module. The
tables are emptied by hand: a flush after each test would take a hundred times as long as the test.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection, connections

from bulksafe import syncdb
from bulksafe.writer import vocabulary
from examples import server
from tests.apps.edges import models as edges
from tests.apps.practice import models
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import Log
from tests.integration import inline

TICKET = "bulksafe_ticket_open"
ARTICLES = Article._meta.db_table

#: The tables that tests write to, in both databases.
TABLES = [
    model._meta.db_table
    for model in (
        models.CriticalArticle,
        models.CriticalShelf,
        models.CriticalBook,
        models.CriticalTag,
        models.CriticalBook.tags.through,
        models.CriticalNode,
        models.PlainArticle,
        models.PlainShelf,
        models.Log,
        edges.Stamped,
        edges.Low,
        edges.Beside,
        edges.Top,
        edges.Pet,
        edges.Line,
        edges.Owner,
        edges.Pair,
        edges.Tracked,
        edges.Thing,
        edges.Keyed,
        edges.Placed,
    )
]

OWN_TABLES = [
    "bulksafe_outbox",
    "bulksafe_parked",
    "bulksafe_violation",
    "bulksafe_buffer",
    "bulksafe_ticket",
]

#: Emptying small tables takes less time than truncating them. The triggers do not fire, and the
#: receiver names are reset to the module's initial ones.
RESET = "; ".join(
    [
        "BEGIN",
        "SET LOCAL session_replication_role = replica",
        *(f"DELETE FROM {table}" for table in (*TABLES, *OWN_TABLES)),
        "DELETE FROM bulksafe_receiver",
        "INSERT INTO bulksafe_receiver TABLE receivers_of_the_module",
        "COMMIT",
    ]
)

WAITING = "SELECT (SELECT count(*) FROM bulksafe_buffer), (SELECT count(*) FROM bulksafe_ticket)"

TRIGGERS = """
SELECT format('DROP TRIGGER %%I ON %%s', tgname, tgrelid::regclass)
FROM pg_trigger
WHERE tgrelid IN (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name) AND NOT tgisinternal
"""


@pytest.fixture(scope="module")
def committed(django_db_setup, django_db_blocker) -> Iterator[dict[str, psycopg.Connection]]:
    """Databases in which commits are commits, for all the tests of a module.

    It is a session for each database that puts things in order between the tests. The connections
    that Django has would have to open again for that after each test, in both databases.
    """
    with django_db_blocker.unblock():
        sessions: dict[str, psycopg.Connection] = {}
        yield sessions
        for session in sessions.values():
            session.close()


@pytest.fixture
def _django_db_helper(committed) -> None:
    """Stands in for what pytest-django does to a test that is marked ``django_db``."""


@pytest.fixture(autouse=True)
def clean(request, committed) -> Iterator[None]:
    """Empty tables, no receivers but those of the test, and nothing that waits afterwards."""
    marker = request.node.get_closest_marker("django_db")
    aliases = marker.kwargs.get("databases", ["default"])
    for alias in aliases:
        if alias not in committed:
            committed[alias] = _session(alias)
    # Tests look at the driver's connection before they write.
    connection.ensure_connection()
    try:
        with inline.only_these():
            yield
    finally:
        # A test may have left its connection in any state.
        connections.close_all()
        left = [committed[alias].execute(WAITING).fetchone() for alias in aliases]
        for alias in aliases:
            _put_in_order(committed[alias])
            vocabulary.forget(alias)
    assert left == [(0, 0)] * len(aliases)


def _session(alias: str) -> psycopg.Connection:
    syncdb.note_receivers(None, alias)
    url = server.database_url(connections[alias].settings_dict)
    session = psycopg.connect(url, autocommit=True)
    session.execute("CREATE TEMPORARY TABLE receivers_of_the_module AS TABLE bulksafe_receiver")
    _put_in_order(session)
    return session


def _put_in_order(session: psycopg.Connection) -> None:
    triggers = session.execute(TRIGGERS, [TABLES])
    session.execute("; ".join([*(drop for (drop,) in triggers), RESET]))


def waiting(alias: str = "default") -> tuple[int, int]:
    """How many changes are in the buffer, and how many tickets are open."""
    with connections[alias].cursor() as cursor:
        cursor.execute(WAITING)
        return cursor.fetchone()


def critical(signal: Any, sender: Any, function: Any = None, **options: Any) -> Any:
    """As ``inline.critical``; also stores the receiver's name in the database."""
    found = inline.critical(signal, sender, function, **options)
    syncdb.note_receivers(None, "default")
    return found


def execute(sql: str, *params: Any, using: str = "default") -> list[tuple[Any, ...]]:
    """Through Django's cursor."""
    with connections[using].cursor() as cursor:
        cursor.execute(sql, params or None)
        return cursor.fetchall() if cursor.description else []


def titles(using: str = "default") -> list[str]:
    return sorted(Article.objects.using(using).values_list("title", flat=True))


def noted() -> list[str]:
    """What receivers have logged, in order."""
    return list(Log.objects.order_by("pk").values_list("text", flat=True))


def raw() -> Any:
    """The driver's connection, past all that Django does."""
    connection.ensure_connection()
    return connection.connection


def insert(title: str = "raw", table: str = ARTICLES) -> str:
    """SQL for a new article: only what has no default in the database is given."""
    names = [field for field in Article._meta.local_concrete_fields if not field.primary_key]
    values = ", ".join(
        f"'{title}'" if field.name == "title" else _literal(field.get_default()) for field in names
    )
    columns = ", ".join(f'"{field.column}"' for field in names)
    return f"INSERT INTO {table} ({columns}) VALUES ({values})"


def _literal(value: Any) -> str:
    return "'{}'" if isinstance(value, dict) else f"'{value}'"


def uninstall(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(TRIGGERS, [TABLES])
        for (drop,) in cursor.fetchall():
            cursor.execute(drop)
