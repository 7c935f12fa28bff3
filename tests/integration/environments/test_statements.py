"""The statements that Django sends, and cursors that read while receivers write."""

from __future__ import annotations

import pytest
from django.core import serializers
from django.core.management import call_command
from django.db import (
    IntegrityError,
    connection,
    transaction,
)
from django.db.models import F
from django.db.models.signals import (
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)
from psycopg import sql

from bulksafe.exceptions import ReceiversNotRun
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import CriticalBook as Book
from tests.apps.practice.models import Log
from tests.integration import inline_committed as inline
from tests.integration.environments.writing import TABLE, in_atomic_or_not, note, perhaps_atomic
from tests.integration.inline_committed import (
    execute,
    insert,
    noted,
    titles,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


class TestStatements:
    @pytest.fixture(params=["early", "late"])
    def calls(self, request, clean):
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
        """It is not mistaken for a refusal, and the write is not repeated."""
        books = inline.critical(post_save, Book)
        with pytest.raises(IntegrityError, match="foreign key") as error:
            Book.objects.create(title="a", shelf_id=999)

        assert not isinstance(error.value, ReceiversNotRun)
        assert len(books) == 1
        assert Book.objects.count() == 0


# Reading and writing at the same time.


class TestCursors:
    @pytest.fixture(autouse=True)
    def rows(self, clean):
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
