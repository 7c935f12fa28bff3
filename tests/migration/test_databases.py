"""Several databases behind a router, and several schemas in one database."""

import pytest
from django.db import DEFAULT_DB_ALIAS

LINE = """
class Line(models.Model):
    a = models.IntegerField(default=0)
    b = models.IntegerField(default=0)
    c = models.IntegerField(default=0)
    class Meta:
        triggers = [
            bulksafe.Check(Q(a__gte=0), name="positive"),
            bulksafe.Check(Q(b__gte=0), name="in_the_end", deferred=True),
            bulksafe.Check(Q(a=0), name="kept", operation=pgtrigger.Delete),
            bulksafe.Compute("c", F("a") + F("b")),
        ]
"""
NOTE = LINE.replace("Line", "Note")
ROUTER = """
class ByApp:
    homes = {"shop": "default", "notes": "second"}

    def db_for_read(self, model, **hints):
        return self.homes.get(model._meta.app_label)

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, **hints):
        return db == self.homes.get(app_label, db)
"""


def add_sqlite(project):
    name = str(project.directory / "lite.sqlite3")
    project.aliases["lite"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": name}


@pytest.fixture
def routed(project):
    """Two apps, each in a PostgreSQL database of its own."""
    project.aliases["second"] = project.database("second")
    project.write("routing.py", ROUTER)
    project.settings('DATABASE_ROUTERS = ["routing.ByApp"]')
    project.models(LINE)
    project.models(NOTE, app="notes")
    project.make()
    return project


def tables(project, alias=DEFAULT_DB_ALIAS):
    return {trigger.table for trigger in project.installed(alias).triggers}


def test_each_database_gets_the_triggers_of_its_own_tables(routed):
    routed.assert_nothing_to_make()
    for alias in ("default", "second"):
        routed.migrate("--database", alias)
        routed.manage("bulksafe", "ls", "--database", alias)
    assert tables(routed) == {"shop_line"}
    assert tables(routed, "second") == {"notes_note"}
    insert = "INSERT INTO notes_note (a, b, c) VALUES (-1, 0, 0)"
    assert routed.refusal(insert, alias="second") == "positive"
    routed.migrate("notes", "zero", "--database", "second")
    assert not routed.installed("second")
    assert tables(routed) == {"shop_line"}


def test_one_model_in_two_databases(project):
    project.aliases["second"] = project.database("second")
    project.models(LINE)
    project.make()
    for alias in ("default", "second"):
        project.migrate("--database", alias)
    assert project.installed() == project.installed("second")


def test_sqlite_gets_the_tables_without_the_triggers(project):
    add_sqlite(project)
    project.models(LINE)
    project.make()
    project.migrate("--database", "lite")
    project.migrate("shop", "zero", "--database", "lite")
    project.migrate("--database", "lite")
    project.python("""
        from shop.models import Line
        Line.objects.using("lite").create(a=-1)
    """)
    project.migrate()
    assert tables(project) == {"shop_line"}


def test_rows_with_critical_receivers_are_not_written_in_sqlite(project):
    """Bulk writes would skip the receivers, and nothing would refuse them."""
    add_sqlite(project)
    project.models("class Note(models.Model):\n    text = models.TextField()\n")
    project.write("shop/receivers.py", RECEIVER)
    project.make()
    project.migrate("--database", "lite")
    said = project.python("""
        from django.db import NotSupportedError
        from shop.models import Note
        note, notes = Note(text="a"), Note.objects.using("lite")
        stored = Note(pk=1, text="a")
        for write in (
            lambda: note.save(using="lite"),
            lambda: notes.create(text="a"),
            lambda: notes.bulk_create([note]),
            lambda: notes.bulk_update([stored], ["text"]),
            lambda: notes.update(text="b"),
            lambda: notes.all().delete(),
            lambda: stored.delete(using="lite"),
        ):
            try:
                write()
            except NotSupportedError as error:
                print(error)
    """)
    assert said == 7 * (
        "shop.Note has critical receivers, such as shop.receivers.keep, and was written to the "
        "database 'lite', which is not PostgreSQL. Write it to a PostgreSQL database, or connect "
        "the receiver with @receiver.\n"
    )


RECEIVER = """
import bulksafe
from django.db.models.signals import post_save
from shop.models import Note

@bulksafe.critical(post_save, sender=Note, dispatch_uid="shop.receivers.keep")
def keep(sender, instance, **kwargs):
    raise AssertionError("it was called")
"""


def test_sqlite_supports_every_change(project):
    add_sqlite(project)
    project.models(LINE)
    project.make()
    project.models(LINE.replace("Integer", "BigInteger").replace('"positive"', '"natural"'))
    project.make()
    project.models("")
    project.make()
    project.migrate("--database", "lite")
    project.migrate("shop", "zero", "--database", "lite")


def test_a_model_routed_to_sqlite_is_refused(routed):
    add_sqlite(routed)
    routed.write("routing.py", ROUTER.replace('"second"', '"lite"'))
    refused = routed.manage("check", code=1).stderr
    assert "notes.Note:positive: (bulksafe.E007)" in refused
    assert "shop.Line:positive: (bulksafe.E007)" not in refused


# Schemas


@pytest.fixture
def tenants(project):
    """The schemas ``one`` and ``two`` of one database, each with all tables."""
    project.run("CREATE SCHEMA one")
    project.run("CREATE SCHEMA two")
    database = project.aliases["default"]
    for name in ("one", "two"):
        project.aliases[name] = {**database, "OPTIONS": options(database, f"{name},public")}
    project.models(LINE)
    project.make()
    for name in ("one", "two"):
        project.migrate("--database", name)
    return project


def options(database, path):
    return {**database.get("OPTIONS", {}), "options": f"-c search_path={path}"}


def in_schema(installed, schema):
    triggers = [t for t in installed.triggers if t.schema == schema]
    functions = [f for f in installed.functions if f.schema == schema]
    return triggers, functions


def test_each_schema_has_triggers_and_functions_of_its_own(tenants):
    installed = tenants.installed()
    for name in ("one", "two"):
        triggers, functions = in_schema(installed, name)
        assert all(f"EXECUTE FUNCTION {name}." in trigger.definition for trigger in triggers)
        assert len(triggers) == 6  # Compute has a guard, the rule on DELETE one for TRUNCATE.
        assert len(functions) > len(triggers)
        tenants.manage("bulksafe", "ls", "--database", name)
        assert tenants.refusal("INSERT INTO shop_line (a, b, c) VALUES (-1, 0, 0)", alias=name)
        assert tenants.refusal("INSERT INTO shop_line (a, b, c) VALUES (0, -1, 0)", alias=name)
        tenants.run("INSERT INTO shop_line (a, b, c) VALUES (1, 2, 0)", alias=name)
        assert tenants.run("SELECT c FROM shop_line", alias=name) == [(3,)]
        assert tenants.refusal("DELETE FROM shop_line", alias=name) == "kept"
    assert in_schema(installed, "public") == ([], [])
    one, two = ([f.name for f in in_schema(installed, name)[1]] for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(
    "command",
    [("migrate", "shop", "zero", "--database", "one"), ("pgtrigger", "uninstall", "-d", "one")],
    ids=["migrate", "pgtrigger"],
)
def test_removing_them_from_one_schema_leaves_the_other_alone(tenants, command):
    before = tenants.installed()
    tenants.manage(*command)
    after = tenants.installed()
    assert in_schema(after, "one") == ([], [])
    assert in_schema(after, "two") == in_schema(before, "two")
    assert tenants.refusal("INSERT INTO shop_line (a, b, c) VALUES (-1, 0, 0)", alias="two")


def test_a_table_in_a_later_schema_of_the_search_path(project):
    """Functions go to the table's schema, not to the first one, and are found there again."""
    project.models(LINE)
    project.make()
    project.migrate()
    project.run("CREATE SCHEMA front")
    database = project.aliases["default"]
    project.aliases["fronted"] = {**database, "OPTIONS": options(database, "front,public")}
    before = project.installed()
    project.manage("pgtrigger", "install", "-d", "fronted")
    assert project.installed() == before
    project.manage("pgtrigger", "uninstall", "-d", "fronted")
    assert not project.installed()
    project.manage("pgtrigger", "install", "-d", "fronted")
    assert project.installed() == before
    project.migrate("shop", "zero", "--database", "fronted")
    assert not project.installed()


def test_a_table_named_with_its_schema(project):
    """``db_table = '"schema"."table"'``, which Django quotes no further."""
    project.run("CREATE SCHEMA depot")
    text = LINE.replace("triggers =", 'db_table = \'"depot"."lines"\'\n        triggers =')
    project.models(text)
    project.make()
    project.migrate()
    project.assert_all_installed()
    assert {trigger.schema for trigger in project.installed().triggers} == {"depot"}
    assert {function.schema for function in project.installed().functions} == {"depot"}
    project.migrate("shop", "zero")
    assert not project.installed()
