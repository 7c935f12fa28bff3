"""Receivers in the writer's transaction, wherever and however Django writes."""

# ruff: noqa: PT012  (transactions have several statements)

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django import test
from django.core import serializers
from django.core.management import call_command
from django.db import (
    IntegrityError,
    close_old_connections,
    connection,
    connections,
    migrations,
    transaction,
)
from django.db.migrations.loader import MigrationLoader
from django.db.models import F, Q
from django.db.models.signals import (
    m2m_changed,
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)
from django.http import HttpResponse
from django.urls import path
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

import bulksafe
from bulksafe import testing
from bulksafe.declarations import Capture
from bulksafe.exceptions import BrokenTransaction, EndlessWrites, ReceiversNotRun
from bulksafe.outbox import own
from examples import server
from tests.apps.edges.models import Pair
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import CriticalBook as Book
from tests.apps.practice.models import CriticalShelf as Shelf
from tests.apps.practice.models import CriticalTag as Tag
from tests.apps.practice.models import Log
from tests.integration import inline_committed as inline
from tests.integration import reception
from tests.integration.inline_committed import (  # noqa: F401
    _django_db_helper,
    clean,
    committed,
    execute,
    insert,
    noted,
    raw,
    titles,
    waiting,
)
from tests.operation.processes import wait_until
from tests.operation.test_pgbouncer import CONFIG, PGBOUNCER

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

TABLE = Article._meta.db_table
EVERY_SIGNAL = [pre_save, post_save, pre_delete, post_delete]
INSERT_SELECT = insert("written").replace("VALUES (", "SELECT ").removesuffix(")")


def there(using="default") -> Article:
    """The article that a change is tried on."""
    return Article.objects.using(using).get(title="there")


def bulk_update(using):
    article = there(using)
    article.title = "written"
    Article.objects.using(using).bulk_update([article], ["title"])


def save_again(using):
    article = there(using)
    article.title = "written"
    article.save(using=using)


def upsert(using):
    article = there(using)
    article.title = "written"
    Article.objects.using(using).bulk_create(
        [article], update_conflicts=True, unique_fields=["id"], update_fields=["title"]
    )


def by_sql(statement):
    def write(using):
        execute(statement, using=using)

    return write


#: Ways to make or change an article, which has the title "written" then.
SAVING: dict[str, Callable[[str], Any]] = {
    "save": lambda using: Article(title="written").save(using=using),
    "create": lambda using: Article.objects.using(using).create(title="written"),
    "get_or_create": lambda using: Article.objects.using(using).get_or_create(title="written"),
    "bulk_create": lambda using: Article.objects.using(using).bulk_create(
        [Article(title="written")]
    ),
    "INSERT": by_sql(insert("written")),
    "INSERT SELECT": by_sql(INSERT_SELECT),
    "save again": save_again,
    "update": lambda using: (
        Article.objects.using(using).filter(title="there").update(title="written")
    ),
    "update_or_create": lambda using: Article.objects.using(using).update_or_create(
        {"title": "written"}, title="there"
    ),
    "bulk_update": bulk_update,
    "upsert": upsert,
    "UPDATE": by_sql(f"UPDATE {TABLE} SET title = 'written' WHERE title = 'there'"),
}

#: Ways to delete it.
DELETING: dict[str, Callable[[str], Any]] = {
    "delete": lambda using: there(using).delete(),
    "delete of a query": lambda using: Article.objects.using(using).filter(title="there").delete(),
    "raw delete": lambda using: (
        Article.objects.using(using).filter(title="there")._raw_delete(using)
    ),
    "DELETE": by_sql(f"DELETE FROM {TABLE} WHERE title = 'there'"),
}

EVERY = {**SAVING, **DELETING}

every_way = pytest.mark.parametrize("way", EVERY)
#: One of each kind, where the kind makes the difference.
some_ways = pytest.mark.parametrize(
    "way", ["save", "bulk_create", "update", "upsert", "UPDATE", "delete", "DELETE"]
)
some_saving_ways = pytest.mark.parametrize("way", ["save", "bulk_create", "update", "UPDATE"])
#: One of each kind, where the kind makes the difference.
some_ways = pytest.mark.parametrize(
    "way", ["save", "bulk_create", "update", "upsert", "UPDATE", "delete", "DELETE"]
)
some_saving_ways = pytest.mark.parametrize("way", ["save", "bulk_create", "update", "UPDATE"])
saving_ways = pytest.mark.parametrize("way", SAVING)
deleting_ways = pytest.mark.parametrize("way", DELETING)
in_atomic_or_not = pytest.mark.parametrize("is_atomic", [False, True], ids=["autocommit", "atomic"])


def perhaps_atomic(is_atomic, using="default"):
    return transaction.atomic(using=using) if is_atomic else nullcontext()


@pytest.fixture
def article(clean) -> Article:  # noqa: F811
    return Article.objects.create(title="there")


def note(name):
    """A receiver that logs the title that it is called for."""

    def receiver(instance, using, **kwargs):
        Log.objects.using(using).create(side="", text=f"{name} {instance.title}")

    return receiver


def install_on(using):
    """Capture in another database, too."""
    execute(Capture().compile(Article).install_sql, using=using)


# Transactions.


#: What a receiver sees makes a difference to what the database has to keep for it.
seeing_all_or_little = pytest.mark.parametrize("sees", ["all", "little"])


def hear(signals, sees, name, sender=Article):
    """The calls of a receiver that names all there is, or no more than Django's own arguments."""
    found = reception.Calls()

    def little(signal, instance, using, **kwargs):
        found.append({"signal": signal, "instance": instance, "using": using})

    function = found.__call__ if sees == "all" else little
    inline.critical(signals, sender, function, dispatch_uid=name)
    return found


@pytest.mark.matrix(3)
@every_way
@in_atomic_or_not
@seeing_all_or_little
def test_each_way_calls_once(way, is_atomic, sees, article):
    calls = hear([post_save, post_delete], sees, "late")
    early = hear([pre_save, pre_delete], sees, "early")

    with perhaps_atomic(is_atomic):
        EVERY[way]("default")

    assert len(calls) == len(early) == 1
    assert calls[0]["instance"].title == ("there" if way in DELETING else "written")
    assert waiting() == (0, 0)


@every_way
def test_nobody_sees_the_write_without_what_receivers_did(way, article):
    seen = []
    with psycopg.connect(server.database_url(connection.settings_dict), autocommit=True) as other:

        def look_from_outside():
            texts = other.execute(f"SELECT array_agg(text) FROM {Log._meta.db_table}").fetchone()
            rows = other.execute(f"SELECT title FROM {TABLE} ORDER BY title").fetchall()
            seen.append((*texts, [title for (title,) in rows]))

        def receiver(**kwargs):
            Log.objects.create(side="", text="by the receiver")
            look_from_outside()

        inline.critical([post_save, post_delete], Article, receiver)
        EVERY[way]("default")
        look_from_outside()

    assert seen == [(None, ["there"]), (["by the receiver"], titles())]


class TestSavepoints:
    @every_way
    def test_one_that_is_rolled_back_takes_back_what_receivers_did(self, way, article):
        inline.critical([post_save, post_delete], Article, note("late"))
        inline.critical([pre_save, pre_delete], Article, note("early"))

        with transaction.atomic():
            with pytest.raises(ValueError, match="no"), transaction.atomic():
                EVERY[way]("default")
                assert len(noted()) == 2
                raise ValueError("no")
            assert noted() == []
            assert waiting() == (0, 0)
            assert titles() == ["there"]
            EVERY[way]("default")

        assert len(noted()) == 2

    def test_many_levels(self, clean):  # noqa: F811
        inline.critical(post_save, Article, note("late"))
        with transaction.atomic():
            Article.objects.create(title="1")
            with transaction.atomic():
                Article.objects.bulk_create([Article(title="2")])
                with pytest.raises(ValueError, match="no"), transaction.atomic():
                    Article.objects.update(title="3")
                    with transaction.atomic(savepoint=False):
                        execute(insert("4"))
                    raise ValueError("no")
                with transaction.atomic():
                    Article.objects.filter(title="2").update(title="5")

        assert noted() == ["late 1", "late 2", "late 5"]
        assert titles() == ["1", "5"]

    def test_the_whole_transaction(self, clean):  # noqa: F811
        inline.critical(post_save, Article, note("late"))
        with transaction.atomic():
            Article.objects.create(title="1")
            with transaction.atomic():
                execute(insert("2"))
            transaction.set_rollback(True)

        assert (noted(), titles(), waiting()) == ([], [], (0, 0))

    def test_inside_a_receiver(self, clean):  # noqa: F811
        shelves = inline.critical(post_save, Shelf)

        def try_out(instance, **kwargs):
            with pytest.raises(ValueError, match="no"), transaction.atomic():
                Shelf.objects.create(name="gone")
                raise ValueError("no")
            Shelf.objects.create(name="kept")

        inline.critical(post_save, Article, try_out)
        for is_atomic in (False, True):
            with perhaps_atomic(is_atomic):
                Article.objects.bulk_create([Article(title="a")])

        assert [shelf.name for shelf in Shelf.objects.all()] == ["kept"] * 2
        assert [call["instance"].name for call in shelves] == ["gone", "kept"] * 2


class TestDurable:
    @every_way
    def test_around_the_write(self, way, article):
        calls = inline.critical([post_save, post_delete], Article)
        with transaction.atomic(durable=True):
            EVERY[way]("default")

        assert len(calls) == 1

    @every_way
    def test_inside_a_receiver_it_cannot_be(self, way, article):
        def durable(**kwargs):
            with transaction.atomic(durable=True):
                Log.objects.create(side="", text="never")

        inline.critical([post_save, post_delete], Article, durable)
        with pytest.raises(RuntimeError, match="durable"):
            EVERY[way]("default")

        assert (titles(), noted()) == (["there"], [])


