"""Bulk or row by row: found out, remembered, said by the receiver, and found out too late."""

from __future__ import annotations

import logging

import pytest
from django.db import connection, transaction
from django.db.models import Max, Q, Sum
from django.db.models.signals import post_save, pre_save

from bulksafe.writer import row_queue
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import Log
from tests.integration import inline

pytestmark = pytest.mark.django_db

ARTICLES = Article._meta.db_table


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with inline.only_these():
        yield


def articles(count):
    return [Article(title=str(number), amount=number) for number in range(count)]


def stored(count):
    Article.objects.bulk_create(articles(count))


def execute(text, params=None):
    with connection.cursor() as cursor:
        cursor.execute(text, params)


def insert(count):
    names = ", ".join(f.column for f in Article._meta.local_concrete_fields if not f.primary_key)
    Article.objects.create(title="row")
    execute(
        f"INSERT INTO {ARTICLES} ({names}) SELECT {names} FROM {ARTICLES}, generate_series(1, %s)",
        [count],
    )


class Balance:
    """A receiver after the write that adds up the table, and says what it has found."""

    def __init__(self, **options):
        self.found = []
        inline.critical(post_save, Article, self, **options)

    def __call__(self, sender, **kwargs):
        self.found.append(sender.objects.count())


# Found out.


WAYS = {
    "bulk_create()": lambda count: Article.objects.bulk_create(articles(count)),
    "ignore_conflicts": lambda count: Article.objects.bulk_create(
        articles(count), ignore_conflicts=True
    ),
    "update_conflicts": lambda count: Article.objects.bulk_create(
        articles(count), update_conflicts=True, unique_fields=["id"], update_fields=["title"]
    ),
    "SQL": insert,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row_by_row", [None, True])
def test_a_receiver_after_the_write_sees_the_rows_before_its_own(way, row_by_row):
    balance = Balance(row_by_row=row_by_row)
    for _ in range(2):
        Article.objects.all().delete()
        balance.found.clear()
        WAYS[way](4)

        expected = [1, 2, 3, 4, 5] if way == "SQL" else [1, 2, 3, 4]
        assert balance.found == expected


@pytest.mark.parametrize("way", WAYS)
def test_one_that_says_that_the_order_makes_no_difference_stays_in_bulk(way):
    balance = Balance(row_by_row=False)
    WAYS[way](4)

    assert balance.found == ([1, 5, 5, 5, 5] if way == "SQL" else [4, 4, 4, 4])


@pytest.mark.parametrize("row_by_row", [None, False, True])
@pytest.mark.parametrize("way", ["update()", "SQL", "bulk_update()"])
def test_updates(way, row_by_row):
    stored(4)
    found = []

    def add_up(sender, **kwargs):
        found.append(sender.objects.aggregate(total=Sum("amount"))["total"])

    inline.critical(post_save, Article, add_up, row_by_row=row_by_row)
    match way:
        case "update()":
            Article.objects.update(amount=10)
        case "SQL":
            execute(f"UPDATE {ARTICLES} SET amount = 10")
        case _:
            listed = list(Article.objects.order_by("pk"))
            for article in listed:
                article.amount = 10
            Article.objects.bulk_update(listed, ["amount"])

    assert found == ([40] * 4 if row_by_row is False else [16, 25, 33, 40])


def test_receivers_before_and_after_the_write_that_write_to_one_another():
    """What a ``pre_save`` reads, the ``post_save`` of the rows before has written."""

    def number(instance, **kwargs):
        instance.amount = (Log.objects.aggregate(last=Max("id"))["last"] or 0) - start

    def note(instance, **kwargs):
        Log.objects.create(side="", text=instance.title)

    start = Log.objects.create(side="", text="").pk
    inline.critical(pre_save, Article, number)
    inline.critical(post_save, Article, note)
    Article.objects.bulk_create(articles(4))

    assert list(Article.objects.order_by("pk").values_list("amount", flat=True)) == [0, 1, 2, 3]


def test_what_is_known_leaves_a_write_in_bulk():
    statements = []

    def count(execute, sql, params, many, context):
        statements.append(sql.split()[0])
        return execute(sql, params, many, context)

    inline.critical(post_save, Article, lambda **kwargs: Log.objects.exists())
    stored(2)
    with connection.execute_wrapper(count):
        Article.objects.bulk_create(articles(5))
        Article.objects.bulk_create(articles(5))

    assert statements.count("INSERT") == 2


def test_a_receiver_that_is_never_called_does_not_hold_up_the_rest():
    """Its condition is not met: after some rows the others are written at once."""
    statements = []

    def count(execute, sql, params, many, context):
        statements.append(sql.split()[0])
        return execute(sql, params, many, context)

    inline.critical(post_save, Article, when=Q(new__title="never"))
    with connection.execute_wrapper(count):
        Article.objects.bulk_create(articles(50))

    assert statements.count("INSERT") <= row_queue._LEARNING + 1


# Found out too late.


def from_the_third_on(sender, instance, **kwargs):
    """Looks at the table, but not for the first rows."""
    if instance.title >= "3":
        Log.objects.create(side="", text=f"{instance.title}: {sender.objects.count()}")


def logged():
    return list(Log.objects.order_by("pk").values_list("text", flat=True))


def test_a_write_begins_again_where_the_order_turns_out_to_matter(caplog):
    inline.critical(post_save, Article, from_the_third_on)
    with caplog.at_level(logging.WARNING, logger="bulksafe"):
        Article.objects.bulk_create(articles(5))

    assert logged() == ["3: 4", "4: 5"]
    assert "repeated row by row" in caplog.text
    assert Article.objects.count() == 5


def test_the_objects_and_the_hooks_are_those_of_before(django_capture_on_commit_callbacks):
    hooks = []

    def count(instance, **kwargs):
        instance.changes += 1
        instance.data["seen"] = instance.data.get("seen", 0) + 1
        instance.mark = f"{getattr(instance, 'mark', '')}x"
        transaction.on_commit(lambda: hooks.append(instance.title))

    inline.critical(pre_save, Article, count)
    inline.critical(post_save, Article, from_the_third_on)
    listed = articles(5)
    for article in listed:
        article.data = {}
    with django_capture_on_commit_callbacks(execute=True):
        Article.objects.bulk_create(listed)

    assert [article.changes for article in listed] == [1] * 5
    assert [article.data for article in listed] == [{"seen": 1}] * 5
    assert [article.mark for article in listed] == ["x"] * 5
    assert hooks == list("01234")
    assert set(Article.objects.values_list("changes", flat=True)) == {1}


@pytest.mark.parametrize("way", ["update()", "SQL"])
def test_an_update_begins_again(way):
    stored(5)
    found = []

    def look(sender, instance, **kwargs):
        if instance.title >= "3":
            found.append(sender.objects.filter(amount=10).count())

    inline.critical(post_save, Article, look)
    if way == "SQL":
        execute(f"UPDATE {ARTICLES} SET amount = 10")
    else:
        Article.objects.update(amount=10)

    # The call that has shown it did not come to its end.
    assert found == [4, 5]


def test_a_receiver_that_catches_everything_does_not_hide_the_interruption():
    found = []

    def look(sender, instance, **kwargs):
        if instance.title >= "3":
            try:
                found.append(sender.objects.count())
            except BaseException:
                found.append(None)

    inline.critical(post_save, Article, look)
    Article.objects.bulk_create(articles(5))

    assert found == [None, 4, 5]


def test_a_write_inside_a_receiver_begins_again_alone():
    calls = []

    def create(instance, **kwargs):
        calls.append(instance.text)
        if instance.text == "outer":
            Article.objects.bulk_create(articles(5))

    inline.critical(post_save, Article, from_the_third_on)
    inline.critical(pre_save, Log, create)
    Log.objects.create(side="", text="outer")

    assert calls == ["outer", "3: 4", "4: 5"]
    assert logged() == ["3: 4", "4: 5", "outer"]


# The driver's own cursors.


def count_by_driver():
    with connection.connection.cursor() as cursor:
        return cursor.execute(f"SELECT count(*) FROM {ARTICLES} WHERE amount = 10").fetchone()[0]


def copied_count():
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY (SELECT count(*) FROM {ARTICLES} WHERE amount = 10) TO STDOUT") as copy,
    ):
        return int(bytes(b"".join(copy)))


