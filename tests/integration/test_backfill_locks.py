"""Rows that other transactions hold while a backfill runs."""

import psycopg
import pytest
from django.db import connection

from bulksafe.adoption import backfilling
from bulksafe.adoption.backfilling import Backfill, Options
from bulksafe.adoption.repairing import LOCKED, Repair
from bulksafe.declarations import declared
from examples import server
from tests.apps.twins.models import Entry
from tests.integration.test_backfill import backfill, entries, is_right, messages

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def other():
    """Another session."""
    with psycopg.connect(server.database_url(connection.settings_dict)) as session:
        yield session
        session.rollback()


def test_rows_that_stay_locked_are_listed_and_a_second_run_repairs_them(other, monkeypatch):
    monkeypatch.setattr(backfilling, "PATIENCE", 0.2)
    monkeypatch.setattr(backfilling, "_SPAN", 4)
    entries(Entry, 20, wrong=lambda key: True)
    held = [row.pk for row in Entry.objects.filter(key__in=(9, 11)).order_by("pk")]
    other.execute("SELECT FROM twins_entry WHERE id = ANY (%s) FOR UPDATE", [held])
    report = backfill(Entry)
    assert messages(report) == dict.fromkeys(held, LOCKED)
    assert report.repaired["twins.Entry:compute_net"] == 18
    # It would have to go on from before these rows.
    assert int(report.position) < held[0]
    other.rollback()
    assert backfill(Entry, after=report.position).written == 2
    assert is_right(Entry)


def test_a_lock_on_the_table_makes_it_give_way_and_not_wait(other, monkeypatch):
    """A migration or CREATE INDEX that waits behind it would stop every writer."""
    monkeypatch.setattr(backfilling, "PATIENCE", 0.2)
    entries(Entry, 3, wrong=lambda key: True)
    other.execute("LOCK TABLE twins_entry IN SHARE MODE")
    assert set(messages(backfill(Entry)).values()) == {LOCKED}
    other.rollback()
    assert backfill(Entry).written == 3


def test_a_lock_that_is_given_back_in_time_is_waited_for(other):
    entries(Entry, 6, wrong=lambda key: True)
    other.execute("SELECT FROM twins_entry WHERE key = 2 FOR UPDATE")
    run = Backfill(
        [i for i in declared() if i.label == "twins.Entry:compute_net"], "default", Options()
    )
    for report in run.run():
        if report.repaired["twins.Entry:compute_net"] == 5:
            other.rollback()
    assert (run.report.remaining, run.report.is_complete, is_right(Entry)) == ({}, True, True)


def test_a_transaction_that_an_interruption_left_open_ends_the_backfill(monkeypatch):
    """Otherwise every other row would be tried, and be reported as refused."""
    entries(Entry, 6, wrong=lambda key: True)

    def interrupted(*_):
        # As psycopg leaves the connection when a signal comes before it waits for the answer.
        connection.connection.pgconn.send_query(b"BEGIN")
        raise psycopg.OperationalError("another command is already in progress")

    monkeypatch.setattr(Repair, "_written", interrupted)
    with pytest.raises(psycopg.OperationalError, match="another command"):
        backfill(Entry)
    # The command ends here; the next test needs a connection that is not busy.
    connection.close()
