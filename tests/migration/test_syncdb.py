"""Tables made without migrations, as ``pytest --nomigrations`` does."""

MODELS = """
class Tag(models.Model):
    name = models.CharField(max_length=20)
class Article(models.Model):
    title = models.CharField(max_length=20)
    tags = models.ManyToManyField(Tag)
    class Meta:
        triggers = [bulksafe.Check(~Q(title=""), name="titled")]
"""
INVARIANTS = """
from news.models import Article
bulksafe.register(Article, bulksafe.Immutable("title"))
bulksafe.register(Article.tags.through, bulksafe.Immutable("tag"))
"""
UNMIGRATED = "MIGRATION_MODULES = dict.fromkeys(['news', 'shop', 'auth', 'contenttypes'])\n"


def registered(project):
    project.models(MODELS, app="news")
    project.models("")
    project.invariants(INVARIANTS)
    return project


def named(project):
    return {
        trigger.name.split("_", 1)[1].rpartition("_")[0] for trigger in project.installed().triggers
    }


def test_triggers_of_proxies_are_installed(project):
    registered(project).settings(UNMIGRATED)
    project.migrate("--run-syncdb")
    assert named(project) == {"titled", "immutable_title", "immutable_tag"}
    project.assert_all_installed()
    before = project.installed()
    project.migrate("--run-syncdb")
    assert project.installed() == before


def test_it_is_the_same_with_migrations(project):
    registered(project).make()
    project.migrate()
    assert project.installed() == project.fresh()


def test_only_missing_objects_are_restored(project):
    registered(project).settings(UNMIGRATED)
    project.migrate("--run-syncdb")
    before = project.installed()
    (title,) = (t for t in before.triggers if "immutable_title" in t.name)
    (tag,) = (t for t in before.triggers if "immutable_tag" in t.name)
    project.run(f"DROP TRIGGER {title.name} ON news_article")
    project.run(f"ALTER TABLE {tag.table} DISABLE TRIGGER {tag.name}")
    project.migrate("--run-syncdb")
    after = {trigger.name: trigger.enabled for trigger in project.installed().triggers}
    assert after == {t.name: "D" if t == tag else "O" for t in before.triggers}


def test_with_migrations_nothing_is_installed_outside_them(project):
    registered(project).make()
    project.migrate()
    (title,) = (t for t in project.installed().triggers if "immutable_title" in t.name)
    project.run(f"DROP TRIGGER {title.name} ON news_article")
    project.migrate()
    assert title not in project.installed().triggers


def test_another_app_is_migrated_and_the_registering_one_is_not(project):
    """Such as a project whose ``makemigrations`` is still to come."""
    registered(project).make("news")
    project.settings("MIGRATION_MODULES = {'shop': None}\n")
    project.migrate("--run-syncdb")
    project.assert_all_installed()
    assert named(project) == {"titled", "immutable_title", "immutable_tag"}


def test_only_some_of_the_tables_exist(project):
    registered(project).make("news")
    project.contrib = ["django.contrib.contenttypes"]
    project.settings("MIGRATION_MODULES = {'shop': None}\n")
    project.migrate("contenttypes")
    assert not project.installed()


def test_sqlite_is_left_alone(project):
    registered(project).settings(UNMIGRATED)
    name = str(project.directory / "lite.sqlite3")
    project.aliases["lite"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": name}
    project.migrate("--run-syncdb", "--database", "lite")
    assert not project.installed()


def test_a_test_database_without_migrations(project):
    """Django's own test runner, with the ``TEST: MIGRATE = False`` of a database."""
    registered(project)
    project.aliases["default"]["TEST"] = {"NAME": f"{project.prefix}_test", "MIGRATE": False}
    project.write(
        "shop/tests.py",
        """
        from django.test import TestCase
        import bulksafe
        from news.models import Article

        class Titles(TestCase):
            def test_title(self):
                article = Article.objects.create(title="x")
                with self.assertRaises(bulksafe.InvariantViolation):
                    Article.objects.update(title="y")
        """,
    )
    project.databases.made.append(f"{project.prefix}_test")
    ran = project.manage("test", "shop", "--noinput", "--keepdb", "-v", "0")
    assert "OK" in ran.stderr