@pytest.mark.parametrize("count", [count_by_driver, copied_count])
@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["pre", "post"])
@pytest.mark.parametrize("way", ["bulk_create", "update", "through"])
def test_queries_of_receivers_with_the_driver_count(way, signal, count):
    found = []
    if way != "bulk_create":
        Article.objects.bulk_create(articles(3))
    inline.critical(signal, Article, lambda **kwargs: found.append(count()))
    if way == "bulk_create":
        Article.objects.bulk_create(Article(title=str(n), amount=10) for n in range(3))
    elif way == "update":
        Article.objects.update(amount=10)
    else:
        execute(f"WITH a AS (SELECT 1) UPDATE {ARTICLES} SET amount = 10")

    assert found[-3:] == ([0, 1, 2] if signal is pre_save else [1, 2, 3])


# Said.


def test_the_log_names_a_receiver_of_many_rows_once(caplog, monkeypatch):
    monkeypatch.setattr(row_queue, "_MANY", 10)
    Balance(dispatch_uid="adds up")
    with caplog.at_level(logging.WARNING, logger="bulksafe"):
        for _ in range(2):
            Article.objects.bulk_create(articles(20))

    assert caplog.text.count("adds up reads or writes rows other than its own") == 1
    assert "20 rows of practice.CriticalArticle" in caplog.text
