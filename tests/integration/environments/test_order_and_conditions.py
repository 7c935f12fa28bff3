"""Order, batches and conditions."""

from __future__ import annotations

import pytest
from django.db.models import F, Q
from django.db.models.signals import (
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)

from tests.apps.practice.models import CriticalArticle as Article
from tests.integration import inline_committed as inline
from tests.integration.environments.writing import (
    DELETING,
    EVERY,
    INSERT_SELECT,
    SAVING,
    TABLE,
    every_way,
    saving_ways,
)
from tests.integration.inline_committed import (
    execute,
    insert,
    titles,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


deleting_ways = pytest.mark.parametrize("way", DELETING)


# Order, batches and conditions.


class TestOrder:
    @every_way
    @pytest.mark.parametrize("signals", [[pre_save, pre_delete], [post_save, post_delete]])
    def test_after_others(self, way, signals, article):
        order = []
        for name, after in (("c", ["b"]), ("a", []), ("b", ["a"])):
            for signal in signals:
                inline.critical(
                    signal,
                    Article,
                    lambda name=name, **kwargs: order.append(name),
                    dispatch_uid=f"{name}.{signals.index(signal)}",
                    after=[f"{one}.{signals.index(signal)}" for one in after],
                )
        EVERY[way]("default")

        assert order == ["a", "b", "c"]

    @every_way
    def test_in_the_order_of_declaration_otherwise(self, way, article):
        order = []
        for name in "bac":
            inline.critical(
                [post_save, post_delete],
                Article,
                lambda name=name, **kwargs: order.append(name),
                dispatch_uid=name,
            )
        EVERY[way]("default")

        assert order == ["b", "a", "c"]

    def test_row_by_row(self, clean):
        """For each row the receivers in their order, as per-row saves have it."""
        order = []
        for name in "ab":
            inline.critical(
                post_save,
                Article,
                lambda instance, name=name, **kwargs: order.append(f"{name} {instance.title}"),
                dispatch_uid=name,
            )
        expected = ["a 1", "b 1", "a 2", "b 2"]
        Article.objects.bulk_create([Article(title="1"), Article(title="2")])
        assert order == expected
        order.clear()
        Article.objects.update(version=1)
        assert order == expected
        order.clear()
        execute(f"UPDATE {TABLE} SET version = 2")
        assert order == expected


class TestBatches:
    @pytest.mark.parametrize(
        "write",
        [
            lambda: Article.objects.bulk_create([Article(title=str(n)) for n in range(5)]),
            lambda: execute("; ".join(insert(str(n)) for n in range(5))),
            lambda: execute(
                INSERT_SELECT.replace("'written'", "n::text") + " FROM generate_series(0, 4) AS n"
            ),
        ],
    )
    @pytest.mark.parametrize("signal", [pre_save, post_save])
    def test_one_call_for_a_write(self, write, signal, clean):
        found = []

        def receiver(sender, instances, events, **kwargs):
            found.append([instance.title for instance in instances])

        inline.critical(signal, Article, receiver, batch=True)
        write()

        assert found == [[str(n) for n in range(5)]]

    @every_way
    def test_of_one_row(self, way, article):
        late = inline.critical([post_save, post_delete], Article, batch=True)
        early = inline.critical([pre_save, pre_delete], Article, batch=True)
        EVERY[way]("default")

        assert [len(call["instances"]) for call in (*late, *early)] == [1, 1]

    def test_updates_and_deletions(self, clean):
        Article.objects.bulk_create([Article(title=str(n)) for n in range(5)])
        calls = inline.critical([post_save, post_delete], Article, batch=True)
        Article.objects.update(version=1)
        execute(f"DELETE FROM {TABLE}")

        assert [len(call["instances"]) for call in calls] == [5, 5]
        assert [one.changed for one in calls[0]["events"]] == [{"version"}] * 5


class TestConditions:
    """``when`` is evaluated on every path, before and after the write."""

    @saving_ways
    @pytest.mark.parametrize("signal", [pre_save, post_save])
    def test_of_the_new_row(self, way, signal, article):
        met = inline.critical(signal, Article, when=Q(new__title="written"), dispatch_uid="met")
        unmet = inline.critical(signal, Article, when=Q(new__title="x"), dispatch_uid="unmet")
        SAVING[way]("default")

        assert (len(met), len(unmet)) == (1, 0)

    @saving_ways
    @pytest.mark.parametrize("signal", [pre_save, post_save])
    def test_of_the_old_row(self, way, signal, article):
        is_new = way in {
            "save",
            "create",
            "get_or_create",
            "bulk_create",
            "INSERT",
            "INSERT SELECT",
        }
        changed = inline.critical(
            signal, Article, when=~Q(new__title=F("old__title")), dispatch_uid="changed"
        )
        there = inline.critical(signal, Article, when=Q(old__title="there"), dispatch_uid="there")
        none = inline.critical(signal, Article, when=Q(old__title="x"), dispatch_uid="none")
        SAVING[way]("default")

        assert len(changed) == 1
        assert (len(there), len(none)) == (0 if is_new else 1, 0)

    @deleting_ways
    @pytest.mark.parametrize("signal", [pre_delete, post_delete])
    def test_of_the_deleted_row(self, way, signal, article):
        met = inline.critical(signal, Article, when=Q(old__title="there"), dispatch_uid="met")
        unmet = inline.critical(signal, Article, when=Q(old__title="x"), dispatch_uid="unmet")
        DELETING[way]("default")

        assert (len(met), len(unmet)) == (1, 0)

    @pytest.mark.parametrize("signal", [pre_save, post_save])
    def test_some_rows_of_many(self, signal, clean):
        calls = inline.critical(signal, Article, when=Q(new__version__gte=3))

        def versions():
            found = [call["instance"].version for call in calls]
            calls.clear()
            return found

        Article.objects.bulk_create([Article(title="a", version=n) for n in range(5)])
        assert versions() == [3, 4]
        Article.objects.update(version=F("version") + 1)
        assert sorted(versions()) == [3, 4, 5]
        rows = list(Article.objects.order_by("version"))
        for row in rows:
            row.version -= 1
        Article.objects.bulk_update(rows, ["version"])
        assert versions() == [3, 4]
        execute(f"UPDATE {TABLE} SET version = version - 1")
        assert versions() == [3]

    def test_some_of_many_deleted_rows(self, clean):
        Article.objects.bulk_create([Article(title="a", version=n) for n in range(5)])
        early = inline.critical(pre_delete, Article, when=Q(old__version__gte=3))
        late = inline.critical(post_delete, Article, when=Q(old__version__gte=3))
        Article.objects.filter(version__in=[0, 3]).delete()
        execute(f"DELETE FROM {TABLE}")

        assert [call["instance"].version for call in early] == [3, 4]
        assert [call["instance"].version for call in late] == [3, 4]

    def test_a_write_that_meets_no_condition_is_not_refused(self, psql, clean):
        inline.critical(post_save, Article, when=Q(new__title="special"))

        assert psql(insert("plain")).returncode == 0
        assert psql(insert("special")).returncode == 3
        assert titles() == ["plain"]
