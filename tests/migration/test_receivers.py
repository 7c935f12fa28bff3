"""Migrations for receivers: when one is created, its operations and its dependencies."""

import subprocess
import sys
from pathlib import Path

import django.contrib.auth
import pytest

from tests.migration.project import environment

pytestmark = pytest.mark.once

#: The answer to the question whether a capture without receivers is to be dropped.
DROP = "2\n"
AUTH = ["django.contrib.contenttypes", "django.contrib.auth"]
ORDER = """
class {name}(models.Model):
    {status} = models.CharField(max_length=20, default="draft"{options})
    amount = models.IntegerField(default=0)
    class Meta:
        {meta}
class Other(models.Model):
    n = models.IntegerField(default=0)
"""
IMPORTS = """
import bulksafe
from django.db.models import F, Q
from django.db.models.signals import m2m_changed, post_delete, post_save

"""
SAVE = """
@bulksafe.critical(post_save, sender="shop.{model}", run="after_commit", {options})
def {name}(instance=None, instances=(), **kwargs):
    print("{name}", instance.pk if instance else instances)

"""
DELETE = SAVE.replace("post_save", "post_delete")


def models(**parts):
    defaults = {"name": "Order", "status": "status", "options": "", "meta": "pass"}
    return ORDER.format(**defaults | parts)


def saved(name="received", model="Order", options=""):
    return SAVE.format(name=name, model=model, options=options)


def deleted(name="gone", model="Order", options=""):
    return DELETE.format(name=name, model=model, options=options)


def receive(project, *texts, app="shop"):
    project.write(f"{app}/receivers.py", IMPORTS + "".join(texts))


@pytest.fixture
def shop(project):
    """A project with two tables and without receivers, migrated."""
    project.models(models())
    project.make()
    project.migrate()
    return project


def evolve(project, answers=""):
    """Make migrations and apply them, whether there are any or not."""
    project.make(answers=answers)
    project.assert_nothing_to_make()
    project.migrate()
    project.assert_all_installed()
    assert project.installed() == project.fresh()
    return project.installed()


def triggers(installed):
    return sorted((t.table, t.definition.split(" ")[4]) for t in installed.triggers)


def test_the_first_receiver_of_a_table_creates_its_capture_and_the_last_drops_it(shop):
    receive(shop, saved())
    made = evolve(shop)
    assert triggers(made) == [("shop_order", "INSERT"), ("shop_order", "UPDATE")]
    assert len(made.functions) == 2
    assert len(shop.migrations()) == 2

    receive(shop)
    assert not evolve(shop, DROP)
    assert len(shop.migrations()) == 3

    shop.migrate("shop", "0002")
    assert shop.installed() == made
    shop.migrate("shop", "0001")
    assert not shop.installed()


def test_more_receivers_of_the_same_changes_make_no_migration(shop):
    receive(shop, saved())
    before = evolve(shop)
    for texts in (
        [saved(), saved("second", options="batch=True, queue='mail', atomic=False")],
        [saved("second"), saved(options="after=[second], max_attempts=3")],
        [saved("third", options="coalesce=True, dispatch_uid='x'")],
    ):
        receive(shop, *texts)
        assert evolve(shop) == before
    assert len(shop.migrations()) == 2


def test_other_changes_and_conditions_make_one(shop):
    receive(shop, saved())
    evolve(shop)
    receive(shop, saved(), deleted())
    operations = [operation for _, operation in triggers(evolve(shop))]
    assert operations == ["DELETE", "INSERT", "TRUNCATE", "UPDATE"]
    assert len(shop.migrations()) == 3

    receive(shop, saved(options="when=Q(new__status='paid')"), deleted())
    evolve(shop)
    receive(shop, saved(options="when=Q(new__status='sent')"), deleted())
    evolve(shop)
    assert len(shop.migrations()) == 5
    # Two receivers may have the same condition.
    receive(shop, *(saved(name, options="when=Q(new__status='sent')") for name in "ab"), deleted())
    evolve(shop)
    assert len(shop.migrations()) == 5

    receive(shop, deleted())
    assert {"DELETE", "TRUNCATE"} == {operation for _, operation in triggers(evolve(shop))}


