"""The connection that stores the markers of batches."""

from __future__ import annotations

import pytest
from django.db import connection

from bulksafe.listener.journal import DatabaseJournal
from bulksafe.listener.watchdog import Watchdog
from tests.operation.processes import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

LAST = """
SELECT query FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'bulksafe journal'
"""


@pytest.fixture
def journal(monkeypatch):
    """Its server is asked for an answer often; a busy one is not taken for a lost one."""
    monkeypatch.setattr(Watchdog, "_has_expired", lambda watchdog: False)
    watchdog = Watchdog(patience=0.1)
    journal = DatabaseJournal("default", watchdog)
    yield journal
    journal.close()
    watchdog.close()


def last_query():
    with connection.cursor() as cursor:
        cursor.execute(LAST)
        return cursor.fetchone()[0]


def test_the_server_is_probed_while_a_marker_is_stored(journal):
    """Reading images may take long: a server that is lost meanwhile must be noticed."""
    with journal.starting([]):
        wait_until(lambda: last_query() == "SELECT 1")


def test_an_error_of_the_block_comes_after_the_marker(journal):
    """So the connection is free for the markers that follow."""
    for _ in range(2):
        with pytest.raises(ValueError, match="unreadable"), journal.starting([]):
            raise ValueError("unreadable")
    with journal.starting([]):
        pass
