"""The locks of a write that goes through: the order in which it takes them, and deadlocks."""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext

import psycopg
import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import F
from django.db.models.signals import post_save, pre_save

from bulksafe.writer import performing, through
from examples.server import database_url
from tests.apps.edges.models import Low, Top
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import Log
from tests.integration import inline_committed as inline
from tests.integration.inline_committed import (  # noqa: F401
    ARTICLES,
    _django_db_helper,
    clean,
    committed,
    execute,
)
from tests.operation.processes import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def through_only(monkeypatch):
    """As if the project had statement-level triggers on the tables: nothing is collected."""
    monkeypatch.setattr(performing, "is_collectable", lambda *args: False)
    monkeypatch.setattr(performing, "target_of", lambda *args: None)


#: What PostgreSQL raises in the session that it chooses as the victim of a deadlock.
DEADLOCK = "DO $$ BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END $$"
#: What it raises where the writer's own lock_timeout is over.
TIMEOUT = "DO $$ BEGIN RAISE EXCEPTION 'lock timeout' USING ERRCODE = '55P03'; END $$"


def look(**kwargs):
    """A reading receiver: the write is rolled back, and its rows are locked again."""
    Log.objects.exists()


@contextmanager
def other_session():
    """Another program's connection, past the triggers."""
    with psycopg.connect(database_url(connection.settings_dict), autocommit=True) as other:
        other.execute("SET session_replication_role = replica")
        yield other


def waits_for_a_lock(observer, pid):
    """Whether the session waits for a lock that another transaction holds."""
    waiting = "SELECT FROM pg_locks WHERE pid = %s AND NOT granted"
    return bool(observer.execute(waiting, [pid]).fetchall())


@pytest.fixture
def before_each_lock(monkeypatch):
    """Lets a test run functions, one each time, before the rows of a write are locked."""
    left = []
    original = through.lock

    def lock(*args):
        if left:
            left.pop(0)()
        return original(*args)

    monkeypatch.setattr(through, "lock", lock)
    yield left.append
    assert not left


# Deadlocks.


def test_a_deadlock_over_the_locks_is_retried(before_each_lock):
    """Both change both rows: PostgreSQL ends the statement that takes the locks again."""
    one, two = (Article.objects.create(title=title) for title in "ab")
    seen, threads = [], []

    def receiver(instance, **kwargs):
        look()
        seen.append((instance.title, instance.total, instance.changes))

    inline.critical(pre_save, Article, receiver)
    with other_session() as other, other_session() as observer:
        # The other session never looks for a deadlock, so that it is never the victim.
        other.execute("SET deadlock_timeout = '10min'")

        def cross():
            execute("SET LOCAL deadlock_timeout = '10ms'")
            add = f"UPDATE {ARTICLES} SET total = total + 10 WHERE id = %s"
            other.execute("BEGIN")
            other.execute(add, [two.pk])
            connection.connection.execute(f"SELECT FROM {ARTICLES} WHERE id = {one.pk} FOR UPDATE")

            def finish():
                other.execute(add, [one.pk])
                other.execute("COMMIT")

            threads.append(threading.Thread(target=finish))
            threads[0].start()
            wait_until(lambda: waits_for_a_lock(observer, other.info.backend_pid))

        before_each_lock(cross)
        assert Article.objects.update(changes=F("changes") + 1) == 2
        threads[0].join(60)

    assert sorted(seen) == [("a", 10, 1), ("b", 10, 1)]
    assert set(Article.objects.values_list("total", "changes")) == {(10, 1)}


@contextmanager
def errors(count, error, opening):
    """Let PostgreSQL raise so many errors in place of statements that begin like this."""
    left = [error] * count

    def wrapper(execute, sql, params, many, context):
        if left and sql.startswith(opening):
            return execute(left.pop(), None, False, context)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        yield
    assert not left


@pytest.mark.parametrize("is_atomic", [False, True])
def test_a_deadlock_of_the_write_is_retried(is_atomic):
    Article.objects.create(title="a")
    seen = []
    inline.critical(pre_save, Article, look)
    inline.critical(post_save, Article, lambda instance, **kwargs: seen.append(instance.changes))
    block = transaction.atomic() if is_atomic else nullcontext()
    with errors(1, DEADLOCK, f'UPDATE "{ARTICLES}"'), block:
        assert Article.objects.update(changes=F("changes") + 1) == 1

    assert seen == [1]
    assert Article.objects.get().changes == 1


