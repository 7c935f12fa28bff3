"""Receivers that raise, catch errors or break the transaction."""

# ruff: noqa: PT012  (transactions have several statements)

# ruff: noqa: PT012  (transactions have several statements)

from __future__ import annotations

from contextlib import suppress

import psycopg
import pytest
from django.db import (
    DataError,
    InternalError,
    connection,
    connections,
    transaction,
)
from django.db.models.signals import (
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)

from bulksafe.exceptions import BrokenTransaction, ReceiversNotRun
from bulksafe.writer import vocabulary
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import CriticalShelf as Shelf
from tests.apps.practice.models import CriticalTag as Tag
from tests.apps.practice.models import Log
from tests.integration import inline_committed as inline
from tests.integration.environments.writing import (
    DELETING,
    EVERY,
    TABLE,
    every_way,
    in_threads,
    note,
    perhaps_atomic,
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
    def test_the_error_propagates_and_nothing_is_stored(self, way, raising, error):
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
    def test_inside_atomic_the_transaction_continues(self, way, raising, error):
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


def test_receivers_stop_at_the_first_that_raises(article):
    calls = inline.critical(post_save, Article, dispatch_uid="first")
    inline.critical(post_save, Article, refuse, dispatch_uid="second")
    never = inline.critical(post_save, Article, dispatch_uid="third")
    with pytest.raises(ValueError, match="no"):
        Article.objects.update(title="a")

    assert (len(calls), len(never)) == (1, 0)


def test_one_row_of_many(clean):
    def fail(instance, **kwargs):
        if instance.title == "7":
            raise ValueError("no")

    inline.critical(post_save, Article, fail)
    with pytest.raises(ValueError, match="no"):
        Article.objects.bulk_create([Article(title=str(n)) for n in range(10)])

    assert titles() == []


class TestReceiversThatBreakTheTransaction:
    """Neither Django nor PostgreSQL would report that nothing is stored."""

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
    def test_a_broken_transaction_is_reported(self, way, when, breaking, article):
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

    def test_the_outer_transaction_continues_if_possible(self, article):
        inline.critical(post_save, Article, self.BREAKING["an ORM error is swallowed"])
        with transaction.atomic():
            Tag.objects.create(name="before")
            with pytest.raises(BrokenTransaction):
                Article.objects.update(title="a")
            Tag.objects.create(name="after")

        assert Tag.objects.count() == 2
        assert titles() == ["there"]

    def test_after_an_error_the_catalogs_are_not_asked(self, article):
        """Which tables belong to a write is read once. Here the transaction has failed by then."""
        inline.critical(post_save, Article, note("after"))
        with transaction.atomic():
            place = connection.savepoint()
            with pytest.raises(DataError, match="division"):
                execute("SELECT 1 / 0")
            vocabulary.forget("default")
            with pytest.raises(InternalError, match="current transaction is aborted"):
                execute(f"UPDATE {Article._meta.db_table} SET title = 'a'")
            connection.savepoint_rollback(place)
            execute(f"UPDATE {Article._meta.db_table} SET title = 'b'")

        assert (titles(), noted()) == (["b"], ["after b"])

    @every_way
    def test_an_error_inside_a_savepoint_is_harmless(self, way, article):
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
    def refusing(self, clean):
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

    def test_of_rows_written_with_a_driver_cursor(self):
        """The driver's write cannot be undone alone."""

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


def test_a_receiver_reads_over_a_second_connection(article):
    """It waits for no lock."""
    counts = []

    def look(**kwargs):
        in_threads(1, lambda _: counts.append(Article.objects.filter(title="there").count()))

    inline.critical([pre_save, post_save], Article, look)
    Article.objects.update(title="x")

    assert counts == [1, 1]


def test_a_receiver_writes_with_a_driver_cursor(clean):
    """It is delivered before the receiver's call ends, as its other writes are."""
    shelves = inline.critical(post_save, Shelf)

    def write(**kwargs):
        raw().execute("INSERT INTO practice_criticalshelf (name, books, pages) VALUES ('a', 0, 0)")

    inline.critical(post_save, Article, write)
    Article.objects.bulk_create([Article(title="a")])
    with transaction.atomic():
        raw().execute(insert())

    assert len(shelves) == 2


def test_a_receiver_writes_to_its_own_table_with_a_driver_cursor(clean):
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
