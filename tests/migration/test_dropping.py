"""A capture whose receivers were removed: ``makemigrations`` asks, or keeps it."""

import psycopg
import pytest

from tests.migration.test_receivers import (
    AUTH,
    CONDITION,
    DROP,
    deleted,
    evolve,
    models,
    receive,
    saved,
    shop,  # noqa: F401
    triggers,
)

pytestmark = pytest.mark.once

KEEP = "1\n"
CAPTURE = [("shop_order", "INSERT"), ("shop_order", "UPDATE")]


@pytest.fixture
def captured(shop):  # noqa: F811
    """A migrated project with a receiver, whose module is not imported any more."""
    receive(shop, saved())
    evolve(shop)
    receive(shop)
    return shop


def assert_kept(project, *, count=2):
    """The capture is installed, and the migrations contain it."""
    project.migrate()
    assert triggers(project.installed()) == CAPTURE
    assert len(project.migrations()) == count
    # Its receivers are back.
    receive(project, saved())
    project.assert_nothing_to_make()
    project.assert_all_installed()


def says_how_to_drop(result, label="shop.Order"):
    assert f"Keeping the capture on {label}" in result.stderr
    assert "AppConfig.ready()" in result.stderr
    assert f"manage.py makemigrations --drop-capture {label}" in result.stderr
    return True


@pytest.mark.parametrize(
    "arguments", [["--noinput"], ["--check"], ["--dry-run"], [], ["--noinput", "shop"]], ids=str
)
def test_without_an_answer_it_is_kept(captured, arguments):
    made = captured.make(*arguments)

    assert "No changes detected" in made.stdout
    assert says_how_to_drop(made)
    assert_kept(captured)


def test_the_answer_keeps_or_drops_it(captured):
    made = captured.make(answers=KEEP)
    assert "The table of shop.Order has a capture" in made.stdout
    assert made.stderr == ""
    assert len(captured.migrations()) == 2

    made = captured.make(answers=DROP)
    assert "Remove trigger bulksafe_capture from shop.order" in made.stdout
    captured.migrate()
    assert not captured.installed()
    captured.assert_nothing_to_make()


@pytest.mark.parametrize("label", ["shop.Order", "shop.order"])
@pytest.mark.parametrize("arguments", [["--noinput"], ["shop"]], ids=str)
def test_the_option_drops_it(captured, label, arguments):
    made = captured.make("--drop-capture", label, *arguments)

    assert made.stderr == ""
    captured.migrate()
    assert not captured.installed()


def test_the_option_with_check_says_that_there_is_something_to_make(captured):
    captured.manage("makemigrations", "--check", "--drop-capture", "shop.Order", code=1)
    assert len(captured.migrations()) == 2


@pytest.mark.parametrize("label", ["shop.Other", "shop.Ordre", "Order"])
def test_the_option_for_another_model(captured, label):
    refused = captured.manage("makemigrations", "--drop-capture", label, code=1)

    assert f"--drop-capture {label}: there is no capture without receivers" in refused.stderr
    assert "Models that have one: shop.Order." in refused.stderr
    assert_kept(captured)


def test_a_capture_with_receivers_is_not_dropped(captured):
    receive(captured, saved())

    refused = captured.manage("makemigrations", "--drop-capture", "shop.Order", code=1)

    assert "Models that have one: none." in refused.stderr


def test_migrate_drops_nothing_and_reports_no_changes(captured):
    migrated = captured.manage("migrate")

    assert "changes that are not yet reflected" not in migrated.stdout + migrated.stderr
    assert_kept(captured)


def test_apps_that_were_not_named_are_not_asked_about(captured):
    captured.models("class Piece(models.Model): pass", app="press")

    made = captured.make("press")

    assert made.stderr == ""
    assert "capture" not in made.stdout
    assert captured.migrations("press") == ["0001_initial"]
    assert_kept(captured)


def test_other_invariants_are_removed_without_a_question(shop):  # noqa: F811
    shop.models(models(meta='triggers = [bulksafe.Immutable("amount")]'))
    receive(shop, saved())
    evolve(shop)
    shop.models(models())
    receive(shop)

    made = shop.make("--noinput")

    assert "Remove trigger immutable_amount" in made.stdout
    assert says_how_to_drop(made)
    assert_kept(shop, count=3)


