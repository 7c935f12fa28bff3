"""``bulksafe.register``: invariants on models of other apps, with the migration in one's own."""

from pathlib import Path

import django.contrib.auth
import pytest

pytestmark = pytest.mark.once

AUTH = ["django.contrib.contenttypes", "django.contrib.auth"]

ARTICLE = """
class Tag(models.Model):
    name = models.CharField(max_length=20)
class Article(models.Model):
    title = models.CharField(max_length=20)
    tags = models.ManyToManyField(Tag)
"""
ON_TITLE = 'bulksafe.register({}, bulksafe.Check(~Q(title=""), name="titled"))\n'
ON_TAGS = """
bulksafe.register(
    {},
    bulksafe.Immutable("article", "tag"),
    bulksafe.Check(Q(tag_id__gt=0), name="tagged"),
)
"""


def migrate_both_ways(project, without):
    """Apply, unapply and apply again; then remove the registration and migrate both ways.

    ``without`` rewrites the project without it.
    """
    project.assert_nothing_to_make()
    project.migrate()
    project.assert_all_installed()
    there, last = project.installed(), project.migrations()[-1]
    assert there
    assert there == project.fresh()

    without()
    project.make()
    project.assert_nothing_to_make()
    project.migrate()
    assert not project.installed()
    project.migrate("shop", last)
    assert project.installed() == there
    project.migrate("shop", "zero")
    assert not project.installed()
    project.migrate()
    assert not project.installed()


@pytest.mark.parametrize("target", ["User", '"auth.User"'])
def test_user(project, target):
    shipped = Path(django.contrib.auth.__file__).parent / "migrations"
    before = sorted(shipped.rglob("*.py"))
    project.contrib = AUTH
    project.models("")
    project.invariants(f"""
    from django.contrib.auth.models import User
    bulksafe.register({target}, bulksafe.Check(~Q(email=""), name="reachable"))
    """)
    project.make()
    project.migrate()
    assert project.migrations() == ["0001_initial"]
    assert sorted(shipped.rglob("*.py")) == before
    (trigger,) = project.installed().triggers
    assert trigger.table == "auth_user"
    insert = """
        INSERT INTO auth_user (username, email, password, first_name, last_name, is_superuser,
                               is_staff, is_active, date_joined)
        VALUES ('a', '', '', '', '', false, false, true, now())
    """
    assert project.refusal(insert) == "reachable"
    assert project.run(
        "SELECT count(*) FROM auth_permission WHERE codename LIKE '%invariants'"
    ) == [(0,)]
    migrate_both_ways(project, without=lambda: project.invariants(""))


def test_user_as_the_creator_of_the_database_sees_it(project):
    """``migrate shop`` alone on an empty database brings the other app's table along."""
    project.contrib = AUTH
    project.models("")
    project.invariants('bulksafe.register("auth.User", bulksafe.Immutable("username"))')
    project.make()
    project.migrate("shop")
    assert [trigger.table for trigger in project.installed().triggers] == ["auth_user"]


@pytest.mark.parametrize("target", ["Article", '"shop.article"'])
def test_model_of_the_same_app(project, target):
    project.models(ARTICLE)
    project.invariants("from shop.models import Article\n" + ON_TITLE.format(target))
    project.make()
    project.migrate()
    assert project.refusal("INSERT INTO shop_article (title) VALUES ('')") == "titled"
    migrate_both_ways(project, without=lambda: project.invariants(""))


@pytest.mark.parametrize("target", ["Article.tags.through", '"shop.Article_tags"'])
def test_automatic_through_table_of_the_same_app(project, target):
    project.models(ARTICLE)
    project.invariants("from shop.models import Article\n" + ON_TAGS.format(target))
    project.make()
    project.migrate()
    assert {trigger.table for trigger in project.installed().triggers} == {"shop_article_tags"}
    project.run("INSERT INTO shop_article (title) VALUES ('x')")
    project.run("INSERT INTO shop_tag (name) VALUES ('x')")
    project.run("INSERT INTO shop_article_tags (article_id, tag_id) VALUES (1, 1)")
    assert project.refusal("UPDATE shop_article_tags SET tag_id = 2") == "immutable_article_tag"
    project.run("DELETE FROM shop_article_tags")
    migrate_both_ways(project, without=lambda: project.invariants(""))


def test_automatic_through_table_is_dropped_with_its_model(project):
    project.models(ARTICLE)
    project.invariants("from shop.models import Article\n" + ON_TAGS.format("Article.tags.through"))
    project.make()

    def without():
        project.invariants("")
        project.models("")

    migrate_both_ways(project, without)


def test_automatic_through_table_is_dropped_with_its_field(project):
    project.models(ARTICLE)
    project.invariants("from shop.models import Article\n" + ON_TAGS.format("Article.tags.through"))
    project.make()

    def without():
        project.invariants("")
        project.models(ARTICLE.replace("    tags = models.ManyToManyField(Tag)\n", ""))

    migrate_both_ways(project, without)


