"""Savepoints, durable blocks, autocommit and callbacks after the commit."""

# ruff: noqa: PT012  (transactions have several statements)

# ruff: noqa: PT012  (transactions have several statements)

from __future__ import annotations

import psycopg
import pytest
from django.db import (
    connection,
    transaction,
)
from django.db.models.signals import (
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)

from examples import server
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import CriticalShelf as Shelf
from tests.apps.practice.models import Log
from tests.integration import inline_committed as inline
from tests.integration.environments.writing import (
    DELETING,
    EVERY,
    TABLE,
    every_way,
    in_atomic_or_not,
    note,
    perhaps_atomic,
    record_calls,
    refuse,
    some_ways,
)
from tests.integration.inline_committed import (
    execute,
    insert,
    noted,
    raw,
    titles,
    waiting,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


#: What a receiver sees makes a difference to what the database has to keep for it.
seeing_all_or_little = pytest.mark.parametrize("sees", ["all", "little"])


@pytest.mark.matrix(3)
@every_way
@in_atomic_or_not
@seeing_all_or_little
def test_each_way_calls_once(way, is_atomic, sees, article):
    calls = record_calls([post_save, post_delete], sees, "late")
    early = record_calls([pre_save, pre_delete], sees, "early")

    with perhaps_atomic(is_atomic):
        EVERY[way]("default")

    assert len(calls) == len(early) == 1
    assert calls[0]["instance"].title == ("there" if way in DELETING else "written")
    assert waiting() == (0, 0)


@every_way
def test_the_write_and_its_receivers_effects_become_visible_together(way, article):
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

    def test_many_levels(self, clean):
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

    def test_the_whole_transaction(self, clean):
        inline.critical(post_save, Article, note("late"))
        with transaction.atomic():
            Article.objects.create(title="1")
            with transaction.atomic():
                execute(insert("2"))
            transaction.set_rollback(True)

        assert (noted(), titles(), waiting()) == ([], [], (0, 0))

    def test_inside_a_receiver(self, clean):
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

    def test_a_callback_that_writes(self, clean):
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
