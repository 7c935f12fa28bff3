"""Django's test cases."""

# ruff: noqa: PT012  (transactions have several statements)

# ruff: noqa: PT012  (transactions have several statements)

from __future__ import annotations

import unittest

import psycopg
import pytest
from django import test
from django.db import (
    connection,
    transaction,
)
from django.db.models.signals import (
    post_save,
)

from bulksafe import testing
from bulksafe.exceptions import ReceiversNotRun
from tests.apps.practice.models import CriticalArticle as Article
from tests.integration import inline_committed as inline
from tests.integration.environments.writing import TABLE, refuse
from tests.integration.inline_committed import (
    execute,
    insert,
    raw,
    titles,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def run_cases(case):
    """The result of a class of test cases."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result


def names_of(listed):
    return [str(case).split()[0] for case, _ in listed]


class TestTestCases:
    def test_an_undelivered_write_fails_the_test_at_its_end(self, clean):
        calls = inline.critical(post_save, Article, dispatch_uid="warehouse")

        class Cases(test.TestCase):
            @classmethod
            def setUpTestData(cls):
                Article.objects.create(title="for all")

            def test_1_past_django(self):
                raw().execute(insert())

            def test_2_past_django_and_on(self):
                raw().execute(insert("delivered"))
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
        delivered_titles = [call["instance"].title for call in calls]
        assert delivered_titles == ["for all", "delivered", "bulk", "raw", "changed"]
        assert titles() == []

    def test_what_a_receiver_raises(self, clean):
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

    def test_transactions_that_are_real(self, clean):
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
