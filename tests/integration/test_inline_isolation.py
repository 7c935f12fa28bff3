"""Serialization failures and deadlocks: exactly where a plain write has them."""

from __future__ import annotations

from functools import partial

import psycopg
import pytest
from django.db import connection
from django.db.models import F
from psycopg import IsolationLevel

from examples.server import database_url
from tests.integration.inline_committed import (  # noqa: F401
    _django_db_helper,
    clean,
    committed,
    execute,
)
from tests.integration.interleaving import (  # noqa: F401
    CHANGES,
    CRITICAL,
    NAMES,
    PATIENCE,
    PLAIN,
    ROWS,
    VALUES,
    Side,
    Way,
    changed,
    free,
    opened_sessions,
    other_session,
    outcome,
    returned,
    seen_calls,
    totals,
    wait_until_blocked,
    ways,
)

pytestmark = pytest.mark.django_db(transaction=True)


# 79: REPEATABLE READ and SERIALIZABLE.

#: Each way at one level, and some at the other.
LEVELS = pytest.mark.parametrize(
    ("level", "way"),
    [
        pytest.param(level, way, id=f"{level.name}, {title}")
        for level in (IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE)
        for title, way in CHANGES.items()
        if level is IsolationLevel.REPEATABLE_READ or title in {"update()", "DELETE", "WITH"}
    ],
)


@LEVELS
def test_a_row_that_has_changed_since_the_snapshot_is_refused(way, level, seen, sessions):
    def interleaved(m):
        session = sessions(level)
        session.begin()
        session.run(m.Article.objects.count)
        with other_session() as other:
            other.execute(f"UPDATE {m.articles} SET amount = 1 WHERE id = 1")
        session.begin()
        refused = session.run(lambda: outcome(lambda: way.write(m)))
        session.end(is_rollback=True)
        # The transaction goes on after its savepoint.
        still = session.run(lambda: totals(m))
        session.end()
        return refused, still, totals(m)

    found = interleaved(CRITICAL)
    assert found == interleaved(PLAIN)
    assert found[0] == "40001"
    assert seen.rows == []


@LEVELS
def test_an_unrelated_new_or_changed_row_refuses_nothing(way, level, seen, sessions):
    def interleaved(m):
        session = sessions(level)
        session.begin()
        session.run(m.Article.objects.count)
        with other_session() as other:
            other.execute(f"UPDATE {m.articles} SET amount = 1 WHERE id = 3")
            other.execute(f"INSERT INTO {m.articles} (id, total, {NAMES}) VALUES (0, 0, {VALUES})")
        result = session.run(lambda: outcome(lambda: way.write(m)))
        session.end()
        return result, totals(m)

    assert interleaved(CRITICAL) == interleaved(PLAIN)
    assert len(seen.rows) == 2


@LEVELS
def test_a_write_that_waits_is_refused_if_the_row_has_changed(way, level, seen, sessions):
    def interleaved(m, end):
        session = sessions(level)
        with other_session() as other:
            other.execute("BEGIN")
            other.execute(f"UPDATE {m.articles} SET amount = 1 WHERE id = 1")
            session.begin()
            future = session.start(lambda: outcome(lambda: way.write(m)))
            wait_until_blocked(session.pid, other.info.backend_pid, future)
            other.execute(end)
            found = future.result(PATIENCE)
        session.end(is_rollback=isinstance(found, str))
        return found, totals(m)

    found = interleaved(CRITICAL, "COMMIT")
    assert found == interleaved(PLAIN, "COMMIT")
    assert found[0] == "40001"
    assert seen.rows == []
    assert interleaved(CRITICAL, "ROLLBACK") == interleaved(PLAIN, "ROLLBACK")
    assert len(seen.rows) == 2


@pytest.mark.xfail(
    reason="psycopg applies isolation_level to the transactions that it begins: a plain update() "
    "in autocommit has none of its own, and one with receivers has",
    strict=True,
)
def test_a_write_in_autocommit_has_the_level_of_a_plain_one(seen, sessions):
    def interleaved(m):
        session = sessions(IsolationLevel.REPEATABLE_READ)
        with other_session() as other:
            other.execute("BEGIN")
            other.execute(f"UPDATE {m.articles} SET amount = 1 WHERE id = 1")
            future = session.start(lambda: outcome(lambda: m.Article.objects.update(total=9)))
            wait_until_blocked(session.pid, other.info.backend_pid, future)
            other.execute("COMMIT")
            return future.result(PATIENCE)

    assert interleaved(CRITICAL) == interleaved(PLAIN)


@LEVELS
def test_nothing_that_is_read_changes_while_the_receivers_run(way, level, seen, sessions):
    """A later change is not in the snapshot, neither before nor after the write."""

    def change(m):
        with other_session() as other:
            other.execute(f"UPDATE {m.shelves} SET pages = 77")

    found = []
    seen.between = lambda: (change(CRITICAL), found.append(CRITICAL.Shelf.objects.get(pk=1).pages))
    session = sessions(level)
    session.begin()
    result = session.run(lambda: outcome(lambda: way.write(CRITICAL)))
    found.append(session.run(lambda: CRITICAL.Shelf.objects.get(pk=1).pages))
    session.end()

    assert result == way.write(PLAIN)
    assert found == [10, 10]
    assert totals(CRITICAL) == totals(PLAIN)


