"""``migrate bulksafe zero`` loses no event, and leaves no writer behind that fails."""

import re

import psycopg
import pytest

from tests.operation.conftest import RECEIVERS, declare, mend, order, texts

pytestmark = pytest.mark.once

OURS = """
    SELECT count(*) FROM pg_class WHERE relname LIKE 'bulksafe\\_%' AND relkind IN ('r', 'p', 'S')
"""
CAPTURES = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%bulksafe_capture%'"


def everything(project):
    return project.run(OURS) + project.run(CAPTURES)


@pytest.fixture
def site(shop):
    """A shop whose captures are not in the first migration, as in a project that adds receivers."""

    def make(**receivers):
        project = shop()
        declare(project, **receivers)
        project.make()
        project.migrate()
        return project

    return make


def refusal(project, *arguments):
    """The error of ``migrate bulksafe zero``; nothing has gone."""
    before = everything(project)
    failed = project.migrate("bulksafe", "zero", *arguments, code=1)
    assert everything(project) == before
    assert "Traceback" not in failed.stderr
    return failed.stderr


def test_events_that_a_queue_has_not_delivered(site):
    project = site(notify="", mail='queue="mail"')
    order(project, "one")
    order(project, "two")
    project.manage("bulksafe", "listen", "--once", "--queues", "mail")

    said = refusal(project)

    assert "undelivered events (2), parked events (0) and dead letters (0)" in said
    assert "manage.py bulksafe discard --undelivered" in said
    project.manage("bulksafe", "listen", "--once")
    project.migrate("bulksafe", "zero")
    assert everything(project) == [(0,), (0,)]


def test_parked_events_and_dead_letters(site):
    project = site(notify="max_attempts=1")
    order(project, "bad")
    project.run("UPDATE shop_order SET amount = 2")
    project.manage("bulksafe", "listen", "--once", code=1)

    assert "undelivered events (0), parked events (1) and dead letters (1)" in refusal(project)
    mend(project)
    project.manage("bulksafe", "retry", "--all")
    project.manage("bulksafe", "listen", "--once")
    project.migrate("bulksafe", "zero")


def test_an_event_of_a_transaction_that_has_not_ended(site):
    """It is waited for."""
    project = site(notify="")
    project.settings(
        project.extra_settings
        + "DATABASES['default'].setdefault('OPTIONS', {})['options'] = '-c lock_timeout=200'\n"
    )
    with project.connect() as writer:
        writer.execute("BEGIN")
        writer.execute("INSERT INTO shop_order (number, amount) VALUES ('one', 0)")
        project.migrate("bulksafe", "zero", code=1)
        writer.execute("COMMIT")

    assert "undelivered events (1)" in refusal(project)


def test_without_events_the_schema_can_be_dropped_and_recreated(site):
    project = site(notify="")
    order(project, "one")
    project.manage("bulksafe", "listen", "--once")
    project.migrate("bulksafe", "zero")
    order(project, "unseen")
    project.migrate()
    order(project, "two")
    project.manage("bulksafe", "listen", "--once")

    assert texts(project) == ["notify one 0", "notify two 0"]


def forget_dependencies(project):
    """As a squashed migration that was edited, or ``pgtrigger install``, would leave them."""
    for migration in (project.directory / "shop/migrations").glob("0*.py"):
        migration.write_text(re.sub(r"\('bulksafe', '\w+'\),", "", migration.read_text()))


def test_triggers_that_no_migration_drops(site):
    """Their writers would fail from then on."""
    project = site(notify="")
    forget_dependencies(project)

    said = refusal(project)

    assert "triggers still write to bulksafe's tables" in said
    assert "shop_order" in said
    assert "take the critical receivers of these tables out of the code" in said
    order(project, "one")


def test_triggers_that_write_to_the_buffer(site):
    project = site(notify="")
    path = project.directory / "shop/receivers.py"
    path.write_text(path.read_text().replace('"after_commit"', '"in_transaction"'))
    project.make()
    project.migrate()
    forget_dependencies(project)

    assert "triggers still write to bulksafe's tables" in refusal(project)
    # Only the tables of the second migration.
    assert "triggers still write" in project.migrate("bulksafe", "0001", code=1).stderr


