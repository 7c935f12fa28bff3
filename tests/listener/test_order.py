"""Each row's changes reach receivers once each, in the order in which they were made."""

import random
from itertools import count
from threading import Thread

import psycopg
import pytest

from bulksafe.outbox.known import Known
from bulksafe.outbox.queries import query
from examples import server
from tests.listener import interleavings
from tests.listener.oracle import Verdict, judge
from tests.listener.readers import BehindOldest, BySequence
from tests.listener.site import wait_until
from tests.listener.writers import Traffic

pytestmark = pytest.mark.once

# The oracle.


@pytest.mark.parametrize(
    ("calls", "verdict"),
    [
        ([(1, None, 0), (1, 0, 1), (1, 1, 2)], Verdict()),
        ([(1, None, 0), (1, 1, 2)], Verdict(lost=[(1, 1)])),
        ([(1, None, 0), (1, 0, 1), (1, 0, 1), (1, 1, 2)], Verdict(doubled=[(1, 1)])),
        ([(1, None, 0), (1, 1, 2), (1, 0, 1)], Verdict(swapped=[(1, 1)])),
        ([(1, None, 0), (1, 0, 1), (1, 0, 2), (1, 1, 2)], Verdict(wrong=[(1, 0, 2)])),
        ([(1, None, 0), (1, 0, 1), (1, 1, 2), (1, 2, 3)], Verdict(wrong=[(1, 2, 3)])),
        ([(1, None, 0), (1, 0, 1), (1, 1, 2), (7, None, 0)], Verdict(wrong=[(7, None, 0)])),
    ],
)
def test_the_oracle_judges(calls, verdict):
    assert judge({1: 2}, calls) == verdict
    assert verdict.is_exactly_once == (verdict == Verdict())


# Readers that use numbers, and the one that uses snapshots.

#: What each reader makes of each interleaving, for the rows "one" and "other".
MISTAKES = {
    ("by sequence", "lower_number_commits_later"): Verdict(lost=[("one", 1)]),
    ("by sequence", "newest_transaction_goes_on"): Verdict(lost=[("other", 1)]),
    ("by sequence", "numbers_are_taken_back"): Verdict(lost=[("one", 1)]),
    ("behind the oldest, by number", "older_transaction_is_read_first"): Verdict(
        swapped=[("one", 1)]
    ),
    ("behind the oldest, by transaction", "older_transaction_writes_later"): Verdict(
        swapped=[("one", 1)]
    ),
    ("behind the oldest, by transaction", "older_transaction_is_read_first"): Verdict(
        swapped=[("one", 1)]
    ),
}


@pytest.mark.parametrize("interleaving", interleavings.ALL, ids=lambda one: one.__name__)
def test_interleaving(site, interleaving):
    readers = {
        "by sequence": BySequence(),
        "behind the oldest, by number": BehindOldest("seq"),
        "behind the oldest, by transaction": BehindOldest("xid, seq"),
    }

    def read():
        site.listen_once("--queues", "default")
        with site.connect() as connection:
            for reader in readers.values():
                reader.read(connection)

    one, other = site.rows_of_a_bucket(2)
    names = {one: "one", other: "other"}
    read()
    for _ in interleaving(site, one, other):
        read()

    def named(verdict):
        return Verdict(
            *([(names[row], *rest) for row, *rest in found] for found in vars(verdict).values())
        )

    found = {name: judge(site.versions(), reader.calls) for name, reader in readers.items()}
    assert {(name, interleaving.__name__): named(v) for name, v in found.items()} == {
        (name, interleaving.__name__): MISTAKES.get((name, interleaving.__name__), Verdict())
        for name in readers
    }
    assert site.verdict() == Verdict()


def test_a_queue_begins_with_the_transactions_then_running(site):
    """A new queue delivers what commits after its start, even if it was written before."""
    one, other = site.rows_of_a_bucket(2)
    site.listen_once("--queues", "default")
    site.run("DELETE FROM bulksafe_cursor WHERE queue = 'outside'")
    with interleavings.sessions(site, 2) as (early, newest):
        interleavings.count(early, one)
        interleavings.count(newest, other)
        early.commit()
        site.listen_once("--queues", "outside")
        assert site.seen_outside() == []
        newest.commit()
    site.listen_once("--queues", "outside")
    assert site.seen_outside() == [(other, 0, 1)]


def test_a_cursor_is_claimed_as_it_was_locked(site):
    """Between the beginning of a claim and the lock, another worker moves the cursor on."""
    (row,) = site.add_rows(1)
    work = "(SELECT pg_advisory_xact_lock(7)) IS NOT NULL"
    known = Known(lanes={("default", True): ()})
    parameters = {"atomic": True, "limit": 100, "stale": 0, **known.lane_parameters}
    claimed = []

    def claim():
        with site.connect() as connection, connection.transaction():
            text = query("claim").replace(query("work"), work).replace("{unlimited}", "NULL")
            claimed.extend(connection.execute(text, parameters).fetchall())

    with site.connect() as gate:
        gate.execute("SELECT pg_advisory_lock(7)")
        thread = Thread(target=claim)
        thread.start()
        try:
            waiting = (
                "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted"
            )
            wait_until(lambda: site.run(waiting), "the claim does not wait in its midst")
            site.listen_once("--queues", "default")
            assert site.seen() == [(row, None, 0)]
        finally:
            gate.execute("SELECT pg_advisory_unlock(7)")
            thread.join(60)
    now = site.run("SELECT bucket, lower::text FROM bulksafe_cursor WHERE queue = 'default'")
    assert sorted(row[9:11] for row in claimed) == sorted(now)
    assert not all(is_current for _, is_current, *_ in claimed)


