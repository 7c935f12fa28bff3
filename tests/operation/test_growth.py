"""Sessions that keep the outbox from being emptied, and how ``doctor`` finds them."""

from contextlib import contextmanager

import psycopg
import pytest

from tests.operation.conftest import change, declare, mend, order, texts
from tests.operation.processes import listening, wait_until

pytestmark = pytest.mark.once

READING = "SELECT count(*) FROM bulksafe_outbox_0"


@pytest.fixture
def site(shop):
    """A shop whose slot 0 is read and holds events, while slot 1 is written to."""
    project = shop(notify="")
    order(project, "one")
    project.manage("bulksafe", "listen", "--once")
    project.run("SELECT setval('bulksafe_outbox_slot', 1)")
    return project


@contextmanager
def holding(project, statement, role=None):
    """Another session in whose transaction the statement was executed."""
    with project.connect() as session:
        session.execute("SET application_name = 'nightly dump'")
        if role:
            session.execute(f"SET ROLE {role}")
        session.execute("BEGIN")
        session.execute(statement)
        yield session.info.backend_pid
        session.execute("ROLLBACK")
        session.execute("SELECT pg_advisory_unlock_all()")


def emptied(project):
    project.manage("bulksafe", "prune")
    return project.run(READING) == [(0,)]


def doctor(project, code=1, held=0):
    return project.manage("bulksafe", "doctor", "--held", str(held), code=code).stdout


@pytest.fixture
def stranger(site):
    """A role that may connect, and nothing else."""
    name = f"stranger_of_{site.prefix}"
    site.run(f"CREATE ROLE {name}")
    yield name
    site.run(f"DROP ROLE {name}")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_advisory_lock(1651862124, 'bulksafe_outbox'::regclass::oid::integer)",
        "SELECT pg_advisory_xact_lock_shared(1651862124, o.oid::integer)"
        " FROM pg_class AS o WHERE o.relname = 'bulksafe_outbox'",
        "SELECT pg_advisory_xact_lock(1651862123, 0)",
    ],
)
def test_a_lock_that_any_role_can_hold_does_not_keep_the_outbox(site, stranger, statement):
    with holding(site, statement, stranger):
        assert emptied(site)


def test_another_role_cannot_hold_the_keepers_lock(site, stranger):
    lock = "SELECT FROM bulksafe_outbox_identity FOR UPDATE"
    with pytest.raises(psycopg.errors.InsufficientPrivilege), holding(site, lock, stranger):
        pass


def test_one_keeper_at_a_time(site):
    with holding(site, "SELECT FROM bulksafe_outbox_identity FOR UPDATE"):
        assert not emptied(site)
    assert emptied(site)


def test_doctor_names_the_process_that_keeps_a_slot_from_being_emptied(site):
    with holding(site, READING) as pid:
        assert not emptied(site)
        found = doctor(site)
        assert "No findings." in doctor(site, code=0, held=3600)

    ((role,),) = site.run("SELECT current_user::text")
    assert "Slot 0 of the outbox is delivered and cannot be emptied: process" in found
    assert f"process {pid} (user '{role}', application 'nightly dump')" in found
    assert "holds AccessShareLock on bulksafe_outbox_0 since 20" in found
    assert f"pg_terminate_backend({pid})" in found
    assert emptied(site)
    assert "No findings." in doctor(site, code=0)


def test_doctor_names_a_prepared_transaction(site):
    with site.connect() as session:
        session.execute("BEGIN")
        session.execute("LOCK TABLE bulksafe_outbox_0 IN ROW EXCLUSIVE MODE")
        session.execute("PREPARE TRANSACTION 'half ''done'")
    try:
        found = doctor(site)
    finally:
        site.run("ROLLBACK PREPARED 'half ''done'")

    assert """the prepared transaction "half 'done\"""" in found
    assert "ROLLBACK PREPARED 'half ''done'" in found
    assert "No findings." in doctor(site, code=0)


