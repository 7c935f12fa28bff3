"""Triggers on models of other apps are invisible to those apps, whatever they do with models."""

import pytest

pytestmark = pytest.mark.once

AUTH = ["django.contrib.contenttypes", "django.contrib.auth"]

RECEIVERS = """
import bulksafe
from django.db.models.signals import m2m_changed, post_delete, post_save

def note(**kwargs): pass

"""

#: What packages do with the subclasses of their models: Wagtail's page types, wagtailimages' check,
#: simple-history's inherited histories, psqlextra's partitioned models.
WATCHING = """
from django.core import checks
from django.db import models
from django.db.models.signals import class_prepared

prepared = []

def prepare(sender, **kwargs):
    prepared.append(sender._meta.label)
    if any(getattr(base, "is_inherited", False) for base in sender.__mro__[1:]):
        name = f"History{sender.__name__}"
        meta = type("Meta", (), {"app_label": sender._meta.app_label})
        type(name, (models.Model,), {"__module__": sender.__module__, "Meta": meta})

class_prepared.connect(prepare)

class Partitioned(models.base.ModelBase):
    def __new__(cls, name, bases, attributes, **kwargs):
        if name not in {"Part"}:
            raise TypeError(f"{name} has no PartitioningMeta")
        return super().__new__(cls, name, bases, attributes, **kwargs)

class Page(models.Model):
    title = models.CharField(max_length=20)

class Tracked(models.Model):
    is_inherited = True
    n = models.IntegerField(default=0)

class Tag(models.Model):
    name = models.CharField(max_length=20)

class Rendition(models.Model):
    size = models.IntegerField(default=0)
    tags = models.ManyToManyField(Tag)

class Part(models.Model, metaclass=Partitioned):
    n = models.IntegerField(default=0)

class Strict(models.Model):
    def __init_subclass__(cls, **kwargs):
        raise TypeError(f"{cls.__name__} is none of ours")
    n = models.IntegerField(default=0)

@checks.register
def check_subclasses(app_configs, **kwargs):
    return [
        checks.Error(f"{child.__name__} has no filter", id="neighbour.E001")
        for child in Rendition.__subclasses__()
    ]
"""
NAMES = ("Page", "Tracked", "Rendition", "Part", "Strict")
ON_ALL = RECEIVERS + "".join(
    f"""
@bulksafe.critical(post_save, sender="neighbour.{name}", run="after_commit")
def saved_{name.lower()}(**kwargs): pass
"""
    for name in NAMES
)
ON_ALL += """
from neighbour.models import Rendition

@bulksafe.critical(m2m_changed, sender=Rendition.tags.through)
def linked(**kwargs): pass
"""
INVARIANTS = "".join(
    f'bulksafe.register("neighbour.{name}", bulksafe.Immutable("id"))\n' for name in NAMES
)
LOOK = """
from django.apps import apps
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from neighbour import models

listed = apps.get_models(include_auto_created=True, include_swapped=True)
state = MigrationLoader(connection).project_state().apps
print(sorted(m._meta.label for m in listed))
print(sorted((m.__name__, sorted(c.__name__ for c in m.__subclasses__())) for m in listed))
print(models.prepared)
print(sorted(ContentType.objects.values_list("app_label", "model")))
print(sorted(Permission.objects.values_list("codename", flat=True)))
print(sorted(m._meta.label for m in state.get_models(include_auto_created=True)))
"""


def triggers(project, alias="default"):
    return sorted((t.table, t.name.split("_", 1)[1]) for t in project.installed(alias).triggers)


def tables(project, alias="default"):
    return sorted({t.table for t in project.installed(alias).triggers})


