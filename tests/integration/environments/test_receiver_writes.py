"""Receivers that write."""

from __future__ import annotations

import pytest
from django.db.models import F
from django.db.models.signals import (
    post_delete,
    post_save,
)

from bulksafe.exceptions import EndlessWrites
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import CriticalShelf as Shelf
from tests.integration import inline_committed as inline
from tests.integration.environments.writing import (
    EVERY,
    SAVING,
    TABLE,
    every_way,
    in_atomic_or_not,
    perhaps_atomic,
    saving_ways,
    some_saving_ways,
)
from tests.integration.inline_committed import (
    execute,
    titles,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


class TestReceiversThatWrite:
    @every_way
    def test_an_update_of_the_row_itself(self, way, article):
        seen = []

        def count(instance, sender, **kwargs):
            seen.append(instance.pk)
            sender.objects.filter(pk=instance.pk).update(changes=F("changes") + 1)

        inline.critical([post_save, post_delete], Article, count)
        EVERY[way]("default")

        assert len(seen) == 1
        if way in SAVING:
            assert Article.objects.get(title="written").changes == 1

    @saving_ways
    def test_a_save_of_the_row_itself(self, way, article):
        seen = []

        def count(instance, **kwargs):
            seen.append(instance.title)
            instance.changes += 1
            instance.save()

        inline.critical(post_save, Article, count)
        SAVING[way]("default")

        assert seen == ["written"]
        assert Article.objects.get(title="written").changes == 1

    @saving_ways
    def test_a_bulk_update_of_all_rows(self, way, article):
        seen = []

        def renumber(sender, instance, **kwargs):
            seen.append(instance.title)
            rows = list(sender.objects.order_by("pk"))
            for number, row in enumerate(rows, 1):
                row.position = number
            sender.objects.bulk_update(rows, ["position"])

        inline.critical(post_save, Article, renumber)
        SAVING[way]("default")

        assert seen == ["written"]
        positions = Article.objects.order_by("pk").values_list("position", flat=True)
        assert list(positions) == list(range(1, len(positions) + 1))

    @saving_ways
    def test_two_receivers_that_maintain_each_other_converge(self, way, article):
        seen = []

        def slug(instance, **kwargs):
            seen.append("slug")
            Article.objects.filter(pk=instance.pk).update(slug=instance.title)

        def email(instance, **kwargs):
            seen.append("email")
            Article.objects.filter(pk=instance.pk).update(email=instance.title)

        inline.critical(post_save, Article, slug, dispatch_uid="slug")
        inline.critical(post_save, Article, email, dispatch_uid="email")
        SAVING[way]("default")

        found = Article.objects.get(title="written")
        assert (found.slug, found.email) == ("written", "written")
        assert len(seen) <= 6

    @some_saving_ways
    @pytest.mark.parametrize("how", ["update", "raw"])
    def test_two_receivers_that_update_the_row_nest_once(self, way, how, article):
        """With plain signals, such an update calls no receiver."""

        def write(pk):
            if how == "update":
                Article.objects.filter(pk=pk).update(changes=F("changes") + 1)
            else:
                execute(f"UPDATE {TABLE} SET changes = changes + 1 WHERE id = {pk}")

        for name in ("ping", "pong"):
            inline.critical(
                post_save, Article, lambda instance, **k: write(instance.pk), dispatch_uid=name
            )
        SAVING[way]("default")

        assert max(Article.objects.values_list("changes", flat=True)) == 4

    @some_saving_ways
    @in_atomic_or_not
    def test_two_that_never_converge_are_cut(self, way, is_atomic, article):
        def write(instance, **kwargs):
            found = Article.objects.get(pk=instance.pk)
            found.changes += 1
            found.save()

        for name in ("ping", "pong"):
            inline.critical(post_save, Article, write, dispatch_uid=name)
        with (
            pytest.raises(EndlessWrites, match=r"ping.*pong|pong.*ping") as cut,
            perhaps_atomic(is_atomic),
        ):
            SAVING[way]("default")

        assert "practice.criticalarticle" in str(cut.value).lower()
        assert titles() == ["there"]
        assert Article.objects.get().changes == 0

    def test_they_are_cut_across_tables(self, article):
        def article_to_shelf(instance, **kwargs):
            Shelf.objects.create(name=instance.title)

        def shelf_to_article(instance, **kwargs):
            Article.objects.create(title=instance.name)

        inline.critical(post_save, Article, article_to_shelf, dispatch_uid="ping")
        inline.critical(post_save, Shelf, shelf_to_article, dispatch_uid="pong")
        with pytest.raises(EndlessWrites, match=r"ping.*pong|pong.*ping"):
            Article.objects.bulk_create([Article(title="a")])

        assert titles() == ["there"]
        assert Shelf.objects.count() == 0

    def test_a_save_of_another_row_nests(self, clean):
        seen = []

        def next_one(instance, **kwargs):
            seen.append(instance.position)
            if instance.position < 10:
                Article(title="down", position=instance.position + 1).save()

        inline.critical(post_save, Article, next_one)
        Article.objects.bulk_create([Article(title="top", position=0)])

        assert seen == list(range(11))