def test_the_sql_of_the_migration_refuses_in_psql_too(site):
    project = site(notify="")
    order(project, "one")
    drop = project.manage("sqlmigrate", "--backwards", "bulksafe", "0001").stdout

    with pytest.raises(psycopg.errors.ObjectInUse, match="triggers still write"):
        project.run(drop)
    project.run("DROP TRIGGER " + capture(project) + " ON shop_order")
    with pytest.raises(psycopg.errors.ObjectInUse, match=r"undelivered events \(1\)"):
        project.run(drop)


def capture(project):
    named = "SELECT tgname FROM pg_trigger WHERE tgname LIKE '%bulksafe_capture%'"
    names = [name for (name,) in project.run(named)]
    for name in names[1:]:
        project.run(f"DROP TRIGGER {name} ON shop_order")
    return names[0]


def test_a_database_without_an_outbox(site):
    project = site(notify="")
    project.aliases["lite"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    project.migrate("bulksafe", "zero", "--database", "lite")
    project.migrate("bulksafe", "zero")
    project.migrate("bulksafe", "zero")


# Giving them up.


@pytest.fixture
def waiting(site):
    """One event that waits, one that is parked and one dead letter."""
    project = site(notify="max_attempts=1")
    order(project, "bad")
    project.run("UPDATE shop_order SET amount = 2")
    project.manage("bulksafe", "listen", "--once", code=1)
    order(project, "one")
    return project


COUNTED = "undelivered events: 1, parked events: 1, dead letters: 1"


@pytest.mark.parametrize("answer", ["", "no\n", "y\n"])
def test_events_are_discarded_only_after_confirmation(waiting, answer):
    said = waiting.manage("bulksafe", "discard", "--undelivered", code=1, answers=answer)

    assert f"The database 'default' holds {COUNTED}" in said.stdout
    assert "Nothing was discarded" in said.stdout
    refusal(waiting)


@pytest.mark.parametrize(("arguments", "answer"), [([], "yes\n"), (["--noinput"], "")])
def test_discarded_events_are_not_delivered_and_the_queue_continues(waiting, arguments, answer):
    done = waiting.manage("bulksafe", "discard", "--undelivered", *arguments, answers=answer)

    assert f"Discarded {COUNTED}. Their receivers never ran." in done.stdout
    order(waiting, "two")
    waiting.manage("bulksafe", "listen", "--once")
    assert texts(waiting) == ["notify two 0"]
    again = waiting.manage("bulksafe", "discard", "--undelivered", "--noinput", code=1)
    assert "Nothing waits" in again.stdout
    waiting.migrate("bulksafe", "zero")


def test_an_app_whose_receivers_were_removed_keeps_its_events(site):
    """The way that the refusal names: the code first, then its migration, then bulksafe's."""
    project = site(notify="")
    order(project, "one")
    project.write("shop/receivers.py", RECEIVERS)
    project.make("--drop-capture", "shop.Order")
    project.migrate()
    assert project.run(CAPTURES) == [(0,)]

    assert "undelivered events (1)" in refusal(project)
    project.manage("bulksafe", "discard", "--undelivered", "--noinput")
    project.migrate("bulksafe", "zero")
    order(project, "two")


# The steps of docs/how-to/uninstall.md.

TRIGGER_OPERATION = re.compile(r" {8}\w+\.\w+\.(Add|Remove)Trigger\(\n.*?\n {8}\),\n", re.DOTALL)


def test_later_migrations_of_the_project_stay(site):
    project = site(notify="")
    models = (project.directory / "shop/models.py").read_text()
    project.write("shop/models.py", models + "\nclass Later(models.Model):\n    pass\n")
    project.make()
    (project.directory / "shop/receivers.py").unlink()
    project.make("--drop-capture", "shop.Order")
    project.migrate()

    forget_dependencies(project)
    for migration in (project.directory / "shop/migrations").glob("0*.py"):
        text = TRIGGER_OPERATION.sub("", migration.read_text())
        migration.write_text(re.sub(r"^import (bulksafe|pgtrigger).*\n", "", text, flags=re.M))
        assert "bulksafe." not in migration.read_text()
    project.migrate("bulksafe", "zero")

    assert everything(project) == [(0,), (0,)]
    assert project.run("SELECT count(*) FROM shop_later") == [(0,)]
    project.settings('INSTALLED_APPS = ["shop"]\n')
    project.assert_nothing_to_make()
    project.migrate("--check")