@pytest.mark.parametrize("has_migrations", [True, False], ids=["migrations", "syncdb"])
def test_our_tables_are_not_among_the_models(project, has_migrations):
    project.contrib = AUTH
    project.models(WATCHING, app="neighbour")
    project.models("", app="press")
    if not has_migrations:
        project.settings("MIGRATION_MODULES = {'neighbour': None}")
    project.make()
    project.migrate("--run-syncdb")
    before = project.python(LOOK)
    assert "Page" in before

    project.write("press/receivers.py", ON_ALL)
    project.invariants(INVARIANTS, app="press")
    project.make()
    project.assert_nothing_to_make()
    project.manage("check")
    project.migrate("--run-syncdb")
    assert project.python(LOOK) == before
    project.assert_all_installed()
    assert tables(project) == [f"neighbour_{n.lower()}" for n in sorted((*NAMES, "Rendition_tags"))]
    assert "neighbour.Page:bulksafe_capture" in project.manage("pgtrigger", "ls").stdout
    there = project.installed()
    if has_migrations:
        assert project.migrations("neighbour") == ["0001_initial"]
        assert there == project.fresh()

    project.migrate("press", "zero")
    assert not project.installed()
    project.migrate("press")
    assert project.installed() == there
    project.write("press/receivers.py", "")
    project.invariants("", app="press")
    dropped = [f"neighbour.{name}" for name in (*NAMES, "Rendition_tags")]
    options = [part for label in dropped for part in ("--drop-capture", label)]
    project.make("press", *options)
    project.migrate()
    project.assert_nothing_to_make()
    assert not project.installed()


def test_the_trigger_of_an_app_without_migrations_waits_for_its_tables(project):
    project.models("class Page(models.Model): n = models.IntegerField(default=0)", app="news")
    project.settings("MIGRATION_MODULES = {'news': None}")
    project.models("", app="shop")
    project.invariants('bulksafe.register("news.Page", bulksafe.Immutable("n"))')
    project.make("shop")
    refused = project.migrate(code=None)
    assert refused.code
    assert "run “migrate --run-syncdb”" in refused.stderr
    assert not project.installed()
    project.migrate("--run-syncdb")
    assert tables(project) == ["news_page"]
    project.run("INSERT INTO news_page (n) VALUES (1)")
    assert project.refusal("UPDATE news_page SET n = 2") == "immutable_n"


SHAPES = """
class Tag(models.Model):
    name = models.CharField(max_length=20)
class Base(models.Model):
    tags = models.ManyToManyField(Tag)
    class Meta:
        abstract = True
class First(Base): n = models.IntegerField(default=0)
class Second(Base): n = models.IntegerField(default=0)
class Pair(models.Model):
    pk = models.CompositePrimaryKey("a", "b")
    a = models.IntegerField()
    b = models.IntegerField()
    n = models.IntegerField(default=0)
class Quoted(models.Model):
    n = models.IntegerField(default=0)
    class Meta:
        db_table = 'My Table'
"""
ON_SHAPES = (
    RECEIVERS
    + """
from news.models import Base, First, Second, Pair, Quoted
bulksafe.critical([post_save, post_delete], sender=[Base, Pair, Quoted])(note)
bulksafe.critical(m2m_changed, sender=[First.tags.through, Second.tags.through])(note)
"""
)


@pytest.mark.parametrize("has_migrations", [True, False], ids=["migrations", "syncdb"])
def test_composite_keys_abstract_bases_and_quoted_tables(project, has_migrations):
    project.models(SHAPES, app="news")
    project.models("", app="shop")
    project.write("shop/receivers.py", ON_SHAPES)
    if not has_migrations:
        project.settings("MIGRATION_MODULES = {'news': None}")
    project.make()
    project.assert_nothing_to_make()
    project.migrate("--run-syncdb")
    project.assert_all_installed()
    there = project.installed()
    assert tables(project) == [
        "My Table",
        "news_first",
        "news_first_tags",
        "news_pair",
        "news_second",
        "news_second_tags",
    ]
    project.migrate("shop", "zero")
    assert not project.installed()
    project.migrate("--run-syncdb")
    assert project.installed() == there


def test_a_swapped_user(project):
    project.contrib = AUTH
    project.settings('AUTH_USER_MODEL = "people.Person"')
    project.models(
        """
        from django.contrib.auth.models import AbstractUser
        class Person(AbstractUser): pass
        """,
        app="people",
    )
    project.models("", app="accounts")
    project.write(
        "accounts/receivers.py",
        RECEIVERS
        + """
from django.contrib.auth import get_user_model
bulksafe.critical(post_save, sender=get_user_model(), run="after_commit")(note)
bulksafe.critical(m2m_changed, sender=get_user_model().groups.through)(note)
""",
    )
    project.make()
    project.assert_nothing_to_make()
    project.migrate()
    assert tables(project) == ["people_person", "people_person_groups"]
    assert project.migrations("people") == ["0001_initial"]
    project.migrate("accounts", "zero")
    assert not project.installed()