@pytest.mark.parametrize("place", ["write", "locks"])
def test_a_write_that_deadlocks_again_and_again_raises_the_error(place, before_each_lock):
    """After five rounds it is the writer's to decide."""
    Article.objects.create(title="a")
    inline.critical(pre_save, Article, look)
    if place == "locks":
        for _ in range(6):
            before_each_lock(lambda: execute(DEADLOCK))
        with pytest.raises(OperationalError, match="deadlock detected"):
            Article.objects.update(changes=1)
    else:
        with (
            errors(6, DEADLOCK, f'UPDATE "{ARTICLES}"'),
            pytest.raises(OperationalError, match="deadlock detected"),
        ):
            Article.objects.update(changes=1)

    assert Article.objects.get().changes == 0


@pytest.mark.parametrize("place", ["write", "locks"])
def test_a_lock_timeout_is_raised_at_once(place, before_each_lock):
    """A second round would wait for as long again."""
    Article.objects.create(title="a")
    inline.critical(pre_save, Article, look)
    if place == "locks":
        before_each_lock(lambda: execute(TIMEOUT))
        with pytest.raises(OperationalError, match="lock timeout"):
            Article.objects.update(changes=1)
    else:
        with (
            errors(1, TIMEOUT, f'UPDATE "{ARTICLES}"'),
            pytest.raises(OperationalError, match="lock timeout"),
        ):
            Article.objects.update(changes=1)


# Rows that have not changed.


def test_a_row_changed_again_by_a_trigger_is_not_mistaken_for_a_concurrent_change(monkeypatch):
    """Its first change begins with what is stored, its second one does not."""
    Article.objects.create(title="a")
    inline.critical(pre_save, Article, look)
    unchanged, original = [], through.lock
    monkeypatch.setattr(
        through, "lock", lambda *args: unchanged.append(original(*args)) or unchanged[-1]
    )
    execute(
        "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"UPDATE {ARTICLES} SET changes = changes + 1 WHERE id = NEW.id; RETURN NULL; END $$; "
        f"CREATE TRIGGER again AFTER UPDATE OF total ON {ARTICLES} "
        "FOR EACH ROW EXECUTE FUNCTION again()"
    )
    try:
        assert Article.objects.update(total=1) == 1
    finally:
        execute("DROP FUNCTION again() CASCADE")

    assert unchanged
    assert all(unchanged)
    assert Article.objects.values_list("total", "changes").get() == (1, 1)


# The order of the locks.


@contextmanager
def blocked_at(table, key, write, before_each_lock):
    """A block in which the write waits for a row that another session holds."""
    raised = []

    def run():
        try:
            write()
        except Exception as error:
            raised.append(error)
        finally:
            connection.close()

    with other_session() as holder, other_session() as observer:
        pids = []

        def hold():
            holder.execute("BEGIN")
            holder.execute(f"SELECT FROM {table} WHERE id = %s FOR UPDATE", [key])
            pids.append(connection.connection.info.backend_pid)

        before_each_lock(hold)
        thread = threading.Thread(target=run)
        thread.start()
        try:
            wait_until(lambda: pids and waits_for_a_lock(observer, pids[0]))
            yield observer
        finally:
            holder.execute("ROLLBACK")
            thread.join(60)
    assert not raised, raised


def free(observer, table):
    """The keys of the rows that no session has locked."""
    found = observer.execute(f"SELECT id FROM {table} FOR UPDATE SKIP LOCKED").fetchall()
    return sorted(key for (key,) in found)


@pytest.mark.parametrize("keys", [(3, 1, 2), (1, 3, 2), (2, 3, 1)], ids=str)
def test_rows_are_locked_again_in_the_order_in_which_the_write_has_locked_them(
    keys, before_each_lock
):
    """Any other order could deadlock with a second write of the same kind."""
    _, second, third = keys
    # In an empty file, the rows lie in the order in which they are inserted, and are read in it.
    execute(f"TRUNCATE {ARTICLES}")
    for key in keys:
        Article.objects.create(pk=key, title=str(key))
    inline.critical(pre_save, Article, look)
    updated = []

    def write():
        updated.extend(execute(f"UPDATE {ARTICLES} SET total = 1 RETURNING id"))

    with blocked_at(ARTICLES, second, write, before_each_lock) as observer:
        assert free(observer, ARTICLES) == [third]

    assert [key for (key,) in updated] == list(keys)


def test_the_parts_of_a_row_are_locked_from_the_parent_down(before_each_lock):
    """As save() does it: the other order could deadlock with one."""
    row = Low.objects.create(name="a")
    inline.critical(pre_save, Low, look)
    low, top = Low._meta.db_table, Top._meta.db_table
    with blocked_at(top, row.pk, lambda: Low.objects.update(depth=1), before_each_lock) as observer:
        found = observer.execute(f"SELECT top_ptr_id FROM {low} FOR UPDATE SKIP LOCKED").fetchall()
        assert found == [(row.pk,)]

    assert Low.objects.get().depth == 1
