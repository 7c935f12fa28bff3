"""Receivers before the write that look at other rows of their table, on every way to write."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.db.models.signals import post_save, pre_delete, pre_save

from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import CriticalTag as Tag
from tests.integration import inline

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with inline.only_these():
        yield


def number_new_rows(sender, instance, **kwargs):
    if not instance.position:
        instance.position = sender.objects.count() + 1


def positions():
    return sorted(Article.objects.values_list("position", flat=True))


COLUMNS = ", ".join(f.column for f in Article._meta.local_concrete_fields if not f.primary_key)


def insert_select(count):
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO practice_criticalarticle ({COLUMNS}) "
            "SELECT 't', '', '', '', '', 0, 0, false, 0, false, 0, 0, '{}', '', '', '', 0 "
            "FROM generate_series(1, %s)",
            [count],
        )


def executemany(count):
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO practice_criticalarticle ({COLUMNS}) "
            "VALUES (%s, '', '', '', '', 0, 0, false, 0, false, 0, 0, '{}', '', '', '', 0)",
            [[str(number)] for number in range(count)],
        )


def articles(count):
    return [Article(title=str(number)) for number in range(count)]


WAYS = {
    "bulk_create": lambda n: Article.objects.bulk_create(articles(n)),
    "ignore_conflicts": lambda n: Article.objects.bulk_create(articles(n), ignore_conflicts=True),
    "update_conflicts": lambda n: Article.objects.bulk_create(
        articles(n), update_conflicts=True, unique_fields=["id"], update_fields=["title"]
    ),
    "insert_select": insert_select,
    "executemany": executemany,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_new_row_sees_those_before_it(way):
    inline.critical(pre_save, Article, number_new_rows)
    after = inline.critical(post_save, Article)

    WAYS[way](4)

    assert positions() == [1, 2, 3, 4]
    assert sorted(call["instance"].position for call in after) == [1, 2, 3, 4]
    assert {call["instance"].pk for call in after} == set(
        Article.objects.values_list("pk", flat=True)
    )


def test_an_upsert_leaves_the_keys_that_are_stored_on_the_objects():
    inline.critical(pre_save, Article, number_new_rows)
    listed = articles(3)

    WAYS["bulk_create"](1)
    Article.objects.bulk_create(
        listed, update_conflicts=True, unique_fields=["id"], update_fields=["title"]
    )

    stored = dict(Article.objects.values_list("title", "pk"))
    assert [article.pk for article in listed[1:]] == [stored["1"], stored["2"]]


def test_a_raw_delete_goes_row_by_row():
    class LastOneError(Exception):
        pass

    def keep_the_last(sender, instance, **kwargs):
        if sender.objects.count() == 1:
            raise LastOneError

    WAYS["bulk_create"](3)
    inline.critical(pre_delete, Article, keep_the_last)

    with pytest.raises(LastOneError), connection.cursor() as cursor:
        cursor.execute("DELETE FROM practice_criticalarticle")

    assert Article.objects.count() == 3


def test_rows_of_others_in_one_statement_are_not_lost():
    """A WITH may write to tables that nobody captures: it is made as a whole."""
    inline.critical(pre_save, Article, number_new_rows)
    WAYS["bulk_create"](2)
    Article.objects.update(position=0)

    with connection.cursor() as cursor:
        cursor.execute(
            "WITH tag AS (INSERT INTO practice_criticaltag (name, used) VALUES ('x', 0)) "
            "UPDATE practice_criticalarticle SET position = 0"
        )

    assert Tag.objects.count() == 1


@pytest.mark.parametrize("value", ["New", " NEW "])
def test_what_a_late_receiver_assigns_is_stored(value):
    """A driver's cursor is seen at the commit only, when the row is there already."""

    def normalise(instance, **kwargs):
        instance.title = instance.title.strip().lower()

    inline.critical(pre_save, Article, normalise)
    after = inline.critical(post_save, Article)
    driver = connection.connection

    with transaction.atomic():
        driver.execute(
            f"INSERT INTO practice_criticalarticle ({COLUMNS}) "
            "VALUES (%s, '', '', '', '', 0, 0, false, 0, false, 0, 0, '{}', '', '', '', 0)",
            [value],
        )
        connection.cursor().execute("SELECT 1")

    assert Article.objects.get().title == "new"
    assert [call["instance"].title for call in after] == ["new"]
