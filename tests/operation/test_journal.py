"""The start of a batch is stored while its images are read, and before its first call."""

import pytest

from tests.operation.conftest import order, texts
from tests.operation.processes import listening, wait_until

pytestmark = pytest.mark.once

#: Notes the marker of its own batch, which a different connection must have committed by then.
RECEIVERS = """
import bulksafe
from django.db import connection
from django.db.models.signals import post_save
from shop.models import Log, Order

@bulksafe.critical(post_save, sender=Order, run="after_commit", dispatch_uid="mark")
def mark(sender, instance, **kwargs):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) > 0 FROM bulksafe_started JOIN bulksafe_cursor AS c "
            "USING (queue, atomic, bucket) WHERE bulksafe_started.batch > c.batch"
        )
        ((marked,),) = cursor.fetchall()
    Log.objects.create(text=f"{instance.number} marked {marked}")
"""

WAITING = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'bulksafe journal'
  AND wait_event_type = 'Lock'
"""

#: Run before each marker is stored.
BEFORE = """
CREATE OR REPLACE FUNCTION before_marker() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {deed};
END $$
"""
TRIGGER = """
CREATE TRIGGER before_marker BEFORE INSERT OR UPDATE ON bulksafe_started
EXECUTE FUNCTION before_marker()
"""


@pytest.fixture
def site(shop):
    project = shop(placeholder="")
    # A call that is slow on a busy machine would run alone, and have no marker.
    project.settings('BULKSAFE = {"SLOW_CALL": 60}\n')
    project.write("shop/receivers.py", RECEIVERS)
    project.migrate()
    return project


def test_a_call_waits_for_the_marker_of_its_batch(site):
    with site.connect() as lock, listening(site) as (_, log):
        order(site, "first")
        wait_until(lambda: texts(site), log)

        lock.execute("BEGIN")
        lock.execute("LOCK TABLE bulksafe_started IN SHARE MODE")
        order(site, "second")
        wait_until(lambda: site.run(WAITING), log)
        assert texts(site) == ["first marked True"]
        lock.execute("COMMIT")

        wait_until(lambda: len(texts(site)) == 2, log)

    assert texts(site) == ["first marked True", "second marked True"]


def test_a_marker_that_cannot_be_stored_delays_the_call(site):
    site.run(BEFORE.format(deed="RAISE EXCEPTION 'no marker today'"))
    site.run(TRIGGER)
    with listening(site) as (_, log):
        order(site, "first")
        wait_until(lambda: "no marker today" in log.read_text(), log)
        assert texts(site) == []
        # Not by dropping the trigger, which would wait for the worker, and the marker for that.
        site.run(BEFORE.format(deed="RETURN NULL"))
        wait_until(lambda: texts(site), log)

    assert texts(site) == ["first marked True"]


def test_the_connection_is_lost_while_the_marker_is_stored(site):
    with site.connect() as lock, listening(site) as (_, log):
        lock.execute("BEGIN")
        lock.execute("LOCK TABLE bulksafe_started IN SHARE MODE")
        order(site, "first")
        wait_until(lambda: site.run(WAITING), log)
        ((pid,),) = site.run(WAITING)
        site.run("SELECT pg_terminate_backend(%s)", pid)
        wait_until(lambda: [found for (found,) in site.run(WAITING) if found != pid], log)
        assert texts(site) == []
        lock.execute("COMMIT")

        wait_until(lambda: texts(site), log)

    # In a batch or, if the server stored the marker of the connection that was lost, alone.
    assert [text.partition(" marked ")[0] for text in texts(site)] == ["first"]
