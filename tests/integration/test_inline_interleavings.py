"""Another session, while a write is collected, waits for a row or is applied.

Each interleaving is tried twice: with critical receivers, and as the same statement on the twin
table that has none. What is stored, returned, locked and refused must be equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction
from django.db.models import F
from django.db.models.signals import pre_delete, pre_save

from examples.server import database_url
from tests.apps.practice import models
from tests.integration import inline_committed as inline
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


# 70, 143: locks.


@ways(CHANGES)
def test_rows_stay_locked_until_the_transaction_ends(way, seen):
    def interleaved(m):
        found = []
        with transaction.atomic():
            with transaction.atomic():
                way.write(m)
            found.append(free(m))
            with transaction.atomic():
                m.Article.objects.filter(pk=3).update(total=0)
                found.append(free(m))
                transaction.set_rollback(True)
            found.append(free(m))
        return found, free(m)

    assert interleaved(CRITICAL) == interleaved(PLAIN)
    assert seen.rows


@ways(CHANGES)
def test_rows_are_locked_while_their_receivers_run(way, seen):
    found = []
    seen.between = lambda: found.append(free(CRITICAL))
    way.write(CRITICAL)

    assert found == [{3, 4, 5, 6}]


@pytest.mark.parametrize("is_refused", [False, True])
@ways(CHANGES)
def test_a_savepoint_that_is_rolled_back_lets_its_locks_go(way, seen, is_refused):
    class RefusedError(Exception):
        pass

    def refuse():
        if is_refused:
            raise RefusedError

    def interleaved(m):
        with transaction.atomic():
            try:
                with transaction.atomic():
                    way.write(m)
                    raise RefusedError
            except RefusedError:
                return free(m)

    seen.between = refuse

    assert interleaved(CRITICAL) == interleaved(PLAIN) == set(ROWS)
    assert totals(CRITICAL) == {n: n for n in ROWS}


#: Writes to all shelves: what they lock for, and how other sessions may lock the rows besides.
SHELF_WRITES: dict[str, Any] = {
    "update()": lambda m: m.Shelf.objects.update(pages=1),
    "UPDATE": returned("UPDATE {shelves} SET pages = 1"),
    "WITH": returned("WITH one (n) AS (VALUES (1)) UPDATE {shelves} SET pages = n FROM one"),
    "ON CONFLICT": returned(
        "INSERT INTO {shelves} (id, name, books, pages) SELECT id, name, books, pages "
        "FROM {shelves} ON CONFLICT (id) DO UPDATE SET pages = 1"
    ),
    "several statements": returned("UPDATE {shelves} SET pages = 1; SELECT 1"),
    "UPDATE, key": returned("UPDATE {shelves} SET id = id + 100"),
    "DELETE": returned("DELETE FROM {shelves}"),
    "WITH, DELETE": returned("WITH a AS (SELECT 1) DELETE FROM {shelves}"),
}


def shelf_writes(titles: Iterable[str]) -> Any:
    return pytest.mark.parametrize(
        "way",
        [pytest.param(SHELF_WRITES[title], id=title) for title in titles],
    )


@shelf_writes(SHELF_WRITES)
def test_other_sessions_may_lock_as_during_a_plain_write(way):
    """So that inserting a row that refers to one waits for a change of keys alone."""

    def locks(m):
        return free(m, "KEY SHARE", "shelves"), free(m, "SHARE", "shelves")

    between = []

    def look(**kwargs):
        models.Log.objects.exists()
        between.append(locks(CRITICAL))

    inline.critical(pre_save, CRITICAL.Shelf, look)
    inline.critical(pre_delete, CRITICAL.Shelf, look)

    def interleaved(m):
        with transaction.atomic():
            way(m)
            found = locks(m)
            transaction.set_rollback(True)
        return found

    expected = interleaved(PLAIN)
    assert interleaved(CRITICAL) == expected
    assert between == [expected] * len(ROWS)


@shelf_writes(title for title in SHELF_WRITES if "key" not in title and "DELETE" not in title)
def test_a_row_that_refers_to_a_collected_row_is_inserted_concurrently(way):
    def insert(**kwargs):
        models.Log.objects.exists()
        with psycopg.connect(database_url(connection.settings_dict)) as other:
            # With its foreign key checked, and an error if that waits.
            other.execute("SET lock_timeout = '3s'")
            other.execute(
                f"INSERT INTO {CRITICAL.books} (shelf_id, title, pages) VALUES (1, '', 0)"
            )

    inline.critical(pre_save, CRITICAL.Shelf, insert)
    way(CRITICAL)

    assert CRITICAL.Book.objects.count() == len(ROWS)
    assert set(CRITICAL.Shelf.objects.values_list("pages", flat=True)) == {1}


# 71 to 73: a write that waits for the row of another session, which changes it.

#: What the other session does to the first article.
MEANWHILE = {
    "drops out": "UPDATE {articles} SET total = 100 WHERE id = 1",
    "is a new version": "UPDATE {articles} SET total = 50 WHERE id = 1",
    "goes": "DELETE FROM {articles} WHERE id = 1",
    "changes no value": "UPDATE {articles} SET total = total WHERE id = 1",
}


@pytest.mark.parametrize(
    ("meanwhile", "is_committed"),
    [
        *(pytest.param(one, True, id=title) for title, one in MEANWHILE.items()),
        pytest.param(MEANWHILE["drops out"], False, id="is rolled back"),
    ],
)
@ways(CHANGES)
def test_a_write_waits_for_a_row_and_continues_with_its_new_version(
    way, meanwhile, is_committed, seen, sessions
):
    def interleaved(m):
        session = sessions()
        with other_session() as other:
            other.execute("BEGIN")
            other.execute(meanwhile.format(**vars(m)))
            there = dict(other.execute(f"SELECT id, total FROM {m.articles}").fetchall())
            future = session.start(lambda: outcome(lambda: way.write(m)))
            wait_until_blocked(session.pid, other.info.backend_pid, future)
            other.execute("COMMIT" if is_committed else "ROLLBACK")
            result = future.result(PATIENCE)
        return result, totals(m), there if is_committed else {n: n for n in ROWS}

    found = interleaved(CRITICAL)
    expected = interleaved(PLAIN)

    assert found == expected
    # Receivers have been called once for each row that was written, with the versions that were.
    _, after, before = found
    assert sorted(seen.rows) == changed(before, after)


# 81, 82: the remains of collecting.

MANY = 300


def written(m: Side) -> tuple[int, int, int]:
    """How many rows of articles were inserted, updated and deleted by now.

    PostgreSQL also counts transactions before this one that it has not reported yet.
    """
    return execute(
        "SELECT n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_user_tables WHERE relname = %s",
        m.articles,
    )[0]


@pytest.fixture
def many(seen):
    for m in (PLAIN, CRITICAL):
        with transaction.atomic():
            execute("SET LOCAL session_replication_role = replica")
            m.Article.objects.bulk_create(m.Article(pk=n, total=n) for n in range(7, MANY + 1))


#: Writes to all articles.
WHOLE = {
    "update()": lambda m: m.Article.objects.update(total=F("total") + 1),
    "UPDATE": returned("UPDATE {articles} SET total = total + 1"),
    "DELETE": returned("DELETE FROM {articles}"),
    "MERGE": returned(
        "MERGE INTO {articles} AS a USING (SELECT generate_series(1, 300) AS id) AS s "
        "ON a.id = s.id WHEN MATCHED THEN UPDATE SET total = a.total + 1"
    ),
    "INSERT": returned(
        "INSERT INTO {articles} (id, total, {names}) SELECT 1000 + id, total, {values} "
        "FROM {articles}"
    ),
}


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("way", WHOLE.values(), ids=WHOLE)
def test_each_row_is_written_once(way, seen):
    """Collecting writes none, and so leaves no dead rows."""
    between, begun = [], []
    seen.between = lambda: between.append(written(CRITICAL))

    def interleaved(m):
        with transaction.atomic():
            begun.append(written(m))
            way(m)
            return [end - start for start, end in zip(begun[-1], written(m), strict=True)]

    assert interleaved(CRITICAL) == interleaved(PLAIN)
    assert between == begun[:1]
    assert len(seen.rows) == MANY


def next_multixact() -> int:
    execute("CHECKPOINT")
    return execute("SELECT next_multixact_id::text::int FROM pg_control_checkpoint()")[0][0]


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("is_atomic", [False, True])
@pytest.mark.parametrize("way", WHOLE.values(), ids=WHOLE)
def test_locking_the_rows_creates_no_multixact_per_row(way, is_atomic, seen):
    before = next_multixact()
    if is_atomic:
        # Locked at one level and written at a different one.
        with transaction.atomic(), transaction.atomic():
            way(CRITICAL)
    else:
        way(CRITICAL)

    assert next_multixact() - before < 10
