"""The connection that stores the markers of batches."""

from __future__ import annotations

from types import SimpleNamespace

import psycopg
import pytest
from django.db import connection

from bulksafe.listener.journal import DatabaseJournal
from bulksafe.listener.watchdog import Watchdog
from bulksafe.outbox.cursors import Cursor
from bulksafe.outbox.windows import Snapshot, Window
from examples.server import database_url
from tests.operation.processes import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

SESSION = """
SELECT query, wait_event_type = 'Lock' AS is_waiting FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'bulksafe journal'
"""


@pytest.fixture
def journal(monkeypatch):
    """Probed every 50 ms; a slow server does not count as lost."""
    monkeypatch.setattr(Watchdog, "_has_expired", lambda watchdog: False)
    watchdog = Watchdog(patience=0.1)
    journal = DatabaseJournal("default", watchdog)
    yield journal
    journal.close()
    watchdog.close()


def journal_session():
    with connection.cursor() as cursor:
        cursor.execute(SESSION)
        return SimpleNamespace(**dict(zip(("query", "is_waiting"), cursor.fetchone(), strict=True)))


def test_the_server_is_probed_while_a_marker_is_stored(journal):
    """Reading images may take long: a server that is lost meanwhile must be noticed."""
    with psycopg.connect(database_url(connection.settings_dict)) as lock:
        lock.execute("LOCK TABLE bulksafe_started IN SHARE MODE")
        with journal.starting([]):
            wait_until(lambda: journal_session().is_waiting)
            lock.commit()
            wait_until(lambda: journal_session().query == "SELECT 1")


def test_an_error_of_the_block_comes_after_the_marker(journal):
    """So the connection is free for the markers that follow."""
    for _ in range(2):
        with pytest.raises(ValueError, match="unreadable"), journal.starting([]):
            raise ValueError("unreadable")
    with journal.starting([]):
        pass


def test_a_marker_that_comes_late_keeps_that_of_a_later_batch(journal):
    """A worker is killed, and its last statement waits."""
    window = Window(Snapshot(1, 1), 0)
    for batch in (5, 4):
        with journal.starting([Cursor("late", True, 0, window, batch)]):
            pass
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM bulksafe_started WHERE queue = 'late' RETURNING batch")
        assert cursor.fetchall() == [(5,)]