# Several writers, several workers.


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_traffic(site, processes):
    """Early numbers, savepoints, rollbacks, triggers that write again: +1, +1, +1 for each row."""
    # Small batches: much has to be right at their borders.
    site.bulksafe["BATCH_SIZE"] = 40
    site.let_users_count_on()
    traffic = Traffic(server.database_url(site.aliases["default"]), site.add_rows(24), processes)
    with site.listening("--queues", "default", "--concurrency", str(processes)) as listener:
        traffic.start(writers=5, transactions=40)
        traffic.join()
        site.wait_until_delivered(listener=listener)
    site.listen_once("--queues", "default")
    assert sum(site.versions().values()) > 500
    assert site.verdict() == Verdict(), listener.said
    assert site.run("SELECT count(*) FROM bulksafe_parked") == [(0,)], listener.said


def test_a_row_that_is_changed_many_times_in_a_transaction(site):
    """A trigger of the user's own changes it again each fourth time, and is captured first."""
    site.bulksafe["BATCH_SIZE"] = 40
    site.let_users_count_on()
    one, other = site.rows_of_a_bucket(2)
    with interleavings.sessions(site, 1) as (session,):
        for number in range(60):
            interleavings.count(session, one if number % 3 else other)
        session.commit()
    site.listen_once("--queues", "default")
    assert site.verdict() == Verdict()


# Waking up. A lost wake-up would show after an hour only, so it shows as a timeout.

NEVER = 3600


@pytest.fixture
def drowsy(site):
    site.bulksafe["POLL_INTERVAL"] = NEVER
    return site


def test_a_sleeper_is_woken(drowsy):
    with drowsy.listening("--queues", "default") as listener:
        for _ in range(5):
            drowsy.wait_until_asleep()
            drowsy.add_rows(1)
            drowsy.wait_until_delivered(listener=listener)


def test_no_listener_sleeps_while_a_writer_is_active(drowsy):
    """It sent no notification, since no listener slept when it wrote."""
    (row,) = drowsy.add_rows(1)
    with interleavings.sessions(drowsy, 1) as (writer,):
        interleavings.count(writer, row)
        with drowsy.listening("--queues", "default") as listener:
            wait_until(lambda: drowsy.seen() == [(row, None, 0)], lambda: listener.said)
            writer.commit()
            drowsy.wait_until_delivered(listener=listener)
    assert drowsy.verdict() == Verdict()


def test_a_writer_that_rolls_back_wakes_listeners_again(drowsy):
    (row,) = drowsy.add_rows(1)
    with drowsy.listening("--queues", "default") as listener:
        drowsy.wait_until_delivered(listener=listener)
        drowsy.wait_until_asleep()
        with interleavings.sessions(drowsy, 1) as (writer,):
            interleavings.count(writer, row)
            writer.rollback()
            interleavings.count(writer, row)
            drowsy.run("UPDATE counting_counter SET version = version WHERE id <> %s", row)
            writer.commit()
        drowsy.wait_until_delivered(listener=listener)
    assert drowsy.verdict() == Verdict()


@pytest.mark.parametrize("processes", [1, 3])
def test_no_wake_up_is_lost(drowsy, processes):
    """Writers write again at the very moment at which the listener is about to sleep."""
    rows = drowsy.add_rows(2)
    failures = []
    url = server.database_url(drowsy.aliases["default"])
    seen = "SELECT FROM counting_seen WHERE counter = %s AND new = %s"
    notices = []

    def write(row, listener):
        try:
            pauses = random.Random(row)
            with psycopg.connect(url, autocommit=True) as connection:
                for version in count(1):
                    # Long enough for the listener to have slept often, and to have been woken.
                    if version > 80 and len(notices) > 20:
                        break
                    interleavings.count(connection, row)
                    wait_until(
                        lambda version=version: connection.execute(seen, [row, version]).fetchall(),
                        lambda version=version: (
                            f"no listener was woken for {version}: {listener.said}"
                        ),
                        every=pauses.uniform(0.0005, 0.01),
                    )
        except BaseException as error:
            failures.append(error)

    with psycopg.connect(url, autocommit=True) as ear:
        ear.execute("LISTEN bulksafe")
        with drowsy.listening("--queues", "default", "--concurrency", str(processes)) as listener:
            drowsy.wait_until_asleep()
            threads = [Thread(target=write, args=[row, listener]) for row in rows]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                notices.extend(ear.notifies(timeout=0.1))
            assert not failures, failures
            drowsy.wait_until_delivered(listener=listener)
    assert drowsy.verdict() == Verdict()
