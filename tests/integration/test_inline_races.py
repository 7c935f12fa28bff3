"""Other transactions that come in between, while receivers run in the writer's transaction."""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext

import psycopg
import pytest
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import F
from django.db.models.signals import post_save, pre_delete, pre_save

from bulksafe.writer import performing, through
from examples.server import database_url
from tests.apps.edges.models import Stamped
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import Log
from tests.integration import inline_committed as inline
from tests.integration.inline_committed import (  # noqa: F401
    ARTICLES,
    _django_db_helper,
    clean,
    committed,
    execute,
    titles,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def through_only(monkeypatch):
    """As if the project had statement-level triggers on the tables: nothing is collected."""
    monkeypatch.setattr(performing, "is_collectable", lambda *args: False)
    monkeypatch.setattr(performing, "target_of", lambda *args: None)


LOGS = Log._meta.db_table

#: Ways in which a receiver may look before the write.
LOOKS = {
    "at other rows": lambda sender, **kwargs: sender.objects.filter(title="no such").exists(),
    "at its own row": lambda sender, instance, **kwargs: sender.objects.filter(
        pk=instance.pk
    ).first(),
    "at another table": lambda using, **kwargs: Log.objects.using(using).exists(),
    "past Django": lambda **kwargs: connection.connection.execute("SELECT 1").fetchone(),
    "by writing": lambda **kwargs: Log.objects.create(side="", text="x"),
}
some_looks = pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)


@pytest.fixture(autouse=True)
def no_stamped(clean):  # noqa: F811
    yield
    with transaction.atomic():
        execute("SET LOCAL session_replication_role = replica")
        execute(f"DELETE FROM {Stamped._meta.db_table}; DELETE FROM {LOGS}")


def make(*named):
    Article.objects.bulk_create(Article(title=title) for title in named)


def in_threads(count, work):
    """Run ``work(number)`` in so many threads, and raise what they raise."""
    errors = []

    def run(number):
        try:
            work(number)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


@pytest.fixture
def meanwhile(monkeypatch):
    """Lets another transaction commit while the rows of a write are not locked, each time."""

    @contextmanager
    def started(*statements):
        rest = list(statements)
        original = through.lock

        def lock(*args):
            if rest:
                with psycopg.connect(database_url(connection.settings_dict)) as other:
                    other.execute("SET session_replication_role = replica; SET lock_timeout = '5s'")
                    other.execute(rest.pop(0))
            return original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(through, "lock", lock)
            yield
        assert not rest

    return started


@some_looks
@pytest.mark.parametrize("count", [1, 2])
def test_no_update_is_lost(look, count):
    make(*"ab"[:count])
    inline.critical(pre_save, Article, look)
    in_threads(4, lambda _: [Article.objects.update(changes=F("changes") + 1) for _ in range(10)])

    assert list(Article.objects.values_list("changes", flat=True)) == [40] * count


@some_looks
def test_one_of_several_wins(look):
    """As who takes a job with ``filter(…).update(…) == 1``."""
    make("job")
    inline.critical(pre_save, Article, look)
    barrier = threading.Barrier(3, timeout=60)
    won = [[] for _ in range(10)]
    stored = []

    def work(number):
        for turn in range(10):
            barrier.wait()
            mine = f"{turn} {number}"
            if Article.objects.filter(status="draft").update(status=mine) == 1:
                won[turn].append(mine)
            barrier.wait()
            if number == 0:
                stored.append(Article.objects.get().status)
                Article.objects.update(status="draft")
            barrier.wait()

    in_threads(3, work)

    assert won == [[one] for one in stored]


