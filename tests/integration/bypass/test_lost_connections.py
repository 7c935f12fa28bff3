"""Connections that are lost, and the handlers and wrappers lost with them."""

# ruff: noqa: PT012  (transactions have several statements)

# ruff: noqa: PT012  (transactions have several statements)

from __future__ import annotations

import psycopg
import pytest
from django.db import OperationalError, connection, transaction
from django.db.models.signals import post_save, pre_save

from bulksafe.exceptions import BrokenTransaction, ReceiversNotRun
from tests.apps.practice.models import CriticalArticle as Article
from tests.integration import inline_committed as inline
from tests.integration.bypass.writes import seen, stored, url
from tests.integration.inline_committed import (
    execute,
    insert,
    raw,
    titles,
)

pytestmark = pytest.mark.django_db(transaction=True)


def write_muted():
    with transaction.atomic():
        execute("SET LOCAL bulksafe.muted = '{*}'")
        execute(insert("there"))


# Lost connections and the state that belongs to them.


def test_a_connection_that_was_closed_and_opened_again(calls):
    for number in range(3):
        connection.close()
        Article.objects.bulk_create([Article(title=f"{number}")])
        connection.close()
        with transaction.atomic():
            raw().execute(insert(f"{number} raw"))

    assert seen(calls) == ["0", "0 raw", "1", "1 raw", "2", "2 raw"]


def lose_connection():
    with psycopg.connect(url(), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", [raw().info.backend_pid])


@pytest.mark.parametrize(
    "write",
    [
        lambda: Article(title="lost").save(),
        lambda: Article.objects.bulk_create([Article(title="lost")]),
        lambda: execute(insert("lost")),
    ],
)
def test_a_connection_is_lost_during_a_transaction(write, clean):
    lose = [True]
    received = []

    def lose_once(instance, **kwargs):
        if lose:
            lose.clear()
            lose_connection()
            execute("SELECT 1")
        received.append(instance.title)

    inline.critical(post_save, Article, lose_once)
    with pytest.raises(OperationalError):
        write()
    connection.close()
    assert inline.waiting() == (0, 0)
    with transaction.atomic():
        raw().execute(insert("after"))
    Article.objects.create(title="and on")

    assert received == ["after", "and on"]
    assert titles() == ["after", "and on"]


def test_a_receiver_hides_a_lost_connection(clean):
    def lose(**kwargs):
        lose_connection()
        with pytest.raises(OperationalError):
            execute("SELECT 1")

    inline.critical(post_save, Article, lose)
    with pytest.raises((BrokenTransaction, OperationalError)):
        Article.objects.create(title="lost")
    connection.close()

    assert stored() == []


def test_a_connection_is_lost_between_two_writes(calls):
    Article.objects.create(title="before")
    lose_connection()
    with pytest.raises(OperationalError):
        Article.objects.create(title="lost")
    connection.close()
    Article.objects.create(title="after")

    assert seen(calls) == ["before", "after"]


class TestTheNoticeHandlerIsLost:
    """Then no notice of pending changes arrives, and the database refuses them."""

    @pytest.fixture(autouse=True)
    def lost(self, calls):
        driver = raw()
        kept = list(driver._notice_handlers)
        driver._notice_handlers.clear()
        yield
        driver._notice_handlers.extend(kept)

    @pytest.mark.parametrize(
        "write",
        [
            lambda: Article.objects.bulk_create([Article(title="lost")]),
            lambda: Article.objects.update(title="lost"),
            lambda: execute(insert("lost")),
            lambda: execute("SELECT bypass.in_sql()"),
        ],
    )
    @pytest.mark.parametrize("is_atomic", [False, True])
    def test_bulk_writes(self, write, is_atomic, calls):
        write_muted()
        before = stored()
        with pytest.raises(ReceiversNotRun):
            if is_atomic:
                with transaction.atomic():
                    write()
            else:
                write()

        assert stored() == before

    def test_with_a_driver_cursor(self, calls):
        with pytest.raises(ReceiversNotRun), transaction.atomic():
            raw().execute(insert())

        assert stored() == []

    def test_a_new_connection_has_its_own(self, calls):
        connection.close()
        Article.objects.bulk_create([Article(title="delivered")])

        assert seen(calls) == titles() == ["delivered"]


class TestWrappersAreGone:
    @pytest.fixture(autouse=True)
    def gone(self, calls):
        connection.ensure_connection()
        kept = list(connection.execute_wrappers)
        connection.execute_wrappers.clear()
        yield
        connection.execute_wrappers[:] = kept

    @pytest.mark.parametrize("early", [False, True])
    def test_writes_through_django_s_own_methods_are_delivered(self, early, calls):
        before = inline.critical(pre_save, Article) if early else []
        article = Article(title="saved")
        article.save()
        Article.objects.bulk_create([Article(title="bulk")])
        Article.objects.filter(title="bulk").update(title="updated")
        article.delete()

        assert seen(calls) == ["saved", "bulk", "updated", "saved"]
        assert seen(before) == (["saved", "bulk", "updated"] if early else [])

    def test_a_statement_in_autocommit_is_refused(self, calls):
        for statement in (insert(), "SELECT bypass.in_sql()"):
            with pytest.raises(ReceiversNotRun):
                execute(statement)

        assert stored() == []

    def test_a_statement_in_atomic_is_delivered_at_the_commit(self, calls):
        with transaction.atomic():
            execute(insert())
            execute("SELECT bypass.in_sql()")
            assert calls == []

        assert seen(calls) == ["raw", "function"]

    def test_a_new_connection_has_them_again(self, calls):
        connection.close()
        execute(insert())

        assert seen(calls) == ["raw"]


class TestAWrapperOfTheUser:
    def test_it_sees_the_statements(self, calls):
        statements = []

        def note(execute, sql, params, many, context):
            statements.append(sql)
            return execute(sql, params, many, context)

        with connection.execute_wrapper(note):
            Article.objects.bulk_create([Article(title="bulk")])
            execute("SELECT bypass.in_sql()")

        assert seen(calls) == ["bulk", "function"]
        assert any("INSERT INTO" in text for text in statements)
        assert not any("bulksafe_take" in text for text in statements)

    def test_it_writes_something_else(self, calls):
        def replace(execute, sql, params, many, context):
            return execute(insert("replaced") if sql == "SELECT 1" else sql, params, many, context)

        with connection.execute_wrapper(replace):
            execute("SELECT 1")
            with transaction.atomic():
                execute("SELECT 1")

        assert seen(calls) == titles() == ["replaced", "replaced"]

    def test_it_writes_by_itself(self, calls):
        def audit(execute, sql, params, many, context):
            if sql == "SELECT 1":
                Article.objects.bulk_create([Article(title="audit")])
            return execute(sql, params, many, context)

        with connection.execute_wrapper(audit):
            execute("SELECT 1")

        assert seen(calls) == titles() == ["audit"]

    def test_it_refuses(self, calls):
        def block(execute, sql, params, many, context):
            if sql.startswith("INSERT"):
                raise PermissionError
            return execute(sql, params, many, context)

        with connection.execute_wrapper(block), pytest.raises(PermissionError):
            Article.objects.bulk_create([Article(title="blocked")])
        Article.objects.bulk_create([Article(title="delivered")])

        assert seen(calls) == titles() == ["delivered"]
