"""Savepoints, transactions by hand and immediate constraints."""

# ruff: noqa: PT012  (transactions have several statements)

# ruff: noqa: PT012  (transactions have several statements)

from __future__ import annotations

import psycopg
import pytest
from django.db import transaction
from django.db.models.signals import post_save

from bulksafe.exceptions import ReceiversNotRun
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import CriticalShelf as Shelf
from tests.integration import inline_committed as inline
from tests.integration.bypass.writes import check_refusal, refuse, seen, stored
from tests.integration.inline_committed import (
    TICKET,
    execute,
    insert,
    raw,
    titles,
)

pytestmark = pytest.mark.django_db(transaction=True)


class TestSavepoints:
    def test_writes_before_a_savepoint_that_is_rolled_back(self, calls):
        with transaction.atomic():
            raw().execute(insert())
            with pytest.raises(ValueError, match="no"), transaction.atomic():
                Article.objects.create(title="gone")
                raise ValueError("no")

        assert titles() == ["raw"]
        assert seen(calls) == ["raw", "gone"]

    def test_writes_inside_a_savepoint_that_is_rolled_back(self, calls):
        with transaction.atomic():
            with pytest.raises(ValueError, match="no"), transaction.atomic():
                raw().execute(insert())
                raise ValueError("no")
            raw().execute(insert("kept"))

        assert seen(calls) == titles() == ["kept"]

    def test_by_hand(self, calls):
        with transaction.atomic():
            execute("SAVEPOINT by_hand")
            raw().execute(insert("gone"))
            raw().execute("ROLLBACK TO SAVEPOINT by_hand")
            raw().execute(insert("kept"))
            execute("RELEASE SAVEPOINT by_hand")

        assert seen(calls) == titles() == ["kept"]

    def test_of_the_driver_s(self, calls):
        """They bypass Django: a change that can no longer be delivered is refused."""
        with pytest.raises(ReceiversNotRun), transaction.atomic():
            raw().execute(insert())
            with raw().transaction(force_rollback=True):
                Article.objects.create(title="gone")

        assert stored() == []

    def test_of_the_driver_s_around_django_s_write(self, calls):
        with transaction.atomic():
            with raw().transaction(force_rollback=True):
                Article.objects.create(title="gone")
            with raw().transaction():
                Article.objects.create(title="kept")

        assert titles() == ["kept"]
        assert seen(calls) == ["gone", "kept"]


class TestTransactionsByHand:
    """Transactions that Django does not track."""

    def test_of_django_s_cursor(self, calls):
        execute("BEGIN")
        Article.objects.create(title="saved")
        execute("SELECT bypass.in_sql()")
        raw().execute(insert())
        assert seen(calls) == ["saved", "function"]
        execute("COMMIT")

        assert seen(calls) == ["saved", "function", "raw"]
        assert titles() == ["function", "raw", "saved"]

    def test_one_that_is_rolled_back(self, calls):
        execute("BEGIN")
        raw().execute(insert())
        execute("ROLLBACK")
        Article.objects.create(title="kept")

        assert seen(calls) == titles() == ["kept"]

    def test_a_write_that_a_receiver_refuses(self, clean):
        inline.critical(post_save, Article, refuse)
        execute("BEGIN")
        Shelf.objects.create(name="stays")
        with pytest.raises(ValueError, match="no"):
            Article.objects.create(title="saved")
        execute("COMMIT")

        assert stored() == []
        assert Shelf.objects.count() == 1

    def test_a_receiver_refuses_the_write_of_a_function(self, clean):
        """It is in the transaction already, which cannot be committed any more."""
        inline.critical(post_save, Article, refuse)
        execute("BEGIN")
        with pytest.raises(ValueError, match="no"):
            execute("SELECT bypass.in_sql()")
        with pytest.raises(ReceiversNotRun):
            execute("COMMIT")

        assert stored() == []

    def test_the_same_without_autocommit(self, clean):
        inline.critical(post_save, Article, refuse)
        transaction.set_autocommit(False)
        try:
            with pytest.raises(ValueError, match="no"):
                execute("SELECT bypass.in_sql()")
            with pytest.raises(ReceiversNotRun):
                transaction.commit()
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

        assert stored() == []

    def test_of_the_driver_s(self, calls):
        with raw().transaction():
            Article.objects.create(title="saved")
            Article.objects.update(title="updated")
        assert seen(calls) == ["saved", "updated"]

        with pytest.raises(psycopg.IntegrityError) as refusal, raw().transaction():
            raw().execute(insert())
        check_refusal(refusal.value)
        assert titles() == ["updated"]

    def test_callbacks_for_the_commit(self, clean):
        """Django runs them at once if it tracks no transaction."""
        done = []

        def later(**kwargs):
            transaction.on_commit(lambda: done.append("now"))

        inline.critical(post_save, Article, later)
        with raw().transaction():
            Article.objects.create(title="saved")
            assert done == ["now"]

        assert titles() == ["saved"]


# Constraints that are checked at once.


@pytest.mark.parametrize("constraints", ["ALL", TICKET])
class TestImmediateConstraints:
    def test_before_the_write(self, constraints, calls):
        with transaction.atomic():
            execute(f"SET CONSTRAINTS {constraints} IMMEDIATE")
            Article.objects.create(title="saved")
            Article.objects.update(title="updated")
            execute("SELECT bypass.in_sql()")
            raw().execute(insert())

        assert seen(calls) == ["saved", "updated", "function", "raw"]

    def test_after_the_write(self, constraints, calls):
        with transaction.atomic():
            Article.objects.create(title="saved")
            execute(f"SET CONSTRAINTS {constraints} IMMEDIATE")
            Article.objects.create(title="later")
            with transaction.atomic():
                Article.objects.create(title="in a savepoint")
                execute(f"SET CONSTRAINTS {constraints} IMMEDIATE")

        assert seen(calls) == ["saved", "later", "in a savepoint"]

    def test_after_an_undelivered_write(self, constraints, calls):
        with pytest.raises(ReceiversNotRun), transaction.atomic():
            raw().execute(insert())
            execute(f"SET CONSTRAINTS {constraints} IMMEDIATE")

        assert stored() == []

    def test_a_receiver_that_sets_constraints_immediate(self, constraints, clean):
        def hurry(instance, **kwargs):
            execute(f"SET CONSTRAINTS {constraints} IMMEDIATE")
            if instance.title == "first":
                Article.objects.create(title="second")

        inline.critical(post_save, Article, hurry)
        Article.objects.create(title="first")

        assert titles() == ["first", "second"]

    def test_rolling_back_to_a_savepoint_undoes_the_check(self, constraints, calls):
        with transaction.atomic():
            Article.objects.create(title="saved")
            with pytest.raises(ValueError, match="no"), transaction.atomic():
                execute(f"SET CONSTRAINTS {constraints} IMMEDIATE")
                raise ValueError("no")

        assert titles() == ["saved"]