# The other app's own migrations.

ARTICLE = """
class Tag(models.Model):
    name = models.CharField(max_length=20)
class {name}(models.Model):
    title = models.CharField(max_length=20)
    {field} = models.ManyToManyField(Tag)
"""
ON_ARTICLE = (
    RECEIVERS
    + """
from news.models import {name}
bulksafe.critical(post_save, sender={name})(note)
bulksafe.critical(m2m_changed, sender={name}.{field}.through)(note)
"""
)


class World:
    """The package ``news``, which does not use bulksafe, and the app ``home`` that watches it.

    The names decide which app's migrations come first on a new database.
    """

    def __init__(self, project, home):
        self.project = project
        self.home = home

    def package(self, text, answers=""):
        """The next version of the package, with its migration."""
        self.project.models(text, app="news")
        installed, self.project.apps = self.project.apps, ["news"]
        self.project.make(answers=answers)
        self.project.apps = installed

    def watch(self, text):
        if self.home not in self.project.apps:
            self.project.models("", app=self.home)
        self.project.write(f"{self.home}/receivers.py", text)
        self.project.make(self.home)
        self.project.assert_nothing_to_make()

    def takes_back(self, *migration):
        """Take back a migration that has deleted a table: the table comes back with its triggers.

        In Django's order of all migrations, those of ``shop`` come after the package's, so what
        they have attached is not in the state yet: they have to be applied again.
        """
        self.project.migrate(*migration)
        if self.home > "news":
            self.project.migrate(self.home, "zero")
            self.project.migrate(self.home)

    def new_database(self):
        """What the migrations lead to without the steps in between."""
        self.project.aliases["new"] = self.project.database(
            f"new{len(self.project.databases.made)}"
        )
        self.project.migrate("--database", "new")
        return self.project.installed("new")


@pytest.fixture(params=["app", "shop"])
def world(project, request):
    made = World(project, request.param)
    made.package(ARTICLE.format(name="Article", field="tags"))
    made.watch(ON_ARTICLE.format(name="Article", field="tags"))
    project.migrate()
    assert tables(project) == ["news_article", "news_article_tags"]
    return made