class TestWithoutAutocommit:
    @pytest.fixture(autouse=True)
    def without(self, article):
        transaction.set_autocommit(False)
        yield
        transaction.rollback()
        transaction.set_autocommit(True)

    @every_way
    def test_committed(self, way):
        inline.critical([post_save, post_delete], Article, note("late"))
        transaction.commit()
        EVERY[way]("default")
        assert len(noted()) == 1
        transaction.commit()

        assert len(noted()) == 1

    @every_way
    def test_rolled_back(self, way):
        inline.critical([post_save, post_delete], Article, note("late"))
        transaction.commit()
        EVERY[way]("default")
        transaction.rollback()

        assert (noted(), titles()) == ([], ["there"])

    @every_way
    def test_refused(self, way):
        inline.critical([post_save, post_delete], Article, refuse)
        transaction.commit()
        Log.objects.create(side="", text="stays")
        with pytest.raises(ValueError, match="no"):
            EVERY[way]("default")
        transaction.commit()

        assert (noted(), titles()) == (["stays"], ["there"])


def refuse(**kwargs):
    raise ValueError("no")


# What the statements return, and what they are made of.


class TestStatements:
    @pytest.fixture(params=["early", "late"])
    def calls(self, request, clean):  # noqa: F811
        """A statement is made twice where receivers come before it."""
        return inline.critical(pre_save if request.param == "early" else post_save, Article)

    def test_rows_that_are_returned(self, calls):
        rows = execute(f"{insert('a')} RETURNING id, title")
        (found,) = Article.objects.raw(f"{insert('b')} RETURNING *")

        assert rows == [(Article.objects.get(title="a").pk, "a")]
        assert (found.pk, found.title) == (Article.objects.get(title="b").pk, "b")
        assert [call["instance"].title for call in calls] == ["a", "b"]

    def test_several_results(self, calls):
        with connection.cursor() as cursor:
            cursor.execute(f"{insert('a')}; SELECT 5; {insert('b')} RETURNING title")
            assert cursor.nextset()
            assert cursor.fetchall() == [(5,)]
            assert cursor.nextset()
            assert cursor.fetchall() == [("b",)]

        assert [call["instance"].title for call in calls] == ["a", "b"]

    def test_how_many_rows(self, calls):
        Article.objects.bulk_create([Article(title=str(number)) for number in range(5)])
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {TABLE} SET version = 1 WHERE title > '1'")
            assert cursor.rowcount == 3
        assert Article.objects.filter(title__gt="1").update(version=2) == 3

        assert len(calls) == 5 + 3 + 3

    @pytest.mark.parametrize(
        "statement",
        [
            insert().encode(),
            sql.SQL(insert()),
            sql.SQL("-- a comment\n /* and one */ ") + sql.SQL(insert()),
            sql.SQL("; ") + sql.SQL(insert()),
            sql.Composed([sql.SQL(insert())]),
        ],
        ids=["bytes", "SQL", "comments", "an empty one", "composed"],
    )
    @in_atomic_or_not
    def test_kinds_of_text(self, statement, is_atomic, calls):
        with perhaps_atomic(is_atomic), connection.cursor() as cursor:
            cursor.execute(statement)

        assert [call["instance"].title for call in calls] == ["raw"]

    def test_rows_are_written_while_a_cursor_is_read(self, calls):
        Article.objects.bulk_create([Article(title=str(number)) for number in range(5)])
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT id FROM {TABLE} ORDER BY id")
            for (key,) in cursor:
                Article.objects.filter(pk=key).update(version=1)

        assert [call["instance"].version for call in calls[5:]] == [1] * 5

    def test_fixtures(self, calls, tmp_path):
        articles = [Article(pk=1, title="a"), Article(pk=2, title="b")]
        path = tmp_path / "articles.json"
        path.write_text(serializers.serialize("json", articles))
        call_command("loaddata", path, verbosity=0)

        assert [(call["instance"].title, call["raw"]) for call in calls] == [
            ("a", True),
            ("b", True),
        ]

    def test_another_constraint_that_fails_at_the_commit(self, calls):
        """It is not taken for a refusal, nor is the write made once more."""
        books = inline.critical(post_save, Book)
        with pytest.raises(IntegrityError, match="foreign key") as error:
            Book.objects.create(title="a", shelf_id=999)

        assert not isinstance(error.value, ReceiversNotRun)
        assert len(books) == 1
        assert Book.objects.count() == 0


# Reading and writing at the same time.


class TestCursors:
    @pytest.fixture(autouse=True)
    def rows(self, clean):  # noqa: F811
        Article.objects.bulk_create([Article(title=f"{number:03}") for number in range(25)])

    @in_atomic_or_not
    @pytest.mark.parametrize("early", [False, True])
    def test_rows_are_written_while_they_are_read(self, is_atomic, early):
        inline.critical(pre_save if early else post_save, Article, note("seen"))
        with perhaps_atomic(is_atomic):
            for number, article in enumerate(Article.objects.order_by("pk").iterator(chunk_size=4)):
                if number % 3 == 0:
                    article.save()
                elif number % 3 == 1:
                    Article.objects.filter(pk=article.pk).update(version=1)
                else:
                    execute(f"UPDATE {TABLE} SET version = 1 WHERE id = {article.pk}")

        assert noted() == [f"seen {number:03}" for number in range(25)]

    @in_atomic_or_not
    def test_a_receiver_reads_with_a_cursor_and_writes(self, is_atomic):
        """Its own writes go to other tables."""

        def copy(instance, **kwargs):
            for article in Article.objects.order_by("pk").iterator(chunk_size=4):
                Log.objects.create(side="", text=article.title)

        inline.critical(post_save, Article, copy)
        with perhaps_atomic(is_atomic):
            Article.objects.filter(title="003").update(version=1)

        assert noted() == [f"{number:03}" for number in range(25)]

    @in_atomic_or_not
    def test_a_receiver_writes_to_the_rows_that_are_read(self, is_atomic):
        def touch(instance, **kwargs):
            Article.objects.filter(title__lt=instance.title).update(version=F("version") + 1)

        inline.critical(post_save, Article, touch)
        with perhaps_atomic(is_atomic):
            for article in Article.objects.order_by("pk").iterator(chunk_size=4):
                Article.objects.filter(pk=article.pk).update(status="read")

        found = Article.objects.order_by("title").values_list("version", flat=True)
        assert list(found) == list(range(24, -1, -1))

    def test_deletions(self):
        inline.critical([pre_delete, post_delete], Article, note("gone"))
        with transaction.atomic():
            for article in Article.objects.order_by("pk").iterator(chunk_size=4):
                article.delete()

        assert len(noted()) == 50
        assert titles() == []

    def test_rows_that_are_locked(self):
        calls = inline.critical([pre_save, post_save], Article)
        with transaction.atomic():
            locked = list(Article.objects.select_for_update().filter(title__lt="003"))
            for article in locked:
                article.version = 1
            Article.objects.bulk_update(locked, ["version"])
            Article.objects.filter(pk__in=[one.pk for one in locked]).update(version=2)
            for article in Article.objects.select_for_update(of=("self",), nowait=True)[:2]:
                article.save()
            for _ in Article.objects.select_for_update(skip_locked=True).iterator(chunk_size=10):
                Article.objects.filter(title="000").update(version=3)
                break

        assert len(calls) == 2 * (3 + 3 + 2 + 1)

    def test_a_receiver_locks(self):
        def lock(instance, **kwargs):
            list(Article.objects.select_for_update().filter(title__lt="003"))

        inline.critical(pre_save, Article, lock)
        assert Article.objects.filter(title__gt="020").update(version=1) == 4
        assert Article.objects.filter(version=1).count() == 4


# After the commit.


class TestOnCommit:
    @pytest.fixture(params=["early", "late"])
    def done(self, request, article):
        found = []

        def later(instance, **kwargs):
            transaction.on_commit(
                lambda: found.append((instance.title, connection.in_atomic_block))
            )

        signals = {"early": [pre_save, pre_delete], "late": [post_save, post_delete]}
        inline.critical(signals[request.param], Article, later)
        return found

    @every_way
    def test_in_autocommit_it_is_when_the_write_is_done(self, way, done):
        EVERY[way]("default")

        assert done == [("there" if way in DELETING else "written", False)]

    @some_ways
    def test_in_atomic_it_is_at_its_end(self, way, done):
        with transaction.atomic():
            EVERY[way]("default")
            assert done == []

        assert len(done) == 1

    @some_ways
    def test_a_savepoint_that_is_rolled_back(self, way, done):
        with transaction.atomic(), pytest.raises(ValueError, match="no"), transaction.atomic():
            EVERY[way]("default")
            raise ValueError("no")

        assert done == []

    @some_ways
    def test_a_receiver_that_refuses_the_write(self, way, done):
        inline.critical([post_save, post_delete], Article, refuse, dispatch_uid="refuse")
        with transaction.atomic(), pytest.raises(ValueError, match="no"):
            EVERY[way]("default")

        assert done == []
        assert titles() == ["there"]

    def test_at_the_commit_itself(self, done):
        with transaction.atomic():
            raw().execute(f"UPDATE {TABLE} SET title = 'raw'")

        assert done == [("raw", False)]

    def test_a_callback_that_writes(self, clean):  # noqa: F811
        inline.critical(
            post_save,
            Article,
            lambda **kwargs: (
                transaction.on_commit(lambda: execute(insert("x")))
                if titles().count("x") < 2
                else None
            ),
        )
        Article.objects.bulk_create([Article(title="a")])

        assert titles() == ["a", "x", "x"]