def test_a_slot_that_is_not_read_is_no_finding_about_locks(site):
    site.run("SELECT setval('bulksafe_outbox_slot', 0)")
    order(site, "two")
    site.run("SELECT setval('bulksafe_outbox_slot', 1)")
    with holding(site, READING):
        said = doctor(site)
    assert "Events wait in the queue 'default', and no listener serves it." in said
    assert "lock" not in said


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT FROM bulksafe_cursor FOR UPDATE",
        "LOCK TABLE bulksafe_cursor IN SHARE MODE",
        "UPDATE bulksafe_cursor SET served_at = served_at WHERE bucket = 3",
    ],
)
def test_doctor_names_the_process_that_blocks_a_queue(site, statement):
    with holding(site, statement) as pid:
        found = doctor(site)
    assert f"Queues may be blocked: process {pid}" in found
    with holding(site, "SELECT count(*) FROM bulksafe_cursor"):
        assert "No findings." in doctor(site, code=0)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("pg_advisory_xact_lock", "Each writing transaction sends a NOTIFY"),
        ("pg_advisory_lock", "Each writing transaction sends a NOTIFY"),
        ("pg_advisory_lock_shared", "they check 20 times a second meanwhile"),
    ],
)
def test_doctor_names_the_process_that_holds_the_sleepers_lock(site, stranger, function, said):
    site.settings(site.extra_settings + 'BULKSAFE["POLL_INTERVAL"] = 0.01\n')
    with holding(site, f"SELECT {function}(1651862123, 0)", stranger) as pid:
        found = doctor(site)
    assert "Nothing is lost or late" in found
    assert said in found
    assert f"process {pid}" in found


def test_a_sleeping_listener_is_no_finding(site):
    asleep = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'"
    with listening(site) as (_, log):
        wait_until(lambda: site.run(asleep), log)
        assert "No findings." in doctor(site, code=0, held=1.5)


# Logical replication.


@pytest.fixture
def published(site):
    """Every table is published. The server's wal_level makes no difference to what it refuses."""
    site.run("CREATE PUBLICATION everything FOR ALL TABLES")
    return site


def test_every_table_of_ours_can_be_changed_under_a_publication(published):
    """UNLOGGED tables are not published."""
    lacking = published.run("""
        SELECT c.relname
        FROM pg_class AS c
        LEFT JOIN pg_index AS i ON i.indrelid = c.oid AND (
            CASE c.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END
        )
        WHERE c.relname LIKE 'bulksafe%' AND c.relkind = 'r' AND c.relpersistence = 'p'
          AND i.indexrelid IS NULL
    """)
    assert lacking == []


def test_a_field_is_renamed_in_events_that_wait(published):
    order(published, "two", 7)
    path = published.directory / "shop/models.py"
    path.write_text(path.read_text().replace("amount =", "total ="))
    receivers = published.directory / "shop/receivers.py"
    receivers.write_text(receivers.read_text().replace("instance.amount", "instance.total"))
    published.make(answers="y\n")
    published.migrate()

    published.manage("bulksafe", "listen", "--once")

    assert texts(published) == ["notify one 0", "notify two 7"]


def test_a_restored_outbox_is_renumbered(published):
    order(published, "two")
    published.run("UPDATE bulksafe_cursor SET lower = '4000000000:4000000000:'")

    assert "were renumbered" in published.manage("bulksafe", "doctor", "--rebase").stdout


def test_failed_events_and_events_that_writers_hand_over(published):
    declare(published, notify="max_attempts=1")
    path = published.directory / "shop/receivers.py"
    path.write_text(
        path.read_text().replace(
            'run="after_commit"', 'run="in_transaction", otherwise="after_commit"'
        )
    )
    published.make()
    published.migrate()
    order(published, "bad")
    published.manage("bulksafe", "listen", "--once", code=1)
    change(published, "bad", 3)
    mend(published)
    published.manage("bulksafe", "retry", "--all")
    published.manage("bulksafe", "listen", "--once")

    assert texts(published)[1:] == ["notify bad 0", "notify bad 3"]
    assert emptied(published)
