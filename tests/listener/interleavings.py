"""Transactions that commit in another order than they begin, number their events or write.

Each is a generator that yields whenever a reader looks; what it does in between is exactly what it
says, on connections of its own.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager

import psycopg

from examples import server


@contextmanager
def sessions(site, number):
    """Connections, each with a transaction that begins with its first statement."""
    with ExitStack() as stack:
        url = server.database_url(site.aliases["default"])
        yield [stack.enter_context(psycopg.connect(url)) for _ in range(number)]


def begin(session):
    """Take a transaction number, without writing anything."""
    session.execute("SELECT pg_current_xact_id()")


def count(session, row):
    session.execute("UPDATE counting_counter SET version = version + 1 WHERE id = %s", [row])


def lower_number_commits_later(site, one, other):
    with sessions(site, 2) as (slow, fast):
        count(slow, one)
        count(fast, other)
        fast.commit()
        yield
        slow.commit()
        yield


def older_transaction_writes_later(site, one, other):
    with sessions(site, 2) as (old, young):
        begin(old)
        count(young, one)
        young.commit()
        yield
        count(old, one)
        old.commit()
        yield


def older_transaction_is_read_first(site, one, other):
    with sessions(site, 3) as (old, bystander, young):
        begin(old)
        begin(bystander)
        count(young, one)
        young.commit()
        count(old, one)
        old.commit()
        yield
        bystander.commit()
        yield


def newest_transaction_is_running(site, one, other):
    """Its number is no lower than the snapshot's xmax, though it has numbered an event."""
    with sessions(site, 2) as (early, newest):
        count(early, one)
        count(newest, other)
        early.commit()
        yield
        newest.commit()
        yield


def newest_transaction_goes_on(site, one, other):
    """It writes before and after it is seen running, for two looks."""
    with sessions(site, 3) as (early, late, newest):
        count(early, one)
        count(newest, other)
        early.commit()
        yield
        count(late, one)
        count(newest, other)
        late.commit()
        yield
        newest.commit()
        yield


def numbers_are_taken_back(site, one, other):
    """A savepoint and a transaction are rolled back; their numbers are gone."""
    with sessions(site, 3) as (slow, undone, fast):
        count(slow, one)
        slow.execute("SAVEPOINT mind")
        count(slow, one)
        slow.execute("ROLLBACK TO SAVEPOINT mind")
        count(undone, other)
        undone.rollback()
        count(fast, other)
        fast.commit()
        yield
        count(slow, one)
        slow.commit()
        yield


ALL = (
    lower_number_commits_later,
    older_transaction_writes_later,
    older_transaction_is_read_first,
    newest_transaction_is_running,
    newest_transaction_goes_on,
    numbers_are_taken_back,
)