# Databases.


class TestTwoDatabases:
    @pytest.fixture(autouse=True)
    def receivers(self, clean):  # noqa: F811
        self.calls = inline.critical([post_save, post_delete], Article)
        self.early = inline.critical([pre_save, pre_delete], Article)
        install_on("other")

    @every_way
    def test_each_way_in_the_other_one(self, way):
        for using in ("default", "other"):
            Article.objects.using(using).create(title="there")
        self.calls.clear()
        self.early.clear()
        EVERY[way]("other")

        assert [call["using"] for call in (*self.calls, *self.early)] == ["other"] * 2
        assert titles() == ["there"]
        assert waiting("other") == (0, 0)

    def test_both_at_once(self):
        with transaction.atomic(), transaction.atomic(using="other"):
            Article.objects.using("other").create(title="1")
            Article.objects.create(title="2")
            Article.objects.using("other").update(title="3")
            raw().execute(insert("4"))

        found = [(call["instance"].title, call["using"]) for call in self.calls]
        assert found[:3] == [("1", "other"), ("2", "default"), ("3", "other")]
        assert found[3] == ("4", "default")
        assert (titles(), titles("other")) == (["2", "4"], ["3"])

    def test_one_is_rolled_back(self):
        inline.critical(post_save, Article, note("late"), dispatch_uid="note")
        with (
            transaction.atomic(),
            pytest.raises(ValueError, match="no"),
            transaction.atomic(using="other"),
        ):
            Article.objects.using("other").create(title="1")
            Article.objects.create(title="2")
            raise ValueError("no")

        assert (titles(), titles("other")) == (["2"], [])
        assert noted() == ["late 2"]

    def test_a_receiver_writes_to_the_other_one(self):
        def mirror(instance, using, **kwargs):
            if using == "default":
                Article.objects.using("other").bulk_create([Article(title=instance.title)])

        inline.critical(post_save, Article, mirror, dispatch_uid="mirror")
        Article.objects.bulk_create([Article(title="a"), Article(title="b")])

        assert titles("other") == ["a", "b"]
        found = [(call["instance"].title, call["using"]) for call in self.calls]
        assert sorted(found) == [(t, u) for t in "ab" for u in ("default", "other")]

    def test_psql_is_refused_in_both(self, psql):
        for using in ("default", "other"):
            assert psql(insert(), using).returncode == 3
            assert titles(using) == []

    def test_a_database_whose_table_has_no_capture(self):
        """Django's own signals come all the same; who writes past them is not seen."""
        inline.uninstall("other")
        Article.objects.using("other").create(title="saved")
        Article.objects.using("other").bulk_create([Article(title="bulk")])

        assert self.calls[0]["instance"].title == "saved"
        assert titles("other") == ["bulk", "saved"]


# Threads and tasks.


def in_threads(count, work):
    """Run ``work(number)`` in threads that begin together; what one raises comes out."""
    barrier, errors = threading.Barrier(count), []

    def run(number):
        try:
            barrier.wait(30)
            work(number)
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


class TestThreads:
    def test_each_has_its_own_connection(self, clean):  # noqa: F811
        seen = []

        def look(instance, **kwargs):
            seen.append((threading.current_thread(), connection.connection, instance.title))

        inline.critical(post_save, Article, look)

        def work(number):
            for step in range(5):
                Article.objects.bulk_create([Article(title=f"{number} {step}")])
                with transaction.atomic():
                    raw().execute(insert(f"{number} {step} raw"))

        in_threads(4, work)

        expected = [f"{n} {s}{raw}" for n in range(4) for s in range(5) for raw in ("", " raw")]
        assert sorted(title for *_, title in seen) == sorted(expected) == titles()
        for number in range(4):
            own = {(thread, driver) for thread, driver, title in seen if title[0] == str(number)}
            assert len(own) == 1

    def test_updates_of_one_row(self, clean):  # noqa: F811
        """Staged updates lock the row, so that none is lost."""
        article = Article.objects.create(title="there")

        def count(instance, **kwargs):
            instance.changes += 1

        inline.critical(pre_save, Article, count)
        in_threads(
            4,
            lambda number: [
                Article.objects.filter(pk=article.pk).update(total=F("total") + 1) for _ in range(5)
            ],
        )

        article.refresh_from_db()
        assert (article.total, article.changes) == (20, 20)

    def test_muting_is_a_thread_s_own(self, clean):  # noqa: F811
        calls = inline.critical(post_save, Article, dispatch_uid="mute me")

        def work(number):
            with testing.muted("mute me") if number else nullcontext():
                Article.objects.bulk_create([Article(title=str(number))])

        in_threads(3, work)

        assert [call["instance"].title for call in calls] == ["0"]
        assert titles() == ["0", "1", "2"]


async def write_asynchronously():
    article = await Article.objects.acreate(title="created")
    await Article.objects.abulk_create([Article(title="bulk")])
    article.title = "saved"
    await article.asave()
    await Article.objects.filter(title="bulk").aupdate(title="updated")
    await Article.objects.abulk_update([article], ["title"])
    await sync_to_async(execute)(insert("raw"))
    await article.adelete()


WRITTEN_ASYNCHRONOUSLY = ["created", "bulk", "saved", "updated", "saved", "raw", "saved"]


async def view(request):
    with bulksafe.context(view=True):
        await write_asynchronously()
    return HttpResponse("done")


def refusing_view(request):
    Article.objects.bulk_create([Article(title="a")])
    return HttpResponse("never")


urlpatterns = [path("write/", view), path("refused/", refusing_view)]


class TestAsync:
    @pytest.fixture
    def seen(self, clean):  # noqa: F811
        found = []

        def look(instance, context, **kwargs):
            found.append((instance.title, context))

        inline.critical([post_save, post_delete], Article, look)
        return found

    @pytest.mark.parametrize("run", [lambda f: async_to_sync(f)(), lambda f: asyncio.run(f())])
    def test_django_s_own_methods(self, run, seen):
        async def work():
            try:
                await write_asynchronously()
            finally:
                await sync_to_async(connections.close_all)()

        run(work)

        assert [title for title, _ in seen] == WRITTEN_ASYNCHRONOUSLY

    def test_tasks_at_the_same_time(self, seen):
        async def one(number):
            with bulksafe.context(number=number):
                await Article.objects.abulk_create([Article(title=str(number))])

        async def all_of_them():
            await asyncio.gather(*map(one, range(5)))

        async_to_sync(all_of_them)()

        assert sorted(seen, key=str) == [(str(n), {"number": n}) for n in range(5)]

    def test_atomic_in_a_function(self, seen):
        @sync_to_async
        def work():
            with transaction.atomic():
                Article.objects.create(title="a")
                raw().execute(insert("b"))

        async_to_sync(work)()

        assert [title for title, _ in seen] == ["a", "b"]

    def test_an_asynchronous_receiver_of_another_signal_does_not_mind(self, seen):
        async def hear(**kwargs):
            heard.append(kwargs["instance"].title)

        heard: list[str] = []
        post_save.connect(hear, sender=Article)
        try:
            async_to_sync(write_asynchronously)()
        finally:
            post_save.disconnect(hear, sender=Article)

        assert [title for title, _ in seen] == WRITTEN_ASYNCHRONOUSLY
        assert heard == ["created", "saved"]

    def test_a_view_through_the_client(self, seen):
        with test.override_settings(ROOT_URLCONF=__name__):
            response = async_to_sync(test.AsyncClient().get)("/write/")

        assert response.content == b"done"
        assert seen == [(title, {"view": True}) for title in WRITTEN_ASYNCHRONOUSLY]

    @pytest.mark.parametrize("atomic_requests", [False, True])
    def test_a_view_whose_write_is_refused(self, atomic_requests, clean):  # noqa: F811
        inline.critical(post_save, Article, refuse)
        connection.settings_dict["ATOMIC_REQUESTS"] = atomic_requests
        try:
            with (
                test.override_settings(ROOT_URLCONF=__name__),
                pytest.raises(ValueError, match="no"),
            ):
                test.Client().get("/refused/")
        finally:
            connection.settings_dict["ATOMIC_REQUESTS"] = False

        assert titles() == []


# Test cases.