def two_transactions(m, sessions, steps):
    """Two SERIALIZABLE transactions, whose steps alternate; whether each of them is refused."""
    both = [sessions(IsolationLevel.SERIALIZABLE) for _ in range(2)]
    refused = ["", ""]
    for session in both:
        session.begin()
    for step in steps:
        for number, session in enumerate(both):
            if not refused[number]:
                found = session.run(lambda step=step, n=number: outcome(lambda: step(m, n)))
                refused[number] = found if isinstance(found, str) else ""
    for number, session in enumerate(both):
        found = outcome(partial(session.end, is_rollback=bool(refused[number])))
        refused[number] = refused[number] or found or ""
    return refused


#: What two transactions do, each to its own row.
SERIALIZED = {
    "disjoint rows": [lambda m, n: m.Article.objects.filter(pk=n + 1).update(total=9)],
    "disjoint rows, SQL": [
        lambda m, n: execute(f"UPDATE {m.articles} SET total = 9 WHERE id = {n + 1}")
    ],
    "disjoint rows, WITH": [
        lambda m, n: execute(
            f"WITH one AS (SELECT {n + 1} AS id) UPDATE {m.articles} AS a SET total = 9 FROM one "
            "WHERE a.id = one.id"
        )
    ],
    "write skew": [
        lambda m, n: m.Article.objects.filter(pk=2 - n).get().pk,
        lambda m, n: m.Article.objects.filter(pk=n + 1).update(total=9),
    ],
    "both read, one row each": [
        lambda m, n: m.Article.objects.count(),
        lambda m, n: m.Article.objects.filter(pk=n + 1).update(total=9),
    ],
}


@pytest.mark.parametrize("steps", SERIALIZED.values(), ids=SERIALIZED)
def test_serializable_transactions_are_refused_where_plain_ones_are(steps, seen, sessions):
    # Predicate locks then cover the row, not its page or the table.
    for m in (PLAIN, CRITICAL):
        execute(f"ANALYZE {m.articles}")
    execute("ALTER ROLE CURRENT_USER SET enable_seqscan = off")
    execute("ALTER ROLE CURRENT_USER SET enable_bitmapscan = off")
    try:
        expected = two_transactions(PLAIN, sessions, steps)
        assert two_transactions(CRITICAL, sessions, steps) == expected
    finally:
        execute("ALTER ROLE CURRENT_USER RESET ALL")
    assert totals(CRITICAL) == totals(PLAIN)


LOCKED = """
    SELECT DISTINCT relation::regclass::text FROM pg_locks
    WHERE mode = 'SIReadLock' AND strpos(relation::regclass::text, 'bulksafe') > 0
"""


@pytest.mark.parametrize(
    "write",
    [
        *(way.write for way in CHANGES.values()),
        lambda m: m.Article.objects.filter(pk=77).update(total=1),
        lambda m: m.Article.objects.create(pk=100, total=1),
        lambda m: m.Article.objects.bulk_create([m.Article(pk=n) for n in (100, 101)]),
        lambda m: m.Article.objects.all().delete(),
    ],
    ids=[*CHANGES, "no row", "create()", "bulk_create()", "delete()"],
)
def test_nothing_is_read_that_other_writers_write_to(write, seen, sessions):
    """Predicate locks stay after the commit as long as an older transaction is open."""
    session = sessions(IsolationLevel.SERIALIZABLE)
    with psycopg.connect(database_url(connection.settings_dict)) as other:
        other.isolation_level = IsolationLevel.SERIALIZABLE
        other.execute("SELECT 1")
        session.begin()
        session.run(lambda: write(CRITICAL))
        session.end()
        found = {name.split(".")[-1] for (name,) in other.execute(LOCKED)}

    # No other transaction writes to these.
    assert found <= {"bulksafe_outbox_identity", "bulksafe_outbox_identity_pkey"}


# 80: deadlocks.

#: Count up one article.
SINGLE = {
    "update()": lambda m, n: m.Article.objects.filter(pk=n).update(total=F("total") + 1),
    "UPDATE": lambda m, n: execute(f"UPDATE {m.articles} SET total = total + 1 WHERE id = {n}"),
    "DELETE": lambda m, n: execute(f"DELETE FROM {m.articles} WHERE id = {n}"),
    "WITH": lambda m, n: execute(
        f"WITH one AS (SELECT {n} AS id) UPDATE {m.articles} AS a SET total = total + 1 "
        "FROM one WHERE a.id = one.id"
    ),
    "several statements": lambda m, n: execute(
        f"SELECT 1; UPDATE {m.articles} SET total = total + 1 WHERE id = {n}"
    ),
    "ON CONFLICT": lambda m, n: execute(
        f"INSERT INTO {m.articles} AS a (id, total, {NAMES}) VALUES ({n}, 0, {VALUES}) "
        "ON CONFLICT (id) DO UPDATE SET total = a.total + 1"
    ),
}


@pytest.mark.parametrize("way", SINGLE.values(), ids=SINGLE)
def test_a_deadlock_ends_one_of_two_transactions(way, seen, sessions):
    def interleaved(m):
        one, two = sessions(), sessions()
        for session, timeout, number in ((one, "10min", 1), (two, "10ms", 2)):
            # The second looks for deadlocks, and so is the victim.
            session.begin()
            session.run(partial(execute, f"SET LOCAL deadlock_timeout = '{timeout}'"))
            session.run(lambda n=number: way(m, n))
        future = one.start(lambda: outcome(lambda: way(m, 2)))
        wait_until_blocked(one.pid, two.pid, future)
        refused = two.run(lambda: outcome(lambda: way(m, 1)))
        two.end(is_rollback=True)
        future.result(PATIENCE)
        one.end()
        return refused, totals(m)

    found = interleaved(CRITICAL)
    assert found == interleaved(PLAIN)
    assert found[0] == "40P01"
    # The victim's writes are rolled back; its receivers were called for one row.
    assert len(seen.rows) == 3
