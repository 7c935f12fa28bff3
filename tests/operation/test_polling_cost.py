"""The cost of polling the outbox: each queue polls at each commit."""

import json

import pytest
from psycopg import ClientCursor

from bulksafe.outbox.known import Known
from bulksafe.outbox.queries import query
from tests.operation.conftest import order, texts
from tests.operation.processes import listening, wait_until

#: More than ``work`` lets a cursor be behind.
MANY = 600
READ = 20_000

ELSEWHERE = """
@bulksafe.critical(post_save, sender=Mended, run="after_commit", queue="elsewhere")
def elsewhere(sender, instance, **kwargs):
    work("elsewhere", Order(number="mended"))
"""

#: Notes how many claims the worker's session has prepared, and does something to the session.
NOTING = """
import bulksafe
from django.db import connection
from django.db.models.signals import post_save
from shop.models import Log, Order

@bulksafe.critical(post_save, sender=Order, run="after_commit", dispatch_uid="note")
def note(sender, instance, **kwargs):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_prepared_statements "
            "WHERE position('SKIP LOCKED' in statement) > 0"
        )
        ((prepared,),) = cursor.fetchall()
        cursor.execute("{deed}")
    Log.objects.create(text=str(prepared))
"""


@pytest.fixture
def site(shop):
    """Two queues: one has a receiver for orders, and the other one has none."""
    project = shop(first="")
    with (project.directory / "shop/receivers.py").open("a") as file:
        file.write(ELSEWHERE)
    project.make()
    project.migrate()
    return project


@pytest.fixture
def known(site):
    ((orders, mended),) = site.run(
        "SELECT 'shop_order'::regclass::oid::bigint, 'shop_mended'::regclass::oid::bigint"
    )
    return Known(
        [("first", orders), ("elsewhere", mended)],
        {("default", True): [orders], ("elsewhere", True): [mended]},
    )


def ready(site, known):
    """The queues whose cursors have work."""
    named = {"queues": ["default", "elsewhere"], **known.lane_parameters}
    with site.connect() as connection:
        rows = ClientCursor(connection).execute(query("ready"), named).fetchall()
    return {queue for queue, has_work, *_ in rows if has_work}


def add_orders(site, number):
    site.run(
        "INSERT INTO shop_order (number, amount) SELECT 'many', n FROM generate_series(1, %s) AS n",
        number,
    )


def test_a_queue_is_not_woken_for_tables_that_it_has_no_receiver_for(site, known):
    order(site, "one")

    assert ready(site, known) == {"default"}
    found = json.loads(site.manage("bulksafe", "status", "--json", code=1).stdout)
    assert [(q["queue"], q["waiting"]) for q in found["queues"]] == [
        ("default", 1),
        ("elsewhere", 0),
    ]
    site.manage("bulksafe", "listen", "--once")
    assert texts(site) == ["first one 0"]
    assert ready(site, known) == set()


def test_a_queue_far_behind_skips_events_of_other_queues(site, known):
    """Otherwise each of its looks would scan them, and their slot could not be emptied."""
    add_orders(site, MANY)
    assert ready(site, known) == {"default", "elsewhere"}

    site.manage("bulksafe", "listen", "--once")

    assert ready(site, known) == set()
    assert len(texts(site)) == MANY
    site.run("SELECT setval('bulksafe_outbox_slot', 1)")
    site.manage("bulksafe", "prune")
    assert site.run("SELECT count(*) FROM bulksafe_outbox_0") == [(0,)]


def test_a_queue_wakes_when_a_transaction_running_at_the_last_poll_ends(site, known):
    with site.connect() as early, early.transaction():
        early.execute("INSERT INTO shop_mended DEFAULT VALUES")
        add_orders(site, 10)
        site.manage("bulksafe", "listen", "--once")
        assert ready(site, known) == set()
    assert ready(site, known) == {"elsewhere"}
    site.manage("bulksafe", "listen", "--once")
    assert "elsewhere mended 0" in texts(site)


@pytest.mark.parametrize("name", ["ready", "claim", "longest_due"])
def test_a_poll_does_not_scan_events_already_read(site, known, name):
    """Also with the statistics of a table of which every event seems to be unread."""
    add_orders(site, READ)
    site.run(
        "UPDATE bulksafe_cursor SET lower = pg_current_snapshot(), "
        "floor = (SELECT last_value FROM bulksafe_outbox_seq)"
    )
    site.run("ANALYZE")
    named = {
        "queues": ["default", "elsewhere"],
        "atomic": True,
        "limit": 4,
        "stale": None,
        **known.parameters,
        **known.lane_parameters,
    }

    scans = [line for line in plan(site, name, named) if " on bulksafe_outbox_0 " in line]
    assert scans
    assert all("Index" in line for line in scans)


def test_a_claim_does_not_scan_the_parked_calls_of_other_queues(site, known):
    site.run(
        "INSERT INTO bulksafe_parked "
        "(queue, atomic, receiver, bucket, source, key, seq, at, operation) "
        "SELECT 'elsewhere', true, 'elsewhere', 0, 'shop_mended'::regclass, n::text, n, now(), 'U' "
        "FROM generate_series(1, %s) AS n",
        READ,
    )
    site.run("ANALYZE")
    ((lane, sources), _) = known.lanes.items()
    named = {"atomic": True, "limit": 4, "stale": None}
    named |= Known(lanes={lane: sources}).lane_parameters

    scans = [line for line in plan(site, "claim", named) if " on bulksafe_parked " in line]
    assert scans
    assert all("Index" in line for line in scans)


@pytest.fixture
def noting(shop):
    """Makes a project whose receiver notes what its session has prepared."""

    def make(deed):
        project = shop(placeholder="")
        project.write("shop/receivers.py", NOTING.format(deed=deed))
        project.migrate()
        return project

    return make


def noted(project):
    """What is noted after one more event."""
    order(project, "one more")
    return texts(project)


def test_a_worker_keeps_the_plan_of_its_claims(noting):
    project = noting("SELECT 1")

    with listening(project) as (_, log):
        wait_until(lambda: "1" in noted(project), log)


def test_a_receiver_that_discards_prepared_statements_delays_nothing(noting):
    project = noting("DEALLOCATE ALL")

    with listening(project) as (_, log):
        wait_until(lambda: noted(project) and "prepared statement" in log.read_text(), log)
        number = len(project.run("SELECT FROM shop_order"))
        wait_until(lambda: len(texts(project)) == number, log)

    assert "connects again" not in log.read_text()
    assert "trying again" not in log.read_text()


def plan(site, name, named):
    """The lines of a query's plan."""
    text = query(name).replace("{unlimited}", "NULL")
    with site.connect() as connection:
        found = ClientCursor(connection).execute(f"EXPLAIN {text}", named).fetchall()
    return [line for (line,) in found]