def run_cases(case):
    """The result of a class of test cases."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result


def names_of(listed):
    return [str(case).split()[0] for case, _ in listed]


class TestTestCases:
    def test_a_write_that_nobody_was_told_fails_the_test_at_its_end(self, clean):  # noqa: F811
        calls = inline.critical(post_save, Article, dispatch_uid="warehouse")

        class Cases(test.TestCase):
            @classmethod
            def setUpTestData(cls):
                Article.objects.create(title="for all")

            def test_1_past_django(self):
                raw().execute(insert())

            def test_2_past_django_and_on(self):
                raw().execute(insert("told"))
                Article.objects.count()

            def test_3_by_django(self):
                Article.objects.bulk_create([Article(title="bulk")])
                assert titles() == ["bulk", "for all"]

            def test_4_in_a_savepoint_that_is_rolled_back(self):
                with pytest.raises(KeyError), transaction.atomic():
                    raw().execute(insert())
                    raise KeyError

            def test_5_in_a_savepoint(self):
                with transaction.atomic():
                    raw().execute(insert())

            def test_6_refused(self):
                with (
                    testing.muted("warehouse"),
                    pytest.raises(ReceiversNotRun),
                    transaction.atomic(),
                ):
                    raw().execute(insert())
                    connection.check_constraints()

            def test_7_callbacks(self):
                with self.captureOnCommitCallbacks(execute=True):
                    Article.objects.update(title="changed")

        result = run_cases(Cases)

        assert result.testsRun == 7
        assert names_of(result.failures) == []
        assert names_of(result.errors) == ["test_1_past_django"]
        assert "ReceiversNotRun" in result.errors[0][1]
        assert f"an INSERT of public.{TABLE} (1 row): warehouse" in result.errors[0][1]
        told = [call["instance"].title for call in calls]
        assert told == ["for all", "told", "bulk", "raw", "changed"]
        assert titles() == []

    def test_what_a_receiver_raises(self, clean):  # noqa: F811
        inline.critical(post_save, Article, refuse)

        class Cases(test.TestCase):
            def test_it_is_caught(self):
                for write in (
                    lambda: Article.objects.create(title="a"),
                    lambda: Article.objects.bulk_create([Article(title="a")]),
                    lambda: execute(insert()),
                ):
                    with pytest.raises(ValueError, match="no"):
                        write()
                    assert titles() == []

        assert run_cases(Cases).wasSuccessful()

    def test_transactions_that_are_real(self, clean):  # noqa: F811
        calls = inline.critical(post_save, Article, dispatch_uid="warehouse")

        class Cases(test.TransactionTestCase):
            available_apps = ["bulksafe", "tests.apps.practice"]

            def test_1_past_django(self):
                with pytest.raises(psycopg.IntegrityError):
                    raw().execute(insert())

            def test_2_by_django(self):
                Article.objects.bulk_create([Article(title="bulk")])
                with transaction.atomic():
                    raw().execute(insert())
                assert titles() == ["bulk", "raw"]

            def test_3_is_empty_again(self):
                assert titles() == []

        result = run_cases(Cases)

        assert (result.errors, result.failures, result.testsRun) == ([], [], 3)
        assert [call["instance"].title for call in calls] == ["bulk", "raw"]


# Kinds of connections.


@contextmanager
def alias(name, **changes) -> Iterator[str]:
    """Another connection to the default database."""
    found = connection.settings_dict
    connections.settings[name] = {
        **found,
        **changes,
        "OPTIONS": {**found["OPTIONS"], **changes.get("OPTIONS", {})},
    }
    try:
        yield name
    finally:
        connections[name].close()
        if hasattr(connections[name], "close_pool"):
            connections[name].close_pool()
        del connections[name]
        del connections.settings[name]


@pytest.mark.parametrize("write", ["bulk_create()", "update()"])
def test_more_keys_than_parameters_of_a_statement(write, clean):  # noqa: F811
    """The server takes 65,535 of them: those that are stored are asked for some at a time."""
    seen = []

    def look(instance, old, using, **kwargs):
        if not seen:
            Log.objects.using(using).exists()
        seen.append(old is None)

    count, table = 33_000, Pair._meta.db_table
    if write == "update()":
        execute(
            f"INSERT INTO {table} (first, second, note) SELECT n, n, '' "
            f"FROM generate_series(1, {count}) AS n"
        )
    inline.critical(pre_save, Pair, look)
    with alias("server side", OPTIONS={"server_side_binding": True}) as using:
        pairs = Pair.objects.using(using)
        if write == "update()":
            assert pairs.update(note="a") == count
        else:
            pairs.bulk_create((Pair(first=n, second=n) for n in range(count)), batch_size=1000)

    assert seen == [write != "update()"] * count


def exercise(using, calls):
    """All ways to write, by one connection; each is to call once before and once after."""
    for is_atomic in (False, True):
        for way, write in EVERY.items():
            Article.objects.all().delete()
            Article.objects.create(title="there")
            calls.clear()
            with perhaps_atomic(is_atomic, using):
                write(using)
            called = [(call["instance"].title, call["using"]) for call in calls]
            title = "there" if way in DELETING else "written"
            assert called == [(title, using)] * 2, (way, is_atomic)
            with pytest.raises(ValueError, match="no"), transaction.atomic(using=using):
                there_again(using)
                write(using)
                raise ValueError("no")
    calls.clear()
    with transaction.atomic(using=using):
        connections[using].connection.execute(insert("raw"))
    assert [call["instance"].title for call in calls] == ["raw"] * 2
    with pytest.raises(psycopg.IntegrityError):
        connections[using].connection.execute(insert("past"))
    assert "past" not in titles()


def there_again(using):
    Article.objects.using(using).all().delete()
    Article.objects.using(using).create(title="there")


class TestKindsOfConnections:
    @pytest.fixture(params=["all", "little"])
    def calls(self, request, clean):  # noqa: F811
        """Of receivers before and after."""
        return hear(EVERY_SIGNAL, request.param, "kinds")

    def test_as_it_is(self, calls):
        with alias("same") as using:
            exercise(using, calls)

    def test_server_side_binding(self, calls):
        with alias("bound", OPTIONS={"server_side_binding": True}) as using:
            exercise(using, calls)

    @pytest.mark.parametrize("level", ["REPEATABLE_READ", "SERIALIZABLE"])
    def test_isolation_levels(self, level, calls):
        level = getattr(psycopg.IsolationLevel, level)
        with alias("isolated", OPTIONS={"isolation_level": level}) as using:
            exercise(using, calls)

    def test_prepared_statements(self, calls):
        with alias("prepared", OPTIONS={"prepare_threshold": 0}) as using:
            exercise(using, calls)

    def test_a_time_zone_and_settings_of_its_own(self, calls):
        options = "-c timezone=Asia/Kathmandu -c client_min_messages=error -c datestyle=German"
        with alias("strange", TIME_ZONE="Asia/Kathmandu", OPTIONS={"options": options}) as using:
            exercise(using, calls)

    def test_another_database_by_now(self, clean):  # noqa: F811
        """As Django's test runner has its connections lead to the test databases."""
        calls = hear(EVERY_SIGNAL, "all", "kinds")
        install_on("other")
        with alias("moving") as using:
            Article.objects.using(using).bulk_create([Article(title="1")])
            connections[using].close()
            connections[using].settings_dict["NAME"] = connections["other"].settings_dict["NAME"]
            Article.objects.using(using).bulk_create([Article(title="2")])
        Article.objects.using("other").bulk_create([Article(title="3")])

        assert (titles(), titles("other")) == (["1"], ["2", "3"])
        ids = [call["event_id"] for call in calls if call["signal"] is post_save]
        first, second, third = (found.rpartition("-")[0] for found in ids)
        assert first != second == third

    def test_a_role_of_its_own(self, calls):
        execute("CREATE ROLE kinds_clerk LOGIN")
        execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {TABLE} TO kinds_clerk")
        execute(f"GRANT USAGE ON SEQUENCE {TABLE}_id_seq TO kinds_clerk")
        execute(f"GRANT EXECUTE ON FUNCTION {', '.join(own.WRITING)} TO kinds_clerk")
        try:
            with alias("clerk", OPTIONS={"assume_role": "kinds_clerk"}) as using:
                exercise(using, calls)
        finally:
            execute("DROP OWNED BY kinds_clerk")
            execute("DROP ROLE kinds_clerk")

    @pytest.mark.parametrize("age", [0, 60, None])
    def test_persistent_connections(self, age, calls):
        with alias("persistent", CONN_MAX_AGE=age, CONN_HEALTH_CHECKS=True) as using:
            pids = []
            for number in range(3):
                # As at the beginning and at the end of a request.
                close_old_connections()
                Article.objects.using(using).bulk_create([Article(title=f"{number}")])
                with transaction.atomic(using=using):
                    connections[using].connection.execute(insert(f"{number} raw"))
                pids.append(connections[using].connection.info.backend_pid)
                close_old_connections()

        assert len(set(pids)) == (3 if age == 0 else 1)
        found = [call["instance"].title for call in calls]
        assert found == [f"{n}{raw}" for n in range(3) for raw in ("", "", " raw", " raw")]


class TestDjangosPool:
    @pytest.fixture
    def calls(self, clean):  # noqa: F811
        return hear(EVERY_SIGNAL, "all", "pool")

    def test_all_ways(self, calls):
        with alias("pooled", OPTIONS={"pool": {"min_size": 1, "max_size": 2}}) as using:
            exercise(using, calls)

    def test_threads_use_the_same_connection_in_turn(self, calls):
        """What the server says goes to whoever has the connection just then."""
        drivers = []
        with alias("pooled", OPTIONS={"pool": {"min_size": 1, "max_size": 1}}) as using:

            def work(number):
                Article.objects.using(using).bulk_create([Article(title=f"{number}")])
                with transaction.atomic(using=using):
                    connections[using].connection.execute(insert(f"{number} raw"))
                drivers.append(connections[using].connection.info.backend_pid)

            for number in range(3):
                work(number)
                connections[using].close()
                in_threads(1, lambda _, n=number: work(n + 10))

        assert len(set(drivers)) == 1
        found = [call["instance"].title for call in calls if call["signal"] is post_save]
        numbers = [n + k for n in range(3) for k in (0, 10)]
        assert found == [f"{n}{raw}" for n in numbers for raw in ("", " raw")]

    def test_more_threads_than_connections(self, calls):
        options = {"pool": {"min_size": 1, "max_size": 2, "timeout": 60}}
        with alias("pooled", OPTIONS=options) as using:

            def work(number):
                for step in range(5):
                    Article.objects.using(using).bulk_create([Article(title=f"{number} {step}")])
                    connections[using].close()

            in_threads(5, work)

        found = [call["instance"].title for call in calls if call["signal"] is post_save]
        assert sorted(found) == [f"{n} {s}" for n in range(5) for s in range(5)]

    def test_what_one_leaves_behind_is_none_of_the_next_one_s(self, calls):
        with alias("pooled", OPTIONS={"pool": {"min_size": 1, "max_size": 1}}) as using:

            def leave():
                connection = connections[using]
                connection.ensure_connection()
                connection.set_autocommit(False)
                connection.connection.execute(insert("gone"))
                connection.rollback()
                connection.set_autocommit(True)

            in_threads(1, lambda _: leave())
            Article.objects.using(using).bulk_create([Article(title="kept")])

        assert [call["instance"].title for call in calls] == ["kept"] * 2
        assert titles() == ["kept"]