def test_several_conditions_are_installed_as_the_migration_says(shop):
    """A migration file has the keys of a dict in their order."""
    conditions = [f"when=Q(new__amount={number})" for number in range(6)]
    receive(shop, *(saved(f"received_{n}", options=text) for n, text in enumerate(conditions)))
    shop.make()
    shop.migrate()

    shop.assert_nothing_to_make()
    shop.assert_all_installed()


def test_pgtrigger_installs_captures_into_a_schema(shop):
    receive(shop, saved(options="when=Q(new__status='50%')"), deleted())
    made = evolve(shop)
    for trigger in made.triggers:
        shop.run(f"DROP TRIGGER {trigger.name} ON {trigger.table}")

    shop.manage("pgtrigger", "install", "--schema", "public")

    assert shop.installed() == made


def test_the_setting_for_truncate_makes_one(shop):
    receive(shop, deleted())
    evolve(shop)
    shop.settings('BULKSAFE = {"TRUNCATE": "allow"}')
    assert triggers(evolve(shop)) == [("shop_order", "DELETE")]


CONDITION = "when=Q(new__status='paid') & ~Q(old__status='paid')"
CHANGES = {
    "rename_the_model": (
        models(name="Purchase"),
        saved(model="Purchase", options=CONDITION),
        "y\n",
    ),
    "rename_the_table": (models(meta='db_table = "Old orders"'), saved(options=CONDITION), ""),
    "rename_the_field": (
        models(status="state"),
        saved(options=CONDITION.replace("status", "state")),
        "y\n",
    ),
    "rename_the_column": (
        models(options=', db_column="St At"'),
        saved(options=CONDITION),
        "",
    ),
    "alter_the_type": (
        models().replace("CharField(max_length=20,", "TextField("),
        saved(options=CONDITION),
        "",
    ),
    "remove_the_field": (
        models().replace("    status =", "    # status ="),
        saved(),
        "",
    ),
    "add_a_field": (
        models().replace("    amount", "    total = models.IntegerField(default=0)\n    amount"),
        saved(options=CONDITION),
        "",
    ),
    "remove_the_model": ("class Other(models.Model): n = models.IntegerField(default=0)", "", ""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_model_changes(shop, change):
    text, receivers, answers = CHANGES[change]
    receive(shop, saved(options=CONDITION))
    before = evolve(shop)
    last = shop.migrations()[-1]

    shop.models(text)
    receive(shop, receivers)
    after = evolve(shop, answers)

    shop.migrate("shop", last)
    assert shop.installed() == before
    shop.migrate()
    assert shop.installed() == after
    shop.migrate("shop", "zero")
    assert not shop.installed()


@pytest.mark.parametrize("change", [name for name in CHANGES if name != "remove_the_model"])
def test_rows_written_after_the_change_are_captured(shop, change):
    """Not only is everything there: it works."""
    text, receivers, answers = CHANGES[change]
    receive(shop, saved(options=CONDITION))
    evolve(shop)
    shop.models(text)
    receive(shop, receivers)
    evolve(shop, answers)

    model = "Purchase" if change == "rename_the_model" else "Order"
    state = {"rename_the_field": "state", "remove_the_field": ""}.get(change, "status")
    values = f"{state}='paid'" if state else ""
    assert shop.python(f"""
        from bulksafe import testing
        from shop.models import {model}
        {model}.objects.bulk_create([{model}({values}), {model}(amount=1)])
        testing.deliver()
        """) == ("received 1\n" if state else "received 1\nreceived 2\n")


# Models of others.


def test_a_model_of_another_package(project):
    """The migration lands in the app that has the receiver."""
    shipped = Path(django.contrib.auth.__file__).parent / "migrations"
    before = sorted(shipped.rglob("*.py"))
    project.contrib = AUTH
    project.models(models())
    receive(
        project,
        saved().replace("shop.Order", "auth.User"),
        saved("joined")
        .replace('"shop.Order"', "User.groups.through")
        .replace("post_save", "m2m_changed")
        .replace("\n@", "\nfrom django.contrib.auth.models import User\n@"),
    )
    made = evolve(project)
    assert {trigger.table for trigger in made.triggers} == {"auth_user", "auth_user_groups"}
    assert project.migrations() == ["0001_initial"]
    assert sorted(shipped.rglob("*.py")) == before

    receive(project)
    assert not evolve(project, DROP * 2)
    project.migrate("shop", "0001")
    assert project.installed() == made


def test_a_model_of_another_app_of_the_project(shop):
    """The app that declares the receiver gets the migration here, too."""
    shop.models("", app="press")
    receive(shop, saved(), app="press")
    made = evolve(shop)
    assert triggers(made) == [("shop_order", "INSERT"), ("shop_order", "UPDATE")]
    assert (len(shop.migrations()), shop.migrations("press")) == (1, ["0001_initial"])


def test_parents_and_children(project):
    project.models("""
    class Base(models.Model):
        n = models.IntegerField(default=0)
    class Child(Base):
        m = models.IntegerField(default=0)
    """)
    receive(project, saved(model="Child"))
    made = evolve(project)
    assert triggers(made) == [
        ("shop_base", "UPDATE"),
        ("shop_child", "INSERT"),
        ("shop_child", "UPDATE"),
    ]
    receive(project)
    assert not evolve(project, DROP * 2)


@pytest.mark.parametrize("parent", ["base", '"side"."base"'])
@pytest.mark.parametrize("child", ["child", '"other \'side"."child"'])
def test_parents_and_children_in_different_schemas(project, parent, child):
    project.run('CREATE SCHEMA side; CREATE SCHEMA "other \'side"')
    project.models(f"""
    class Base(models.Model):
        n = models.IntegerField(default=0)
        class Meta:
            db_table = {parent!r}
    class Child(Base):
        m = models.IntegerField(default=0)
        class Meta:
            db_table = {child!r}
    """)
    receive(project, SAVE.format(name="received", model="Child", options="").replace("pk", "n"))
    project.make()
    project.migrate()

    project.python("""
    from shop.models import Child
    Child.objects.create(n=1, m=1)
    Child.objects.update(n=2)
    Child.objects.update(m=2)
    """)

    listened = project.manage("bulksafe", "listen", "--once")
    assert listened.stdout.split() == ["received", "1", "received", "2", "received", "2"]


def test_emit(shop):
    emit = "triggers = [bulksafe.Emit({}, when=Q(amount__gt={}), name='big')]"
    signal = "from django.dispatch import Signal\nbig = Signal()\nother = Signal()\n"
    shop.models(signal + models(meta=emit.format("big", 5)))
    before = evolve(shop)
    assert triggers(before) == [("shop_order", "INSERT"), ("shop_order", "UPDATE")]
    shop.models(signal + models(meta=emit.format("other", 5)))
    assert evolve(shop) == before
    assert len(shop.migrations()) == 2
    shop.models(signal + models(meta=emit.format("big", 6)))
    evolve(shop)
    assert len(shop.migrations()) == 3


# Facts that a migration does not depend on.


def made_by_a_process(project, **variables):
    for path in (project.directory / "shop" / "migrations").glob("0*.py"):
        path.unlink()
    project.write_settings()
    done = subprocess.run(
        [sys.executable, "manage.py", "makemigrations", "--no-header", "-v", "0"],
        cwd=project.directory,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return project.migration("0001")


def test_the_migration_depends_on_no_process_and_on_no_order(project):
    project.models(models())
    texts = [
        saved("a", options="when=Q(new__status__in={'paid', 'sent', 'void'})"),
        saved("b", options="when=Q(amount__gt=F('amount') + 1) | Q(status='x')"),
        saved("c", model="Other"),
        deleted("d", options="when=~Q(old__amount=0)"),
        saved("e", options=CONDITION),
    ]
    receive(project, *texts)
    first = made_by_a_process(project, PYTHONHASHSEED="0")
    assert made_by_a_process(project, PYTHONHASHSEED="1", LC_ALL="C", TZ="Asia/Tokyo") == first
    receive(project, *reversed(texts))
    assert made_by_a_process(project, PYTHONHASHSEED="2") == first
    # Wherever they are declared.
    receive(project, *texts[:2])
    project.write("shop/signals.py", IMPORTS + "".join(texts[2:]))
    assert made_by_a_process(project, PYTHONHASHSEED="3") == first
