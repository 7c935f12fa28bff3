"""A cursor that another worker moves while it is being claimed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from django.db import connection, transaction

from bulksafe.outbox.cursors import BUCKETS
from bulksafe.outbox.known import Known
from bulksafe.outbox.store import Store
from examples.server import database_url
from tests.operation.processes import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

LANE = ("claimed", True)

#: The claim calls it before it locks a cursor, and waits there while the gate is closed.
GATE = """
CREATE SCHEMA gate;
CREATE FUNCTION gate.jsonb_each_text(jsonb, OUT key text, OUT value text)
RETURNS SETOF record LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(4711);
    RETURN QUERY SELECT * FROM pg_catalog.jsonb_each_text($1);
END $$
"""
WAITING = """
SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted
"""


@pytest.fixture
def others():
    """Opens sessions of their own, in autocommit."""
    opened = []

    def session():
        url = database_url(connection.settings_dict)
        opened.append(psycopg.connect(url, autocommit=True))
        return opened[-1]

    yield session
    for one in opened:
        one.close()
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA gate CASCADE")
        cursor.execute("DELETE FROM bulksafe_cursor WHERE queue = %s", [LANE[0]])


def claimed():
    """A claim whose query has begun when the cursor is moved."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL search_path = gate, pg_catalog, public")
            known = Known(lanes={LANE: ()})
            return Store("default").claim(known, atomic=True, limit=BUCKETS, stale=0)
    finally:
        connection.close()


def test_a_batch_sees_what_the_mover_of_its_cursor_has_done(others):
    """Otherwise it would know nothing of the calls that the other worker has parked."""
    Store("default").create_cursors([LANE])
    mover, gate = others(), others()
    gate.execute(GATE)
    gate.execute("SELECT pg_advisory_lock(4711)")

    with ThreadPoolExecutor(1) as threads, gate:  # closed first, whatever fails
        result = threads.submit(claimed)
        wait_until(lambda: gate.execute(WAITING).fetchall())
        ((moved,),) = mover.execute(
            "UPDATE bulksafe_cursor SET batch = 40, served_at = clock_timestamp() "
            "WHERE queue = %s AND bucket = 7 RETURNING pg_current_xact_id()::text::bigint",
            [LANE[0]],
        )
        gate.execute("SELECT pg_advisory_unlock(4711)")
        start = result.result()

    assert {cursor.bucket: cursor.batch for cursor in start.cursors}[7] == 41
    assert start.snapshot.sees(moved)
