"""Tests that need no server. One that reaches for a database fails, also where a server runs."""

import psycopg
import pytest

_SERVER = frozenset(["db", "transactional_db", "django_db_setup", "postgres"])


@pytest.fixture(autouse=True)
def no_server(request, monkeypatch):
    needed = _SERVER.intersection(request.fixturenames)
    if needed or request.node.get_closest_marker("django_db"):
        pytest.fail(f"{request.node.nodeid} needs a server: it does not belong in tests/unit")
    for owner in (psycopg, psycopg.Connection):
        monkeypatch.setattr(owner, "connect", _refuse)
    # For the processes that a test starts.
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("PGHOST", "/tests/unit/has/no/server")


def _refuse(*arguments, **options):
    pytest.fail("a test in tests/unit opens a connection to a database")