CHANGES = {
    "model": ("Story", "tags", "y\n"),
    "field": ("Article", "labels", "y\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_package_renames(world, change):
    name, field, answers = CHANGES[change]
    project, before = world.project, world.project.installed()
    world.package(ARTICLE.format(name=name, field=field), answers)
    project.write(f"{world.home}/receivers.py", "")
    project.migrate()
    moved = project.installed()
    assert [t.name for t in moved.triggers] == [t.name for t in before.triggers]

    world.watch(ON_ARTICLE.format(name=name, field=field))
    project.migrate()
    after = project.installed()
    assert tables(project) == sorted([f"news_{name}".lower(), f"news_{name}_{field}".lower()])
    project.assert_all_installed()
    assert len(after.functions) == len(before.functions)
    assert world.new_database() == after

    # Back, with the table under its new name, and further.
    project.migrate(world.home, "0001")
    assert project.installed() == moved
    project.migrate("news", "0001", code=None)
    project.migrate(world.home, "zero")
    assert not project.installed()
    project.migrate()
    assert project.installed() == after


def test_a_package_deletes_the_model(world):
    project, before = world.project, world.project.installed()
    world.package("class Tag(models.Model):\n    name = models.CharField(max_length=20)\n")
    project.write(f"{world.home}/receivers.py", "")
    project.migrate()
    assert not project.installed()
    project.make()
    assert project.migrations(world.home) == ["0001_initial"]
    assert not world.new_database()
    world.takes_back("news", "0001")
    assert project.installed() == before
    project.migrate()
    assert not project.installed()


def test_a_package_deletes_the_many_to_many_field(world):
    project, before = world.project, world.project.installed()
    text = ARTICLE.format(name="Article", field="tags").replace("    tags =", "    # tags =")
    world.package(text)
    project.write(
        f"{world.home}/receivers.py",
        "\n".join(
            line
            for line in ON_ARTICLE.format(name="Article", field="tags").splitlines()
            if "through" not in line
        ),
    )
    project.migrate()
    assert tables(project) == ["news_article"]
    project.assert_nothing_to_make()
    assert {t.table for t in world.new_database().triggers} == {"news_article"}
    world.takes_back("news", "0001")
    assert project.installed() == before


@pytest.mark.parametrize("change", CHANGES)
def test_one_makemigrations_for_both_apps(world, change):
    """As in a project where both apps are one's own."""
    name, field, answers = CHANGES[change]
    project, before = world.project, world.project.installed()
    project.models(ARTICLE.format(name=name, field=field), app="news")
    project.write(f"{world.home}/receivers.py", ON_ARTICLE.format(name=name, field=field))
    project.make(answers=answers)
    project.assert_nothing_to_make()
    project.migrate()
    project.assert_all_installed()
    after = project.installed()
    assert world.new_database() == after
    project.migrate(world.home, "0001")
    project.migrate("news", "0001")
    assert project.installed() == before
    project.migrate()
    assert project.installed() == after


def test_dropping_a_table_drops_functions_of_triggers_unknown_to_the_migrations(world):
    """The watching app was uninstalled without being migrated back."""
    project = world.project
    project.apps.remove(world.home)
    assert project.installed().functions
    project.models("", app="news")
    project.make()
    project.migrate()
    assert not project.installed()


def test_a_column_is_altered_under_a_condition_of_another_app(world):
    project = world.project
    project.invariants(
        'bulksafe.register("news.Article", bulksafe.Check(~Q(title=""), name="titled"))',
        app=world.home,
    )
    project.make(world.home)
    project.migrate()
    there = project.installed()
    longer = ARTICLE.format(name="Article", field="tags").replace(
        "title = models.CharField(max_length=20)", "title = models.TextField()"
    )
    world.package(longer)
    project.migrate()
    assert [t.name for t in project.installed().triggers] == [t.name for t in there.triggers]
    assert project.refusal("INSERT INTO news_article (title) VALUES ('')") == "titled"


# Which app has the migration.

ORDER = "class Order(models.Model): n = models.IntegerField(default=0)\n"
ON_ORDER = RECEIVERS + 'bulksafe.critical({}, sender="shop.Order", run="after_commit"{})(note)\n'


def declare(project, app, signal="post_save", more=""):
    if app not in project.apps:
        project.models("", app=app)
    project.write(f"{app}/receivers.py", ON_ORDER.format(signal, more))


def homes(project):
    return [app for app in sorted(project.apps) if "bulksafe.operations" in text_of(project, app)]


def text_of(project, app):
    return "".join(
        path.read_text() for path in (project.directory / app / "migrations").glob("0*.py")
    )


@pytest.mark.parametrize("order", [["shop", "b", "a"], ["a", "shop", "b"], ["b", "a", "shop"]])
def test_the_first_declaring_app_by_name_has_it_whatever_the_order(project, order):
    project.models(ORDER)
    for app in ("a", "b"):
        declare(project, app)
    project.apps = order
    project.make()
    assert homes(project) == ["a"]
    project.apps = ["b", "shop", "a"]
    project.assert_nothing_to_make()


def test_the_model_s_own_app_has_it_if_it_declares_a_receiver(project):
    project.models(ORDER)
    for app in ("a", "shop"):
        declare(project, app)
    project.make()
    assert homes(project) == ["shop"]


def test_app_label_says_which(project):
    project.models(ORDER)
    declare(project, "a")
    declare(project, "b", more=', app_label="c"')
    project.models("", app="c")
    project.invariants(
        'bulksafe.register("shop.Order", bulksafe.Immutable("n"), app_label="d")', app="b"
    )
    project.models("", app="d")
    project.make()
    assert homes(project) == ["c", "d"]
    project.assert_nothing_to_make()


def test_e124_for_an_unknown_app_label(project):
    project.models(ORDER)
    project.models("", app="mine")
    declare(project, "a", more=', app_label="mien"')
    project.invariants(
        'bulksafe.register("shop.Order", bulksafe.Immutable("n"), app_label="mien")', app="a"
    )
    refused = project.manage("makemigrations", code=1).stderr
    assert (
        refused.count("(bulksafe.E124) app_label='mien' is not the label of an installed app") == 2
    )
    assert refused.count("Did you mean 'mine'?") == 2


def test_e122_for_an_app_label_of_an_installed_package(project):
    project.contrib = AUTH
    project.models(ORDER)
    declare(project, "a", more=', app_label="auth"')
    project.invariants(
        'bulksafe.register("shop.Order", bulksafe.Immutable("n"), app_label="auth")', app="a"
    )
    refused = project.manage("makemigrations", code=1).stderr
    assert refused.count("would go to the installed package django.contrib.auth") == 2


@pytest.mark.parametrize(("old", "new"), [("a", "b"), ("b", "a"), ("shop", "a"), ("a", "shop")])
def test_it_moves_and_is_there_all_the_time(project, old, new):
    project.models(ORDER)
    for app in (old, new):
        if app not in project.apps:
            project.models("", app=app)
    declare(project, old)
    project.make()
    project.migrate()
    before = triggers(project)
    assert before
    assert homes(project) == [old]
    first = {app: (project.migrations(app) or ["zero"])[-1] for app in (old, new)}

    project.write(f"{old}/receivers.py", "")
    declare(project, new)
    project.make()
    project.assert_nothing_to_make()
    assert homes(project) == sorted([old, new])

    def step(app, name):
        project.migrate(app, name)
        assert triggers(project) == before

    step(new, project.migrations(new)[-1])
    step(old, project.migrations(old)[-1])
    project.assert_all_installed()
    step(old, first[old])
    step(new, first[new])
    project.migrate()
    after = project.installed()
    project.aliases["new"] = project.database("new")
    project.migrate("--database", "new")
    assert project.installed("new") == after
    project.manage("bulksafe", "ls", "--database", "new")


def test_it_moves_and_changes_at_once(project):
    project.models(ORDER)
    project.models("", app="b")
    declare(project, "a")
    project.make()
    project.migrate()
    project.write("a/receivers.py", "")
    declare(project, "b", signal="[post_save, post_delete]")
    project.make()
    project.assert_nothing_to_make()
    project.migrate()
    project.assert_all_installed()
    after = project.installed()
    assert len(after.triggers) == 4
    project.aliases["new"] = project.database("new")
    project.migrate("--database", "new")
    assert project.installed("new") == after


# Databases, squashing.


def test_two_databases_behind_a_router(project):
    project.aliases["second"] = project.database("second")
    project.write(
        "routing.py",
        """
        class ByApp:
            homes = {"shop": "default", "news": "second"}
            def db_for_read(self, model, **hints):
                return self.homes.get(model._meta.app_label)
            db_for_write = db_for_read
            def allow_migrate(self, db, app_label, **hints):
                return db == self.homes.get(app_label, db)
        """,
    )
    project.settings('DATABASE_ROUTERS = ["routing.ByApp"]')
    project.models(ORDER)
    project.models(ORDER.replace("Order", "Article"), app="news")
    project.models("", app="watch")
    project.write(
        "watch/receivers.py",
        RECEIVERS + 'bulksafe.critical(post_save, sender=["shop.Order", "news.Article"])(note)\n',
    )
    project.make()
    for alias in ("default", "second"):
        project.migrate("--database", alias)
        project.manage("bulksafe", "ls", "--database", alias)
    assert tables(project) == ["shop_order"]
    assert tables(project, "second") == ["news_article"]
    project.migrate("watch", "zero", "--database", "second")
    assert not project.installed("second")
    assert tables(project) == ["shop_order"]


def test_squashed_and_printed(project):
    project.models(ORDER)
    declare(project, "a")
    project.make()
    for signal in ("post_delete", "[post_save, post_delete]"):
        declare(project, "a", signal)
        project.make()
    project.migrate()
    there, last = project.installed(), project.migrations("a")[-1]
    project.manage("squashmigrations", "a", last[:4], "--no-input", "--squashed-name", "all")
    assert project.migration("0001_all", app="a").count("AddTrigger(") == 1
    project.assert_nothing_to_make()
    project.aliases["new"] = project.database("new")
    project.migrate("--database", "new")
    assert project.installed("new") == there

    project.aliases["by_hand"] = project.database("by_hand")
    for app in ("bulksafe", "shop"):
        project.migrate(app, "--database", "by_hand")
    printed = project.manage("sqlmigrate", "a", "0001_all", "--database", "by_hand").stdout
    project.run(printed, alias="by_hand")
    assert project.installed("by_hand") == there
    back = ("sqlmigrate", "a", "0001_all", "--backwards", "--database", "by_hand")
    project.run(project.manage(*back).stdout, alias="by_hand")
    assert not project.installed("by_hand")