def test_removing_one_of_several_receivers_asks_nothing(shop):  # noqa: F811
    receive(shop, saved(), deleted())
    evolve(shop)
    receive(shop, saved())

    made = shop.make()

    assert made.stderr == ""
    shop.migrate()
    assert triggers(shop.installed()) == CAPTURE


def test_each_table_is_prompted_for(shop):  # noqa: F811
    receive(shop, saved(), saved("other", model="Other"))
    evolve(shop)
    receive(shop)

    shop.make(answers=KEEP + DROP)

    assert_kept(shop, count=3)


def test_the_tables_of_a_child_and_its_parent(project):
    project.models("""
    class Base(models.Model):
        n = models.IntegerField(default=0)
    class Child(Base):
        m = models.IntegerField(default=0)
    """)
    receive(project, saved(model="Child"))
    made = evolve(project)
    receive(project)

    kept = project.make("--noinput")
    assert says_how_to_drop(kept, "shop.Base")
    assert says_how_to_drop(kept, "shop.Child")
    project.migrate()
    assert project.installed() == made

    project.make("--noinput", "--drop-capture", "shop.Base", "--drop-capture", "shop.Child")
    project.migrate()
    assert not project.installed()


# The model changes meanwhile.


def test_a_renamed_model(captured):
    captured.models(models(name="Purchase"))

    made = captured.make(answers="y\n")

    assert says_how_to_drop(made, "shop.Purchase")
    captured.migrate()
    assert triggers(captured.installed()) == [
        ("shop_purchase", "INSERT"),
        ("shop_purchase", "UPDATE"),
    ]
    captured.make("--noinput", "--drop-capture", "shop.Purchase")
    captured.migrate()
    assert not captured.installed()


def test_removing_a_model_removes_its_capture(captured):
    captured.models("class Other(models.Model): n = models.IntegerField(default=0)")

    made = captured.make()

    assert made.stderr == ""
    captured.migrate()
    assert not captured.installed()


def test_a_removed_column_that_no_condition_reads(captured):
    captured.models(models().replace("    status =", "    # status ="))

    assert says_how_to_drop(captured.make())

    captured.migrate()
    captured.run("INSERT INTO shop_order (amount) VALUES (1)")
    assert captured.run("SELECT count(*) FROM bulksafe_outbox") == [(1,)]


@pytest.mark.parametrize(
    "change",
    [models().replace("    status =", "    # status ="), models(status="state")],
    ids=["removed", "renamed"],
)
def test_a_column_that_a_condition_reads(shop, change):  # noqa: F811
    receive(shop, saved(options=CONDITION))
    evolve(shop)
    receive(shop)
    shop.models(change)

    refused = shop.manage("makemigrations", answers="y\n", code=1)
    assert "reads the column “status”, which is removed or renamed" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert len(shop.migrations()) == 2
    shop.migrate()

    shop.make("--drop-capture", "shop.Order", answers="y\n")
    shop.migrate()
    assert not shop.installed()


# Models of others.


@pytest.fixture
def joined(project):
    """Receivers for models of a package, whose module is not imported any more."""
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
    evolve(project)
    receive(project)
    return project


def test_models_of_a_package(joined):
    before = joined.installed()

    made = joined.make("--noinput")

    assert says_how_to_drop(made, "auth.User")
    assert says_how_to_drop(made, "auth.User_groups")
    assert "No changes detected" in made.stdout
    joined.migrate()
    assert joined.installed() == before


def test_one_of_them_is_dropped(joined):
    joined.make(answers=KEEP + DROP)

    joined.migrate()
    assert {trigger.table for trigger in joined.installed().triggers} == {"auth_user"}
    assert says_how_to_drop(joined.make("--check"), "auth.User")

    joined.make("--noinput", "--drop-capture", "auth.User")
    joined.migrate()
    assert not joined.installed()
    joined.assert_nothing_to_make()


# The behaviour of a kept capture.


def test_a_transaction_without_its_receivers_is_refused_until_the_capture_is_dropped(shop):  # noqa: F811
    receive(shop, saved().replace('run="after_commit", ', ""))
    evolve(shop)
    receive(shop)
    shop.make("--noinput")
    shop.migrate()
    write = "INSERT INTO shop_order (status, amount) VALUES ('draft', 1)"

    with pytest.raises(psycopg.IntegrityError, match="critical receivers have not run"):
        shop.run(write)

    shop.make("--noinput", "--drop-capture", "shop.Order")
    shop.migrate()
    shop.run(write)