@some_looks
@pytest.mark.parametrize("count", [1, 2])
def test_a_row_that_no_longer_matches_is_not_updated(look, count, meanwhile):
    make(*"ab"[:count])
    received = []
    inline.critical(pre_save, Article, look)
    inline.critical(post_save, Article, lambda instance, **kwargs: received.append(instance.title))
    with meanwhile(f"UPDATE {ARTICLES} SET total = 100 WHERE title = 'a'"):
        found = Article.objects.filter(total=0).update(total=1)

    assert found == count - 1
    expected = [("a", 100), ("b", 1)][:count]
    assert sorted(Article.objects.values_list("title", "total")) == expected
    assert received == ["b"][: count - 1]


@some_looks
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("way", ["SQL", "delete()"])
def test_a_row_that_no_longer_matches_is_not_deleted(look, count, way, meanwhile):
    make(*"ab"[:count])
    inline.critical(pre_delete, Article, look)
    if way == "delete()":
        # Django has fetched the rows, and deletes them by their keys.
        Article.objects.filter(total=0).delete()
        assert titles() == []
        return
    with meanwhile(f"UPDATE {ARTICLES} SET total = 100 WHERE title = 'a'"):
        execute(f"DELETE FROM {ARTICLES} WHERE total = 0")

    assert titles() == ["a"]


@some_looks
def test_a_deleted_row_is_not_counted(look, meanwhile):
    make(*"ab")
    received = []
    inline.critical(pre_save, Article, look)
    inline.critical(post_save, Article, lambda instance, **kwargs: received.append(instance.title))
    with meanwhile(f"DELETE FROM {ARTICLES} WHERE title = 'b'"):
        assert Article.objects.update(total=1) == 1

    assert received == ["a"]


@some_looks
def test_receivers_see_the_values_that_are_stored(look, meanwhile):
    make(*"ab")
    seen = []

    def receiver(instance, **kwargs):
        look(instance=instance, **kwargs)
        seen.append((instance.title, instance.total, instance.changes))

    inline.critical(pre_save, Article, receiver)
    with meanwhile(
        f"UPDATE {ARTICLES} SET changes = 10; "
        f"UPDATE {ARTICLES} SET changes = 20 WHERE title = 'b'; "
        f"UPDATE {ARTICLES} SET title = 'c' WHERE title = 'a'"
    ):
        Article.objects.update(total=F("changes") + 1)

    assert sorted(seen) == [("b", 21, 20), ("c", 11, 10)]
    assert sorted(Article.objects.values_list("title", "total")) == [("b", 21), ("c", 11)]


def test_effects_of_receivers_occur_once(meanwhile):
    """Their writes, and their hooks: a call that was cut short has left nothing."""
    make("a")
    hooks = []

    def receiver(instance, **kwargs):
        transaction.on_commit(lambda: hooks.append(instance.changes))
        Log.objects.create(side="", text=str(instance.changes))

    inline.critical(pre_save, Article, receiver)
    with meanwhile(f"UPDATE {ARTICLES} SET changes = 10"):
        Article.objects.update(changes=F("changes") + 1)

    assert hooks == [11]
    assert list(Log.objects.values_list("text", flat=True)) == ["11"]


def test_except_exception_does_not_catch_the_interruption(meanwhile):
    make("a")
    received = []

    def receiver(sender, instance, **kwargs):
        try:
            sender.objects.filter(pk=instance.pk).first()
        except Exception as error:
            received.append(error)

    inline.critical(pre_save, Article, receiver)
    with meanwhile(f"UPDATE {ARTICLES} SET total = 100"):
        assert Article.objects.filter(total=0).update(total=1) == 0

    assert received == []


def test_a_receiver_that_swallows_every_error_is_called_again(meanwhile):
    make("a")
    seen = []

    def receiver(sender, instance, **kwargs):
        try:
            sender.objects.filter(pk=instance.pk).first()
        except:  # noqa: E722
            Log.objects.create(side="", text="swallowed")
        seen.append(instance.changes)

    inline.critical(pre_save, Article, receiver)
    with meanwhile(f"UPDATE {ARTICLES} SET changes = 10"):
        Article.objects.update(changes=F("changes") + 1)

    # The first call has ended where it would have gone on.
    assert seen == [11]
    assert Article.objects.get().changes == 11
    assert not Log.objects.exists()


