"""The driver's pipelines."""

# ruff: noqa: PT012  (transactions have several statements)

# ruff: noqa: PT012  (transactions have several statements)

from __future__ import annotations

import psycopg
import pytest
from django.db import connection, transaction

from tests.apps.practice.models import CriticalArticle as Article
from tests.integration.bypass.writes import check_refusal, seen, stored, url
from tests.integration.inline_committed import (
    execute,
    insert,
    raw,
)

pytestmark = pytest.mark.django_db(transaction=True)


class TestPipelines:
    def test_with_a_driver_cursor_in_atomic(self, calls):
        with transaction.atomic(), raw().pipeline():
            raw().execute(insert("one"))
            raw().execute(insert("two"))

        assert seen(calls) == ["one", "two"]

    def test_the_commit_is_in_the_pipeline(self, calls):
        with raw().pipeline(), transaction.atomic():
            raw().execute(insert("one"))
            raw().execute(insert("two"))

        assert seen(calls) == ["one", "two"]

    def test_django_s_writes(self, calls):
        with raw().pipeline():
            Article.objects.create(title="saved")
            Article.objects.bulk_create([Article(title="bulk")])
            Article.objects.filter(title="bulk").update(title="updated")
            with transaction.atomic():
                execute("SELECT bypass.in_sql()")
                Article.objects.filter(title="saved").delete()

        # The moment at which the notice of the function's row arrives is undefined.
        assert sorted(seen(calls)) == ["bulk", "function", "saved", "saved", "updated"]

    def test_another_connection(self, calls):
        with psycopg.connect(url()) as other:
            with pytest.raises(psycopg.IntegrityError) as refusal, other.pipeline():
                other.execute(insert())
                other.commit()
            check_refusal(refusal.value)

        assert stored() == []

    def test_in_autocommit_it_is_refused(self, calls):
        # psycopg loses count of the results where the end of a pipeline fails.
        with pytest.raises((psycopg.Error, IndexError)), raw().pipeline():
            raw().execute(insert())
        connection.close()

        assert stored() == []