@pytest.fixture
def bouncer(postgres) -> Iterator[int]:
    """The port of a PgBouncer in transaction mode."""
    if PGBOUNCER is None:
        pytest.skip("PgBouncer is not installed")
    found = conninfo_to_dict(postgres.url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    directory = Path(tempfile.mkdtemp(prefix="bulksafe-"))
    directory.chmod(0o777)
    config = directory / "pgbouncer.ini"
    config.write_text(
        CONFIG.format(
            host=found.get("host", "127.0.0.1"),
            port=found.get("port", 5432),
            user=found.get("user", "postgres"),
            password=f"password={found['password']}" if found.get("password") else "",
            listen_port=port,
            directory=directory,
        )
    )
    as_user = ["-u", "postgres"] if os.getuid() == 0 else []
    process = subprocess.Popen(
        [PGBOUNCER, *as_user, config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: _listens(port) or process.poll() is not None)
        assert process.poll() is None, (directory / "pgbouncer.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(directory)


def _listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class TestPgBouncer:
    @pytest.fixture
    def using(self, bouncer, clean):  # noqa: F811
        with alias(
            "bounced",
            HOST="127.0.0.1",
            PORT=str(bouncer),
            USER="anyone",
            DISABLE_SERVER_SIDE_CURSORS=True,
        ) as name:
            yield name

    @pytest.fixture(params=["all", "little"])
    def calls(self, request, using):
        return hear(EVERY_SIGNAL, request.param, "bounced")

    def test_all_ways(self, using, calls):
        exercise(using, calls)

    def test_many_clients_of_few_connections(self, using, calls):
        def work(number):
            for step in range(5):
                Article.objects.using(using).bulk_create([Article(title=f"{number} {step}")])
                with transaction.atomic(using=using):
                    connections[using].connection.execute(insert(f"{number} {step} raw"))

        in_threads(6, work)

        found = [call["instance"].title for call in calls if call["signal"] is post_save]
        expected = [f"{n} {s}{raw}" for n in range(6) for s in range(5) for raw in ("", " raw")]
        assert sorted(found) == sorted(expected) == titles()

    def test_iterating(self, using, calls):
        Article.objects.using(using).bulk_create([Article(title=str(n)) for n in range(10)])
        calls.clear()
        for article in Article.objects.using(using).order_by("pk").iterator(chunk_size=3):
            article.save(using=using)

        assert [call["instance"].title for call in calls] == [
            str(n) for n in range(10) for _ in range(2)
        ]


# What receivers raise, and what they do to the transaction.


class TestWhatReceiversRaise:
    @pytest.fixture(params=[ValueError, SystemExit, KeyboardInterrupt])
    def error(self, request):
        return request.param

    @pytest.fixture(params=["early", "late"])
    def raising(self, request, error, article):
        def fail(instance, **kwargs):
            Log.objects.create(side="", text="gone with it")
            raise error("no")

        signals = {"early": [pre_save, pre_delete], "late": [post_save, post_delete]}
        inline.critical(signals[request.param], Article, fail)

    @pytest.mark.matrix(2)
    @some_ways
    def test_it_comes_out_of_the_call_and_nothing_is_stored(self, way, raising, error):
        before = Article.objects.values().get()
        with pytest.raises(error, match="no"):
            EVERY[way]("default")

        assert not connection.in_atomic_block
        assert connection.get_autocommit()
        assert Article.objects.values().get() == before
        assert noted() == []
        assert waiting() == (0, 0)

    @pytest.mark.matrix(2)
    @some_ways
    def test_inside_atomic_the_transaction_goes_on(self, way, raising, error):
        with transaction.atomic():
            Log.objects.create(side="", text="before")
            with pytest.raises(error, match="no"):
                EVERY[way]("default")
            assert titles() == ["there"]
            Log.objects.create(side="", text="after")
            with pytest.raises(error, match="no"), transaction.atomic():
                EVERY[way]("default")
            Log.objects.create(side="", text="after that")

        assert noted() == ["before", "after", "after that"]
        assert titles() == ["there"]

    def test_at_the_commit(self, raising, error):
        with pytest.raises(error, match="no"), transaction.atomic():
            Log.objects.create(side="", text="before")
            raw().execute(f"UPDATE {TABLE} SET title = 'raw'")

        assert (noted(), titles()) == ([], ["there"])
        assert connection.get_autocommit()

    def test_the_next_write_is_like_any_other(self, raising, error):
        with pytest.raises(error):
            Article.objects.update(title="x")
        for signal in (pre_save, post_save):
            signal.disconnect(sender=Article, dispatch_uid="receiver 0")
        calls = inline.critical(post_save, Article, dispatch_uid="next")
        Article.objects.update(title="y")

        assert [call["old"].title for call in calls] == ["there"]


def test_the_first_receiver_that_raises_is_the_last_one(article):
    calls = inline.critical(post_save, Article, dispatch_uid="first")
    inline.critical(post_save, Article, refuse, dispatch_uid="second")
    never = inline.critical(post_save, Article, dispatch_uid="third")
    with pytest.raises(ValueError, match="no"):
        Article.objects.update(title="a")

    assert (len(calls), len(never)) == (1, 0)


def test_one_row_of_many(clean):  # noqa: F811
    def fail(instance, **kwargs):
        if instance.title == "7":
            raise ValueError("no")

    inline.critical(post_save, Article, fail)
    with pytest.raises(ValueError, match="no"):
        Article.objects.bulk_create([Article(title=str(n)) for n in range(10)])

    assert titles() == []


class TestReceiversThatBreakTheTransaction:
    """Nobody would say that nothing is stored: neither Django nor PostgreSQL."""

    def swallow_orm_error(**kwargs):
        Log.objects.create(pk=1, side="", text="")
        with suppress(Exception):
            Log.objects.create(pk=1, side="", text="")

    def swallow_sql_error(**kwargs):
        with suppress(Exception):
            execute("SELECT 1 / 0")

    def swallow_driver_error(**kwargs):
        with suppress(Exception):
            raw().execute("SELECT 1 / 0")

    def close(**kwargs):
        connection.close()

    def close_all(**kwargs):
        connections.close_all()

    def set_rollback(**kwargs):
        transaction.set_rollback(True)

    def roll_back(**kwargs):
        raw().execute("SELECT 1")
        execute("ROLLBACK")

    BREAKING = {
        "an ORM error is swallowed": swallow_orm_error,
        "a SQL error is swallowed": swallow_sql_error,
        "a driver's error is swallowed": swallow_driver_error,
        "the connection is closed": close,
        "all connections are closed": close_all,
        "set_rollback": set_rollback,
        "ROLLBACK": roll_back,
    }

    @pytest.mark.parametrize("breaking", BREAKING)
    @pytest.mark.parametrize("when", ["early", "late"])
    @pytest.mark.parametrize("way", ["save", "update", "delete"])
    def test_it_is_said(self, way, when, breaking, article):
        if (when, breaking) == ("early", "ROLLBACK"):
            pytest.skip("there may be no transaction yet, which begins with the first statement")
        signals = {"early": [pre_save, pre_delete], "late": [post_save, post_delete]}[when]
        inline.critical(signals, Article, self.BREAKING[breaking], dispatch_uid="breaking")
        for is_atomic in (False, True):
            with pytest.raises(BrokenTransaction, match="breaking"), perhaps_atomic(is_atomic):
                EVERY[way]("default")

            connection.close()
            assert (titles(), noted(), waiting()) == (["there"], [], (0, 0))

    @pytest.mark.parametrize("breaking", ["an ORM error is swallowed", "set_rollback"])
    def test_of_receivers_that_are_not_critical(self, breaking, article):
        """They run in the same transaction now."""
        inline.critical(post_save, Article)
        function = self.BREAKING[breaking]
        post_save.connect(function, sender=Article)
        try:
            with pytest.raises(BrokenTransaction):
                Article.objects.create(title="a")
        finally:
            post_save.disconnect(function, sender=Article)

        assert (titles(), noted()) == (["there"], [])

    def test_the_outer_transaction_goes_on_where_it_can(self, article):
        inline.critical(post_save, Article, self.BREAKING["an ORM error is swallowed"])
        with transaction.atomic():
            Tag.objects.create(name="before")
            with pytest.raises(BrokenTransaction):
                Article.objects.update(title="a")
            Tag.objects.create(name="after")

        assert Tag.objects.count() == 2
        assert titles() == ["there"]

    @every_way
    def test_an_error_inside_a_savepoint_is_no_harm(self, way, article):
        def careful(**kwargs):
            with pytest.raises(Exception, match="division"), transaction.atomic():
                execute("SELECT 1 / 0")
            Log.objects.create(side="", text="goes on")

        inline.critical([post_save, post_delete], Article, careful)
        EVERY[way]("default")

        assert noted() == ["goes on"]
        assert titles() == ([] if way in DELETING else sorted({"written"} | set(titles())))

    def test_a_write_without_a_statement(self, article):
        """No transaction was begun, and none is missed."""
        inline.critical([pre_save, post_save], Article)

        assert Article.objects.bulk_create([]) == []
        assert Article.objects.none().update(title="a") == 0
        assert Article.objects.none().delete() == (0, {})
        assert Article.objects.bulk_update([], ["title"]) == 0

    def test_a_signal_that_is_sent_by_hand(self, article):
        calls = inline.critical(post_save, Article)
        post_save.send(sender=Article, instance=article, created=False, using="default")

        assert [call["instance"] for call in calls] == [article]


class TestEarlyReceiversThatUseTheDriver:
    """They find the database as it was, and what they write stays."""

    SIGNALS = [pre_save, pre_delete]
    NOTE = f"INSERT INTO {Log._meta.db_table} (side, text) VALUES ('', 'noted')"

    def through_connection(self, statement):
        return raw().execute(statement)

    def through_cursor(self, statement):
        return raw().cursor().execute(statement)

    def through_a_cursor_of_its_own(self, statement):
        return psycopg.RawCursor(raw()).execute(statement)

    def inside_a_transaction(self, statement):
        with raw().transaction():
            return raw().execute(statement)

    USING = {
        "its connection": through_connection,
        "its cursor": through_cursor,
        "a cursor of one's own": through_a_cursor_of_its_own,
        "its transaction": inside_a_transaction,
    }

    @pytest.mark.matrix(3)
    @every_way
    @pytest.mark.parametrize("using", USING)
    def test_to_read(self, way, using, article):
        seen = []

        def look(**kwargs):
            rows = self.USING[using](self, f"SELECT title FROM {TABLE}").fetchall()
            seen.append([title for (title,) in rows])

        inline.critical(self.SIGNALS, Article, look)
        EVERY[way]("default")

        assert seen == [["there"]]

    @every_way
    @pytest.mark.parametrize("then", [True, False], ids=["and another asks", "and that is all"])
    def test_to_write(self, way, then, article):
        inline.critical(
            self.SIGNALS,
            Article,
            lambda **kwargs: self.through_connection(self.NOTE),
            dispatch_uid="write",
        )
        if then:
            inline.critical(
                self.SIGNALS, Article, lambda **kwargs: Log.objects.count(), dispatch_uid="ask"
            )
        EVERY[way]("default")

        assert noted() == ["noted"]

    @some_ways
    def test_to_copy(self, way, article):
        def copy(**kwargs):
            statement = f"COPY {Log._meta.db_table} (side, text) FROM STDIN"
            with connection.cursor() as cursor, cursor.copy(statement) as rows:
                rows.write_row(["", "noted"])

        inline.critical(self.SIGNALS, Article, copy, dispatch_uid="copy")
        inline.critical(
            self.SIGNALS, Article, lambda **kwargs: Log.objects.count(), dispatch_uid="ask"
        )
        EVERY[way]("default")

        assert noted() == ["noted"]

    @some_ways
    def test_to_look_at_it_only(self, way, article):
        """That is no reason to take anything back."""
        seen = []

        def look(**kwargs):
            seen.append((isinstance(raw(), psycopg.Connection), raw().closed, raw().info.dbname))

        inline.critical(self.SIGNALS, Article, look)
        EVERY[way]("default")

        assert seen == [(True, False, connection.settings_dict["NAME"])]
        assert type(raw()) is psycopg.Connection

    @some_ways
    def test_to_keep_it(self, way, article):
        """What they have got is good for later, too."""
        kept = []
        inline.critical(self.SIGNALS, Article, lambda **kwargs: kept.append(raw()))
        EVERY[way]("default")
        with transaction.atomic():
            kept[0].execute(insert("later"))

        assert "later" in titles()


class TestReceiversThatCatchErrors:
    @pytest.fixture(autouse=True)
    def refusing(self, clean):  # noqa: F811
        inline.critical(post_save, Shelf, refuse, dispatch_uid="refuse")

    @pytest.mark.parametrize("early", [False, True])
    def test_of_other_receivers(self, early):
        """Each write has a savepoint of its own, also there."""
        caught = []

        def careful(**kwargs):
            for write in (
                lambda: Shelf.objects.create(name="a"),
                lambda: Shelf.objects.bulk_create([Shelf(name="a")]),
                lambda: execute(
                    "INSERT INTO practice_criticalshelf (name, books, pages) VALUES ('a', 0, 0)"
                ),
            ):
                with pytest.raises(ValueError, match="no") as error:
                    write()
                caught.append(error)

        inline.critical(pre_save if early else post_save, Article, careful)
        Article.objects.create(title="a")
        Article.objects.update(title="b")

        assert len(caught) == 6
        assert titles() == ["b"]
        assert Shelf.objects.count() == 0

    def test_of_what_was_written_past_django_s_cursors(self):
        """That cannot be taken back alone."""

        def careless(**kwargs):
            raw().execute(
                "INSERT INTO practice_criticalshelf (name, books, pages) VALUES ('a', 0, 0)"
            )
            with pytest.raises(ValueError, match="no"):
                Log.objects.count()

        inline.critical(post_save, Article, careless)
        with pytest.raises(ReceiversNotRun):
            Article.objects.create(title="a")

        assert titles() == []


def test_a_receiver_looks_with_another_connection(article):
    """It waits for nobody."""
    counts = []

    def look(**kwargs):
        in_threads(1, lambda _: counts.append(Article.objects.filter(title="there").count()))

    inline.critical([pre_save, post_save], Article, look)
    Article.objects.update(title="x")

    assert counts == [1, 1]


def test_a_receiver_writes_past_django_s_cursors(clean):  # noqa: F811
    """It is told before the receiver's call is over, as its other writes are."""
    shelves = inline.critical(post_save, Shelf)

    def write(**kwargs):
        raw().execute("INSERT INTO practice_criticalshelf (name, books, pages) VALUES ('a', 0, 0)")

    inline.critical(post_save, Article, write)
    Article.objects.bulk_create([Article(title="a")])
    with transaction.atomic():
        raw().execute(insert())

    assert len(shelves) == 2


def test_a_receiver_writes_to_its_own_table_past_django_s_cursors(clean):  # noqa: F811
    seen = []

    def again(instance, **kwargs):
        seen.append(instance.title)
        raw().execute(insert("again"))

    inline.critical(post_save, Article, again)
    Article.objects.create(title="a")
    with transaction.atomic():
        raw().execute(insert("b"))

    assert seen == ["a", "b"]
    assert titles() == ["a", "again", "again", "b"]


# Muting.


@contextmanager
def mute_signals(*signals):
    """What factory_boy's function of this name does."""
    paused = {}
    for signal in signals:
        paused[signal] = signal.receivers
        signal.receivers = []
    try:
        yield
    finally:
        for signal, receivers in paused.items():
            signal.receivers = receivers + signal.receivers
            with signal.lock:
                signal.sender_receivers_cache.clear()


def _update_all():
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {Article._meta.db_table} SET version = 6")


SAVED = {"pre": pre_save, "post": post_save}

#: Writes of articles with the titles a, b, c and d.
_OF_SEVERAL_ROWS = {
    "bulk_create()": lambda: Article.objects.bulk_create(Article(title=t) for t in "abcd"),
    "bulk_update()": lambda: Article.objects.bulk_update(
        list(Article.objects.order_by("pk")), ["title"]
    ),
    "update()": lambda: Article.objects.update(version=5),
    "SQL": _update_all,
}


class TestMuting:
    @pytest.fixture
    def calls(self, article):
        found = []

        def receiver(instance, signal, **kwargs):
            found.append((instance.title, signal))

        self.receiver = receiver
        inline.critical(EVERY_SIGNAL, Article, receiver, dispatch_uid="mute me")
        found.clear()
        return found

    def check(self, way, muted, calls, count=2):
        """Nothing is called inside the block, nor refused, and all is as before it afterwards."""
        for is_atomic in (False, True):
            with muted:
                there_again("default")
                assert calls == []
                with perhaps_atomic(is_atomic):
                    EVERY[way]("default")
                with transaction.atomic():
                    raw().execute(insert("raw"))
            assert calls == []
            assert waiting() == (0, 0)
            with muted:
                there_again("default")
            EVERY[way]("default")
            assert len(calls) == count
            calls.clear()

    @some_ways
    def test_bulksafe_s_own(self, way, calls):
        class Muted:
            def __enter__(self):
                names = ("pre_save", "post_save", "pre_delete", "post_delete")
                self.block = testing.muted(*(f"mute me.{name}" for name in names))
                self.block.__enter__()

            def __exit__(self, *error):
                self.block.__exit__(*error)

        self.check(way, Muted(), calls)

    @some_ways
    def test_factory_boy_s(self, way, calls):
        class Muted:
            def __enter__(self):
                self.block = mute_signals(*EVERY_SIGNAL)
                self.block.__enter__()

            def __exit__(self, *error):
                self.block.__exit__(*error)

        self.check(way, Muted(), calls)

    @some_ways
    @pytest.mark.parametrize("by", ["uid", "function"])
    def test_disconnect_and_connect(self, way, by, calls):
        """Connected again, even as an ordinary receiver is, it is critical again."""
        receiver = self.receiver

        class Muted:
            def __enter__(self):
                for signal in EVERY_SIGNAL:
                    assert signal.disconnect(sender=Article, dispatch_uid="mute me")
                    assert not signal.has_listeners(Article)

            def __exit__(self, *error):
                for signal in EVERY_SIGNAL:
                    if by == "uid":
                        signal.connect(receiver, sender=Article, dispatch_uid="mute me")
                    else:
                        signal.connect(receiver, sender=Article)
                    assert signal.has_listeners(Article)

        self.check(way, Muted(), calls)

    @some_ways
    def test_disconnect_a_function_without_a_name(self, way, article):
        found = []

        def receiver(instance, **kwargs):
            found.append(instance.title)

        inline.critical(EVERY_SIGNAL, Article, receiver, dispatch_uid=None)
        for signal in EVERY_SIGNAL:
            assert signal.disconnect(receiver, sender=Article)
        EVERY[way]("default")

        assert found == []

    def test_one_of_several_receivers(self, calls):
        others = inline.critical(post_save, Article, dispatch_uid="another")
        with testing.muted("mute me.post_save"):
            Article.objects.update(title="a")

        assert len(others) == 1
        assert [signal for _, signal in calls] == [pre_save]

    def test_a_receiver_of_another_sender_is_not_disconnected(self, calls):
        assert not post_save.disconnect(self.receiver, sender=Shelf, dispatch_uid="mute me")
        assert not post_save.disconnect(self.receiver, dispatch_uid="mute me")
        Article.objects.update(title="a")

        assert len(calls) == 2

    def test_psql_is_refused_all_the_same(self, psql, calls):
        """Another process knows nothing of what is disconnected here."""
        post_save.disconnect(sender=Article, dispatch_uid="mute me")

        assert psql(insert()).returncode == 3

    @some_ways
    def test_a_receiver_that_disconnects_itself(self, way, article):
        seen = []

        def once(**kwargs):
            seen.append(kwargs)
            for signal in EVERY_SIGNAL:
                signal.disconnect(sender=Article, dispatch_uid="once")

        inline.critical(EVERY_SIGNAL, Article, once, dispatch_uid="once")
        EVERY[way]("default")

        assert len(seen) == 1

    @pytest.mark.parametrize("way", [*_OF_SEVERAL_ROWS, "delete()"])
    @pytest.mark.parametrize("when", ["pre", "post"])
    @pytest.mark.parametrize("options", [{}, {"row_by_row": True}], ids=["", "row by row"])
    @pytest.mark.parametrize("is_looking", [False, True], ids=["", "looking"])
    def test_receivers_that_disconnect_each_other(self, way, when, options, is_looking):
        """Of several rows: as with Django's send(), it counts from the next row."""
        is_deletion = way == "delete()"
        signals = {"pre": pre_delete, "post": post_delete} if is_deletion else SAVED
        signal = signals[when]

        def called(connect, write):
            found = []

            def first(instance, **kwargs):
                found.append(("first", instance.title))
                if is_looking:
                    Article.objects.count()
                if len(found) > 2:
                    signal.disconnect(sender=Article, dispatch_uid="second")
                    signal.disconnect(sender=Article, dispatch_uid="first")

            def second(instance, **kwargs):
                found.append(("second", instance.title))

            for receiver in (first, second):
                connect(receiver, dispatch_uid=receiver.__name__)
            write()
            return found

        def critically(function, dispatch_uid):
            inline.critical(signal, Article, function, dispatch_uid=dispatch_uid, **options)

        def by_django(function, dispatch_uid):
            signal.connect(function, sender=Article, dispatch_uid=dispatch_uid)

        def of_each():
            for article in Article.objects.order_by("pk"):
                article.delete() if is_deletion else article.save()

        Article.objects.bulk_create(Article(title=title) for title in "abcd")
        expected = called(by_django, of_each)
        if is_deletion:
            Article.objects.bulk_create(Article(title=title) for title in "abcd")
        found = called(critically, _OF_SEVERAL_ROWS.get(way, Article.objects.all().delete))

        assert expected == [(name, title) for title in "ab" for name in ("first", "second")]
        # PostgreSQL updates rows in the order in which they lie.
        rows = "ab" if way.startswith("bulk") or is_deletion else [found[0][1], found[2][1]]
        assert found == [(name, title) for title in rows for name in ("first", "second")]

    def test_another_function_under_the_same_name(self, calls):
        """As a test puts a mock there."""
        mocked = []

        def mock(instance, **kwargs):
            mocked.append(instance.title)

        post_save.disconnect(sender=Article, dispatch_uid="mute me")
        post_save.connect(mock, sender=Article, dispatch_uid="mute me")
        Article.objects.create(title="a")
        post_save.disconnect(sender=Article, dispatch_uid="mute me")

        assert mocked == ["a"]
        assert [signal for _, signal in calls] == [pre_save]


def test_listeners_are_seen(clean):  # noqa: F811
    assert not post_save.has_listeners(Article)
    inline.critical(post_save, Article)

    assert post_save.has_listeners(Article)
    assert not post_save.has_listeners(Shelf)
    assert not pre_save.has_listeners(Article)


@saving_ways
def test_a_receiver_that_nobody_else_holds(way, article):
    found = SimpleNamespace(count=0)

    def declare():
        class Holder:
            def receive(self, **kwargs):
                found.count += 1

        inline.critical(
            post_save, Article, lambda **kwargs: setattr(found, "count", found.count + 1)
        )
        inline.critical(post_save, Article, Holder().receive)

    declare()
    gc.collect()
    SAVING[way]("default")

    assert found.count == 2


# Receivers that write.


class TestReceiversThatWrite:
    @every_way
    def test_an_update_of_the_row_itself(self, way, article):
        seen = []

        def count(instance, sender, **kwargs):
            seen.append(instance.pk)
            sender.objects.filter(pk=instance.pk).update(changes=F("changes") + 1)

        inline.critical([post_save, post_delete], Article, count)
        EVERY[way]("default")

        assert len(seen) == 1
        if way in SAVING:
            assert Article.objects.get(title="written").changes == 1

    @saving_ways
    def test_a_save_of_the_row_itself(self, way, article):
        seen = []

        def count(instance, **kwargs):
            seen.append(instance.title)
            instance.changes += 1
            instance.save()

        inline.critical(post_save, Article, count)
        SAVING[way]("default")

        assert seen == ["written"]
        assert Article.objects.get(title="written").changes == 1

    @saving_ways
    def test_a_bulk_update_of_all_rows(self, way, article):
        seen = []

        def renumber(sender, instance, **kwargs):
            seen.append(instance.title)
            rows = list(sender.objects.order_by("pk"))
            for number, row in enumerate(rows, 1):
                row.position = number
            sender.objects.bulk_update(rows, ["position"])

        inline.critical(post_save, Article, renumber)
        SAVING[way]("default")

        assert seen == ["written"]
        positions = Article.objects.order_by("pk").values_list("position", flat=True)
        assert list(positions) == list(range(1, len(positions) + 1))

    @saving_ways
    def test_two_that_keep_each_other_right_come_to_rest(self, way, article):
        seen = []

        def slug(instance, **kwargs):
            seen.append("slug")
            Article.objects.filter(pk=instance.pk).update(slug=instance.title)

        def email(instance, **kwargs):
            seen.append("email")
            Article.objects.filter(pk=instance.pk).update(email=instance.title)

        inline.critical(post_save, Article, slug, dispatch_uid="slug")
        inline.critical(post_save, Article, email, dispatch_uid="email")
        SAVING[way]("default")

        found = Article.objects.get(title="written")
        assert (found.slug, found.email) == ("written", "written")
        assert len(seen) <= 6

    @some_saving_ways
    @pytest.mark.parametrize("how", ["update", "raw"])
    def test_two_that_update_the_row_are_called_once_inside_each_other(self, way, how, article):
        """With plain signals, such an update calls no receiver."""

        def write(pk):
            if how == "update":
                Article.objects.filter(pk=pk).update(changes=F("changes") + 1)
            else:
                execute(f"UPDATE {TABLE} SET changes = changes + 1 WHERE id = {pk}")

        for name in ("ping", "pong"):
            inline.critical(
                post_save, Article, lambda instance, **k: write(instance.pk), dispatch_uid=name
            )
        SAVING[way]("default")

        assert max(Article.objects.values_list("changes", flat=True)) == 4

    @some_saving_ways
    @in_atomic_or_not
    def test_two_that_never_converge_are_cut(self, way, is_atomic, article):
        def write(instance, **kwargs):
            found = Article.objects.get(pk=instance.pk)
            found.changes += 1
            found.save()

        for name in ("ping", "pong"):
            inline.critical(post_save, Article, write, dispatch_uid=name)
        with (
            pytest.raises(EndlessWrites, match=r"ping.*pong|pong.*ping") as cut,
            perhaps_atomic(is_atomic),
        ):
            SAVING[way]("default")

        assert "practice.criticalarticle" in str(cut.value).lower()
        assert titles() == ["there"]
        assert Article.objects.get().changes == 0

    def test_they_are_cut_across_tables(self, article):
        def article_to_shelf(instance, **kwargs):
            Shelf.objects.create(name=instance.title)

        def shelf_to_article(instance, **kwargs):
            Article.objects.create(title=instance.name)

        inline.critical(post_save, Article, article_to_shelf, dispatch_uid="ping")
        inline.critical(post_save, Shelf, shelf_to_article, dispatch_uid="pong")
        with pytest.raises(EndlessWrites, match=r"ping.*pong|pong.*ping"):
            Article.objects.bulk_create([Article(title="a")])

        assert titles() == ["there"]
        assert Shelf.objects.count() == 0

    def test_a_write_to_another_row_by_save_goes_down(self, clean):  # noqa: F811
        seen = []

        def next_one(instance, **kwargs):
            seen.append(instance.position)
            if instance.position < 10:
                Article(title="down", position=instance.position + 1).save()

        inline.critical(post_save, Article, next_one)
        Article.objects.bulk_create([Article(title="top", position=0)])

        assert seen == list(range(11))


# Order, batches and conditions.


class TestOrder:
    @every_way
    @pytest.mark.parametrize("signals", [[pre_save, pre_delete], [post_save, post_delete]])
    def test_after_others(self, way, signals, article):
        order = []
        for name, after in (("c", ["b"]), ("a", []), ("b", ["a"])):
            for signal in signals:
                inline.critical(
                    signal,
                    Article,
                    lambda name=name, **kwargs: order.append(name),
                    dispatch_uid=f"{name}.{signals.index(signal)}",
                    after=[f"{one}.{signals.index(signal)}" for one in after],
                )
        EVERY[way]("default")

        assert order == ["a", "b", "c"]

    @every_way
    def test_in_the_order_of_declaration_otherwise(self, way, article):
        order = []
        for name in "bac":
            inline.critical(
                [post_save, post_delete],
                Article,
                lambda name=name, **kwargs: order.append(name),
                dispatch_uid=name,
            )
        EVERY[way]("default")

        assert order == ["b", "a", "c"]

    def test_row_by_row(self, clean):  # noqa: F811
        """For each row the receivers in their order, as per-row saves have it."""
        order = []
        for name in "ab":
            inline.critical(
                post_save,
                Article,
                lambda instance, name=name, **kwargs: order.append(f"{name} {instance.title}"),
                dispatch_uid=name,
            )
        expected = ["a 1", "b 1", "a 2", "b 2"]
        Article.objects.bulk_create([Article(title="1"), Article(title="2")])
        assert order == expected
        order.clear()
        Article.objects.update(version=1)
        assert order == expected
        order.clear()
        execute(f"UPDATE {TABLE} SET version = 2")
        assert order == expected


class TestBatches:
    @pytest.mark.parametrize(
        "write",
        [
            lambda: Article.objects.bulk_create([Article(title=str(n)) for n in range(5)]),
            lambda: execute("; ".join(insert(str(n)) for n in range(5))),
            lambda: execute(
                INSERT_SELECT.replace("'written'", "n::text") + " FROM generate_series(0, 4) AS n"
            ),
        ],
    )
    @pytest.mark.parametrize("signal", [pre_save, post_save])
    def test_one_call_for_a_write(self, write, signal, clean):  # noqa: F811
        found = []

        def receiver(sender, instances, events, **kwargs):
            found.append([instance.title for instance in instances])

        inline.critical(signal, Article, receiver, batch=True)
        write()

        assert found == [[str(n) for n in range(5)]]

    @every_way
    def test_of_one_row(self, way, article):
        late = inline.critical([post_save, post_delete], Article, batch=True)
        early = inline.critical([pre_save, pre_delete], Article, batch=True)
        EVERY[way]("default")

        assert [len(call["instances"]) for call in (*late, *early)] == [1, 1]

    def test_updates_and_deletions(self, clean):  # noqa: F811
        Article.objects.bulk_create([Article(title=str(n)) for n in range(5)])
        calls = inline.critical([post_save, post_delete], Article, batch=True)
        Article.objects.update(version=1)
        execute(f"DELETE FROM {TABLE}")

        assert [len(call["instances"]) for call in calls] == [5, 5]
        assert [one.changed for one in calls[0]["events"]] == [{"version"}] * 5


class TestConditions:
    """``when`` is asked on every path, before the write and after it."""

    @saving_ways
    @pytest.mark.parametrize("signal", [pre_save, post_save])
    def test_of_the_new_row(self, way, signal, article):
        met = inline.critical(signal, Article, when=Q(new__title="written"), dispatch_uid="met")
        unmet = inline.critical(signal, Article, when=Q(new__title="x"), dispatch_uid="unmet")
        SAVING[way]("default")

        assert (len(met), len(unmet)) == (1, 0)

    @saving_ways
    @pytest.mark.parametrize("signal", [pre_save, post_save])
    def test_of_the_old_row(self, way, signal, article):
        is_new = way in {
            "save",
            "create",
            "get_or_create",
            "bulk_create",
            "INSERT",
            "INSERT SELECT",
        }
        changed = inline.critical(
            signal, Article, when=~Q(new__title=F("old__title")), dispatch_uid="changed"
        )
        there = inline.critical(signal, Article, when=Q(old__title="there"), dispatch_uid="there")
        none = inline.critical(signal, Article, when=Q(old__title="x"), dispatch_uid="none")
        SAVING[way]("default")

        assert len(changed) == 1
        assert (len(there), len(none)) == (0 if is_new else 1, 0)

    @deleting_ways
    @pytest.mark.parametrize("signal", [pre_delete, post_delete])
    def test_of_the_deleted_row(self, way, signal, article):
        met = inline.critical(signal, Article, when=Q(old__title="there"), dispatch_uid="met")
        unmet = inline.critical(signal, Article, when=Q(old__title="x"), dispatch_uid="unmet")
        DELETING[way]("default")

        assert (len(met), len(unmet)) == (1, 0)

    @pytest.mark.parametrize("signal", [pre_save, post_save])
    def test_some_rows_of_many(self, signal, clean):  # noqa: F811
        calls = inline.critical(signal, Article, when=Q(new__version__gte=3))

        def versions():
            found = [call["instance"].version for call in calls]
            calls.clear()
            return found

        Article.objects.bulk_create([Article(title="a", version=n) for n in range(5)])
        assert versions() == [3, 4]
        Article.objects.update(version=F("version") + 1)
        assert sorted(versions()) == [3, 4, 5]
        rows = list(Article.objects.order_by("version"))
        for row in rows:
            row.version -= 1
        Article.objects.bulk_update(rows, ["version"])
        assert versions() == [3, 4]
        execute(f"UPDATE {TABLE} SET version = version - 1")
        assert versions() == [3]

    def test_some_of_many_deleted_rows(self, clean):  # noqa: F811
        Article.objects.bulk_create([Article(title="a", version=n) for n in range(5)])
        early = inline.critical(pre_delete, Article, when=Q(old__version__gte=3))
        late = inline.critical(post_delete, Article, when=Q(old__version__gte=3))
        Article.objects.filter(version__in=[0, 3]).delete()
        execute(f"DELETE FROM {TABLE}")

        assert [call["instance"].version for call in early] == [3, 4]
        assert [call["instance"].version for call in late] == [3, 4]

    def test_who_meets_none_is_refused_nothing(self, psql, clean):  # noqa: F811
        inline.critical(post_save, Article, when=Q(new__title="special"))

        assert psql(insert("plain")).returncode == 0
        assert psql(insert("special")).returncode == 3
        assert titles() == ["plain"]


# Many-to-many.


def test_links_in_every_environment(clean):  # noqa: F811
    actions = []

    def hear(action, pk_set, **kwargs):
        actions.append((action, sorted(pk_set or ())))

    inline.critical(m2m_changed, Book.tags.through, hear)
    book = Book.objects.create(title="a")
    one, other = (Tag.objects.create(name=name) for name in "ab")

    with transaction.atomic():
        book.tags.add(one)
        with pytest.raises(ValueError, match="no"), transaction.atomic():
            book.tags.add(other)
            raise ValueError("no")
    book.tags.set([other])

    assert actions == [
        ("pre_add", [one.pk]),
        ("post_add", [one.pk]),
        ("pre_add", [other.pk]),
        ("post_add", [other.pk]),
        ("pre_remove", [one.pk]),
        ("post_remove", [one.pk]),
        ("pre_add", [other.pk]),
        ("post_add", [other.pk]),
    ]
    assert list(book.tags.all()) == [other]


# Migrations.


class TestDataMigrations:
    """Historical models have no receivers, and are not refused."""

    def apply(self, *operations, atomic=True):
        migration = type("Migration", (migrations.Migration,), {"operations": list(operations)})(
            "0001_data", "practice"
        )
        migration.atomic = atomic
        state = MigrationLoader(connection).project_state()
        with connection.schema_editor(atomic=atomic) as editor:
            migration.apply(state, editor)

    @pytest.mark.parametrize("atomic", [True, False])
    def test_no_receiver_is_called(self, atomic, article):
        calls = inline.critical(EVERY_SIGNAL, Article)

        def change(apps, editor):
            historical = apps.get_model("practice", "CriticalArticle")
            assert historical is not Article
            historical.objects.create(title="created")
            historical.objects.bulk_create([historical(title="bulk")])
            historical.objects.filter(title="bulk").update(title="updated")
            found = historical.objects.get(title="created")
            found.title = "saved"
            found.save()
            historical.objects.filter(title="there").delete()
            editor.connection.cursor().execute(insert("raw"))

        self.apply(
            migrations.RunPython(change),
            migrations.RunSQL(insert("sql")),
            migrations.RunSQL(f"DO $$ BEGIN {insert('do')}; END $$"),
            atomic=atomic,
        )

        assert calls == []
        assert titles() == ["do", "raw", "saved", "sql", "updated"]
        assert waiting() == (0, 0)

    def test_past_django_s_cursors(self, article):
        calls = inline.critical(post_save, Article)
        self.apply(migrations.RunPython(lambda apps, editor: raw().execute(insert())))

        assert calls == []
        assert titles() == ["raw", "there"]

    def test_receivers_are_called_again_afterwards(self, article):
        calls = inline.critical(post_save, Article)
        self.apply(migrations.RunSQL(insert("sql")))
        Article.objects.filter(title="sql").update(title="told")

        assert [call["instance"].title for call in calls] == ["told"]

    def test_a_migration_that_fails(self, article):
        calls = inline.critical(post_save, Article)

        def fail(apps, editor):
            apps.get_model("practice", "CriticalArticle").objects.create(title="gone")
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            self.apply(migrations.RunPython(fail))
        Article.objects.update(title="told")

        assert [call["instance"].title for call in calls] == ["told"]
        assert titles() == ["told"]
