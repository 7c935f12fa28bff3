"""Data migrations, in the transaction that adds or removes triggers and in none.

A row with a foreign key leaves a deferred event behind, and PostgreSQL alters no table and drops no
trigger while such events wait ("because it has pending trigger events").
"""

import re

import pytest

BEFORE = """
class Customer(models.Model):
    name = models.CharField(max_length=20)
class Order(models.Model):
    customer = models.ForeignKey(Customer, models.CASCADE)
    a = models.IntegerField(default=0)
    b = models.IntegerField(default=0)
    class Meta:
        triggers = []
"""
INVARIANTS = """triggers = [
            bulksafe.Check(Q(a__gte=0), name="positive"),
            bulksafe.Check(Q(a__lte=100), name="in_the_end", deferred=True),
            bulksafe.Check(Q(a=0), name="kept", operation=pgtrigger.Delete),
            bulksafe.Compute("b", F("a") * 2),
            bulksafe.Immutable("customer"),
        ]"""
AFTER = BEFORE.replace("triggers = []", INVARIANTS)

INSERT = """
def insert(apps, schema_editor):
    customer = apps.get_model("shop", "Customer").objects.create(name="x")
    apps.get_model("shop", "Order").objects.create(customer=customer, a=1)

def update(apps, schema_editor):
    Order = apps.get_model("shop", "Order")
    Order.objects.update(a=101)
    Order.objects.update(a=2)
"""
RUN = "migrations.RunPython({0}, {0}),\n"


def edit(project, name, text):
    (path,) = (project.directory / "shop" / "migrations").glob(f"{name}*.py")
    path.write_text(text)


def with_data(migration, *, before="", after="", header=""):
    """A migration's text with operations put before and after its own."""
    text = migration.replace("class Migration", f"{INSERT}\nclass Migration", 1)
    text = text.replace("    operations = [\n", f"{header}    operations = [\n{before}", 1)
    return re.sub(r"    \]\n\Z", f"{after}    ]\n", text)


@pytest.fixture
def adding(project):
    """A project whose second migration adds the invariants."""
    project.models(BEFORE)
    project.make("--name", "tables")
    project.models(AFTER)
    project.make("--name", "invariants")
    return project


@pytest.fixture
def removing(adding):
    """A project whose third migration removes them again."""
    adding.models(BEFORE)
    adding.make("--name", "without")
    return adding


ATOMIC = pytest.mark.parametrize(
    "header", ["", "    atomic = False\n"], ids=["atomic", "not atomic"]
)


@ATOMIC
def test_rows_before_and_after_the_triggers_are_added(adding, header):
    run = RUN.format("insert")
    text = with_data(adding.migration("0002"), before=run, after=run, header=header)
    edit(adding, "0002", text)
    adding.migrate()
    adding.assert_all_installed()
    assert adding.run("SELECT a, b FROM shop_order ORDER BY id") == [(1, 0), (1, 2)]
    adding.migrate("shop", "0001")
    assert not adding.installed()
    assert len(adding.run("SELECT FROM shop_order")) == 4
    adding.migrate()
    adding.assert_all_installed()


@ATOMIC
def test_rows_before_and_after_the_triggers_are_removed(removing, header):
    run = RUN.format("insert")
    text = with_data(removing.migration("0003"), before=run, after=run, header=header)
    edit(removing, "0003", text)
    removing.migrate()
    assert not removing.installed()
    assert removing.run("SELECT a, b FROM shop_order ORDER BY id") == [(1, 2), (1, 0)]
    removing.migrate("shop", "0002")
    removing.assert_all_installed()
    removing.migrate()
    assert not removing.installed()


def test_a_deferred_check_is_judged_before_it_is_removed(removing):
    """Rows may break the rule for a moment; pending events are checked, not lost."""
    run = RUN.format("insert") + RUN.format("update")
    edit(removing, "0003", with_data(removing.migration("0003"), before=run))
    removing.migrate()
    assert removing.run("SELECT a FROM shop_order") == [(2,)]
    assert not removing.installed()