@some_looks
@pytest.mark.parametrize("is_atomic", [False, True])
def test_the_server_ends_the_connection_before_the_rows_are_locked(look, is_atomic, monkeypatch):
    """Nothing is stored, and the next write has its receivers."""
    make(*"ab")
    seen, original = [], through.lock

    def receiver(instance, **kwargs):
        look(instance=instance, **kwargs)
        seen.append(instance.title)

    def killed(*args):
        with psycopg.connect(database_url(connection.settings_dict), autocommit=True) as other:
            pid = connection.connection.info.backend_pid
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        return original(*args)

    inline.critical(pre_save, Article, receiver)
    block = transaction.atomic() if is_atomic else nullcontext()
    monkeypatch.setattr(through, "lock", killed)
    with pytest.raises((OperationalError, InterfaceError)), block:
        Article.objects.update(total=1)
    monkeypatch.undo()
    connection.close()

    assert seen == []
    assert set(Article.objects.values_list("total", flat=True)) == {0}
    assert Article.objects.update(total=2) == 2
    assert sorted(seen) == ["a", "b"]


def test_every_update_has_one_log_row():
    make("a")
    inline.critical(
        pre_save,
        Article,
        lambda instance, **kwargs: Log.objects.create(side="", text=str(instance.changes)),
    )
    in_threads(3, lambda _: [Article.objects.update(changes=F("changes") + 1) for _ in range(20)])

    texts = sorted(int(text) for text in Log.objects.values_list("text", flat=True))
    assert texts == list(range(1, 61))


# Conflicts.

CONFLICTS = {
    "ignored": {"ignore_conflicts": True},
    "updated": {"update_conflicts": True, "unique_fields": ["code"], "update_fields": ["number"]},
}


@pytest.mark.parametrize("options", CONFLICTS.values(), ids=CONFLICTS)
def test_conflicts_with_others_raise_nothing(options):
    inline.critical(
        pre_save, Stamped, lambda sender, **kwargs: sender.objects.filter(number=-1).exists()
    )

    def work(_):
        for turn in range(10):
            rows = [Stamped(code=f"{turn + place}", number=turn) for place in range(3)]
            Stamped.objects.bulk_create(rows, **options)

    in_threads(4, work)

    assert Stamped.objects.count() == 12


def test_conflicts_of_sql_that_are_ignored_raise_nothing():
    inline.critical(
        pre_save, Stamped, lambda sender, **kwargs: sender.objects.filter(number=-1).exists()
    )

    def work(_):
        for turn in range(10):
            values = ", ".join(f"('{turn + place}', {turn}, now())" for place in range(3))
            execute(
                f"INSERT INTO {Stamped._meta.db_table} (code, number, created) VALUES {values} "
                "ON CONFLICT (code) DO NOTHING"
            )

    in_threads(4, work)

    assert Stamped.objects.count() == 12


@pytest.mark.parametrize("options", CONFLICTS.values(), ids=CONFLICTS)
@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
def test_a_timestamp_that_differs_at_each_execution(options, there):
    """Python makes a new one whenever the row is stored: the receivers run once all the same."""
    if there:
        Stamped.objects.create(code="a")
    hooks, seen = [], []

    def note(instance, **kwargs):
        Log.objects.create(side="", text=instance.code)
        transaction.on_commit(lambda: hooks.append(instance.code))
        seen.append(instance.created)

    inline.critical(pre_save, Stamped, note)
    rows = [Stamped(code="a"), Stamped(code="b")]
    Stamped.objects.bulk_create(rows, **options)

    count = 1 if there and "ignore_conflicts" in options else 2
    assert Log.objects.count() == len(hooks) == count
    # A new object has none before it is stored, as in save().
    assert set(seen) <= {None, *Stamped.objects.values_list("created", flat=True)}
