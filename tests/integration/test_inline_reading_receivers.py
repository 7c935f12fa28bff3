"""Receivers before the write that read other rows of their table, on every write path."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.db.models.signals import post_save, pre_delete, pre_save
from django.test.utils import CaptureQueriesContext

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


def test_rows_of_other_tables_in_one_statement_are_not_lost():
    """A WITH may write to tables without a capture, so it runs as a whole."""
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
def test_assignments_of_a_late_receiver_are_stored(value):
    """The write of a driver's cursor is delivered at the commit, when the row is already stored."""

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


# A write that no receiver has read yet is not repeated.


def updates_of(write):
    with CaptureQueriesContext(connection) as captured:
        write()
    return [query["sql"] for query in captured if query["sql"].startswith("UPDATE")]


def test_a_receiver_that_reads_nothing_does_not_repeat_the_write():
    def check(instance, **kwargs):
        assert instance.title == "new"

    WAYS["bulk_create"](3)
    inline.critical(pre_save, Article, check)

    assert len(updates_of(lambda: Article.objects.update(title="new"))) == 1


@pytest.mark.parametrize("first", [0, 1, 2])
def test_the_first_row_that_queries_sees_the_old_rows(first):
    seen = []

    def compare(sender, instance, **kwargs):
        if instance.amount >= first:
            seen.append(sender.objects.get(pk=instance.pk).title)
        instance.notes = "checked"

    Article.objects.bulk_create([Article(title=f"old {n}", amount=n) for n in range(3)])
    inline.critical(pre_save, Article, compare)
    after = inline.critical(post_save, Article)

    made = updates_of(lambda: Article.objects.update(title="new"))

    assert seen == [f"old {n}" for n in range(first, 3)]
    # The log has the statement as Django sent it, however it was executed.
    assert len(made) == 1
    assert set(Article.objects.values_list("title", "notes")) == {("new", "checked")}
    assert [call["instance"].notes for call in after] == ["checked"] * 3


def test_callbacks_for_the_commit_outlive_the_first_execution(
    django_capture_on_commit_callbacks,
):
    done = []

    def note(sender, instance, **kwargs):
        transaction.on_commit(lambda: done.append(instance.pk))
        sender.objects.get(pk=instance.pk)

    WAYS["bulk_create"](2)
    inline.critical(pre_save, Article, note)
    with django_capture_on_commit_callbacks(execute=True):
        Article.objects.update(title="new")

    assert sorted(done) == sorted(Article.objects.values_list("pk", flat=True))


def test_writes_in_a_receiver_s_own_block_are_kept():
    def note(sender, instance, **kwargs):
        with transaction.atomic():
            Tag.objects.create(name=instance.title)

    WAYS["bulk_create"](2)
    inline.critical(pre_save, Article, note)

    Article.objects.update(title="new")

    assert [tag.name for tag in Tag.objects.all()] == ["new", "new"]
    assert set(Article.objects.values_list("title", flat=True)) == {"new"}