def test_automatic_through_table_of_another_app(project):
    project.models(ARTICLE, app="news")
    project.models("")
    project.invariants("from news.models import Article\n" + ON_TAGS.format("Article.tags.through"))
    project.make()
    assert project.migrations("news") == ["0001_initial"]
    migrate_both_ways(project, without=lambda: project.invariants(""))


def test_model_of_another_app_is_removed_with_its_registration(project):
    project.models(ARTICLE, app="news")
    project.models("")
    project.invariants(ON_TITLE.format('"news.Article"'))
    project.make()
    project.migrate()
    project.invariants("")
    project.models("", app="news")
    project.make()
    project.assert_nothing_to_make()
    project.migrate()
    assert not project.installed()
    project.migrate("shop", "zero")
    project.migrate("news", "zero")
    project.migrate()
    assert not project.installed()


def test_model_of_another_app_is_renamed(project):
    project.models(ARTICLE, app="news")
    project.models("")
    project.invariants(ON_TITLE.format('"news.Article"'))
    project.make()
    project.migrate()
    project.models(ARTICLE.replace("Article", "Story"), app="news")
    project.invariants(ON_TITLE.format('"news.Story"'))
    project.make(answers="y\n")
    project.assert_nothing_to_make()
    project.migrate()
    project.assert_all_installed()
    assert project.refusal("INSERT INTO news_story (title) VALUES ('')") == "titled"
    assert project.installed() == project.fresh()
    project.migrate("shop", "zero")
    assert not project.installed()
    project.migrate("news", "zero")
    project.migrate()
    project.assert_all_installed()


def test_one_model_registered_by_two_apps(project):
    project.models(ARTICLE, app="news")
    for app in ("shop", "press"):
        project.models("", app=app)
        project.invariants(ON_TITLE.format('"news.Article"'), app=app)
    assert "bulksafe.E005" in project.manage("check", code=1).stderr
    project.invariants(ON_TITLE.format('"news.Article"').replace("titled", "entitled"), app="press")
    project.make()
    project.assert_nothing_to_make()
    project.migrate()
    project.assert_all_installed()
    both = project.installed()
    assert len(both.triggers) == len(both.functions) == 2
    project.invariants("", app="press")
    project.make()
    project.migrate()
    (left,) = project.installed().triggers
    assert left in both.triggers
    assert project.refusal("INSERT INTO news_article (title) VALUES ('')") == "titled"


def test_swapped_user(project):
    project.contrib = AUTH
    project.settings('AUTH_USER_MODEL = "people.Person"')
    project.models(
        """
        from django.contrib.auth.models import AbstractUser
        class Person(AbstractUser): pass
        """,
        app="people",
    )
    project.models("")
    project.invariants("""
    from django.contrib.auth import get_user_model
    bulksafe.register(get_user_model(), bulksafe.Immutable("username"))
    """)
    project.make()
    project.migrate()
    assert [trigger.table for trigger in project.installed().triggers] == ["people_person"]
    project.assert_nothing_to_make()

    project.invariants('bulksafe.register("auth.User", bulksafe.Immutable("username"))')
    refused = project.manage("check", code=1)
    assert "bulksafe.E008" in refused.stderr
    assert "people.Person" in refused.stderr


def test_app_without_a_models_module(project):
    project.models(ARTICLE, app="news")
    project.models("")
    (project.directory / "shop" / "models.py").unlink()
    project.invariants(ON_TITLE.format('"news.Article"'))
    project.make()
    migrate_both_ways(project, without=lambda: project.invariants(""))


def test_child_and_parent_tables(project):
    project.models("""
    class Place(models.Model):
        name = models.CharField(max_length=20)
        class Meta:
            triggers = [bulksafe.Check(~Q(name=""), name="named")]
    class Bar(Place):
        seats = models.IntegerField()
        class Meta:
            triggers = [bulksafe.Check(Q(seats__gt=0), name="seated")]
    """)
    project.models("", app="press")
    project.invariants(
        'bulksafe.register("shop.Bar", bulksafe.Immutable("seats"))\n'
        'bulksafe.register("shop.Place", bulksafe.Immutable("name"))',
        app="press",
    )
    project.make()
    project.assert_nothing_to_make()
    project.migrate()
    tables = {
        (trigger.table, trigger.name.split("_")[1]) for trigger in project.installed().triggers
    }
    assert tables == {
        ("shop_place", "named"),
        ("shop_place", "immutable"),
        ("shop_bar", "seated"),
        ("shop_bar", "immutable"),
    }
    assert project.installed() == project.fresh()
    project.migrate("press", "zero")
    project.migrate("shop", "zero")
    assert not project.installed()
