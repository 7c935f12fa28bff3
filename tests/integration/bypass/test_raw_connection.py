"""Writes over Django's connection that do not use its cursors."""

# ruff: noqa: PT012  (transactions have several statements)

# ruff: noqa: PT012  (transactions have several statements)

from __future__ import annotations

from contextlib import suppress

import psycopg
import pytest
from django.db import connection, connections, transaction
from django.db.models.signals import post_delete, post_save, pre_save

from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import CriticalShelf as Shelf
from tests.integration import inline_committed as inline
from tests.integration.bypass.writes import SHELVES, check_refusal, copied, refuse, seen, stored
from tests.integration.inline_committed import (
    ARTICLES,
    insert,
    raw,
    titles,
)

pytestmark = pytest.mark.django_db(transaction=True)


def by_raw_cursor():
    with raw().cursor() as cursor:
        cursor.execute(insert())


def by_raw_connection():
    raw().execute(insert())


def by_prepared_statement():
    raw().execute(insert(), prepare=True)


def by_server_side_binding():
    with psycopg.RawCursor(raw()) as cursor:
        cursor.execute(insert().replace("'raw'", "$1"), ["raw"])


def by_executemany():
    with raw().cursor() as cursor:
        cursor.executemany(insert("%s").replace("'%s'", "%s"), [("raw",)])


def by_stream():
    with raw().cursor() as cursor:
        list(cursor.stream(f"{insert()} RETURNING id"))


def by_copy():
    statement, row = copied("raw")
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(row + "\n")


def by_copy_of_the_driver():
    statement, row = copied("raw")
    with raw().cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(row + "\n")


def by_function():
    raw().execute("SELECT bypass.in_sql()")
    raw().execute(f"UPDATE {ARTICLES} SET title = 'raw'")


PAST_DJANGO = [
    by_raw_cursor,
    by_raw_connection,
    by_prepared_statement,
    by_server_side_binding,
    by_executemany,
    by_stream,
    by_copy,
    by_copy_of_the_driver,
]


@pytest.mark.parametrize("write", PAST_DJANGO)
class TestPastDjangosCursors:
    def test_in_autocommit_it_is_refused(self, write, calls):
        if write in {by_executemany, by_stream}:
            # psycopg reads the rows, and not what comes after them; and it loses count of the
            # results where the end of a pipeline fails.
            with suppress(psycopg.Error, IndexError):
                write()
            connection.close()
        else:
            with pytest.raises(psycopg.IntegrityError) as refusal:
                write()
            check_refusal(refusal.value)

        assert stored() == []
        assert calls == []

    def test_in_atomic_it_is_delivered_at_the_commit(self, write, calls):
        with transaction.atomic():
            write()
            assert calls == []

        assert seen(calls) == titles() == ["raw"]
        assert calls[0]["created"] is True
        assert calls[0]["old"] is None

    def test_in_atomic_the_next_statement_delivers(self, write, calls):
        with transaction.atomic():
            write()
            Shelf.objects.count()
            assert seen(calls) == ["raw"]

        assert seen(calls) == ["raw"]

    def test_without_autocommit_it_is_delivered_at_the_commit(self, write, calls):
        transaction.set_autocommit(False)
        try:
            write()
            transaction.commit()
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

        assert seen(calls) == titles() == ["raw"]

    def test_a_receiver_refuses_the_write_at_the_commit(self, write):
        inline.critical(post_save, Article, refuse)

        with pytest.raises(ValueError, match="no"), transaction.atomic():
            Shelf.objects.create(name="goes, too")
            write()

        assert stored() == []
        assert Shelf.objects.count() == 0


def test_several_tables_are_delivered_in_write_order(clean):
    """On a connection that has not delivered yet, and so looks the tables up first."""
    order = []
    inline.critical(post_save, Article, lambda **kwargs: order.append("article"))
    inline.critical(post_save, Shelf, lambda **kwargs: order.append("shelf"))
    connections.close_all()

    with transaction.atomic():
        raw().execute(insert())
        raw().execute(f"INSERT INTO {SHELVES} (name, books, pages) VALUES ('s', 0, 0)")
        raw().execute(insert())

    assert order == ["article", "shelf", "article"]


def test_old_and_changed_come_from_the_database(calls):
    article = Article.objects.create(title="before")
    calls.clear()

    with transaction.atomic():
        raw().execute(f"UPDATE {ARTICLES} SET title = 'after'")
        raw().execute(f"DELETE FROM {ARTICLES}")

    updated, deleted = calls
    assert (updated["old"].title, updated["instance"].title) == ("before", "after")
    assert updated["changed"] == {"title"}
    assert updated["created"] is False
    assert (deleted["signal"], deleted["instance"].pk) == (post_delete, article.pk)
    assert deleted["instance"].title == "after"


def test_a_receiver_before_the_write_is_late_but_called(clean):
    titles_stored = []

    def note(instance, **kwargs):
        titles_stored.append((instance.title, titles()))

    inline.critical(pre_save, Article, note, dispatch_uid="early")
    with transaction.atomic():
        raw().execute(insert())

    assert titles_stored == [("raw", ["raw"])]