def test_a_broken_deferred_check_stops_the_migration_that_removes_it(removing):
    run = RUN.format("insert") + 'migrations.RunSQL("UPDATE shop_order SET a = 101"),\n'
    edit(removing, "0003", with_data(removing.migration("0003"), before=run))
    refused = removing.migrate(code=1)
    assert "shop.Order:in_the_end" in refused.stderr
    assert removing.run("SELECT FROM shop_order") == []
    removing.migrate("shop", "0002")
    removing.assert_all_installed()


def test_a_data_migration_is_held_to_the_invariants(adding):
    edit(
        adding,
        "0002",
        with_data(
            adding.migration("0002"),
            after=RUN.format("insert") + 'migrations.RunSQL("UPDATE shop_order SET a = -1"),\n',
        ),
    )
    assert "shop.Order:positive" in adding.migrate(code=1).stderr
    assert not adding.installed()


def test_add_change_and_remove_around_data_in_one_transaction(adding):
    """Add, write, replace, write, remove, write, add."""
    text = adding.migration("0002")
    adds = text[text.index("operations = [\n") + len("operations = [\n") : text.rindex("    ]\n")]
    removes = "".join(
        f"pgtrigger.migrations.RemoveTrigger('order', {name!r}),\n"
        for name in ("positive", "in_the_end", "kept", "compute_b", "immutable_customer")
    )
    run = RUN.format("insert") + RUN.format("update")
    steps = run + removes + run + adds + run + removes + run + adds
    edit(adding, "0002", with_data(text, after=steps))
    adding.migrate()
    adding.assert_all_installed()
    # The last row was written while there were no triggers.
    assert adding.run("SELECT a, b FROM shop_order ORDER BY id") == [(2, 4)] * 3 + [(2, 0)]
    adding.migrate("shop", "0001")
    assert not adding.installed()
    adding.migrate()
    adding.assert_all_installed()


def test_a_column_is_altered_in_a_migration_that_is_not_atomic(adding):
    adding.migrate()
    before = adding.installed()
    adding.models(AFTER.replace("a = models.Integer", "a = models.BigInteger"))
    adding.make("--name", "wider")
    text = adding.migration("0003").replace("    operations", "    atomic = False\n    operations")
    edit(adding, "0003", text)
    adding.migrate()
    adding.assert_all_installed()
    adding.migrate("shop", "0002")
    assert adding.installed() == before


def test_a_failing_alteration_that_is_not_atomic_loses_no_trigger(adding):
    adding.migrate()
    before = adding.installed()
    adding.run("INSERT INTO shop_customer (name) VALUES ('x')")
    adding.run("INSERT INTO shop_order (customer_id, a, b) VALUES (1, 99, 0)")
    adding.write(
        "shop/migrations/0003_narrower.py",
        """
        from django.db import migrations, models

        class Migration(migrations.Migration):
            atomic = False
            dependencies = [("shop", "0002_invariants")]
            operations = [
                migrations.AlterField(
                    "order", "a", models.DecimalField(max_digits=1, decimal_places=0)
                ),
            ]
        """,
    )
    assert "numeric field overflow" in adding.migrate(code=1).stderr
    assert adding.installed() == before


@pytest.mark.parametrize("mode", ["DISABLE", "ENABLE REPLICA", "ENABLE ALWAYS"])
def test_a_disabled_trigger_stays_as_it_is_when_a_column_is_altered(adding, mode):
    adding.migrate()
    before = adding.installed()
    for trigger in before.triggers:
        adding.run(f"ALTER TABLE shop_order {mode} TRIGGER {trigger.name}")
    adding.write(
        "shop/migrations/0003_wider.py",
        """
        from django.db import migrations, models

        class Migration(migrations.Migration):
            dependencies = [("shop", "0002_invariants")]
            operations = [
                migrations.AlterField("order", "a", models.BigIntegerField(default=0)),
                migrations.AlterField("order", "b", models.BigIntegerField(default=0)),
            ]
        """,
    )
    adding.migrate()
    after = adding.installed()
    letter = {"DISABLE": "D", "ENABLE REPLICA": "R", "ENABLE ALWAYS": "A"}[mode]
    assert {trigger.enabled for trigger in after.triggers} == {letter}
    assert [(t.name, t.comment) for t in after.triggers] == [
        (t.name, t.comment) for t in before.triggers
    ]
