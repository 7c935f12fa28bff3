"""The text of a capture in a migration: short, and complete."""

import pytest
from django.contrib.postgres.fields import HStoreField
from django.db import models
from django.db.migrations.writer import MigrationWriter
from django.db.models import Q
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save
from django.test.utils import isolate_apps
from pgtrigger.migrations import AddTrigger

import bulksafe
from bulksafe.declarations import Capture
from tests.integration import reception

#: In bytes, with what stands around it in the file of a migration.
MOST = 800


def stored(trigger):
    return MigrationWriter.serialize(AddTrigger("thing", trigger))[0]


def read(trigger):
    """The trigger as a migration's file has it."""
    names = {"bulksafe": bulksafe}
    text = MigrationWriter.serialize(trigger)[0]
    return eval(text, names).compile(type("M", (), {"_meta": type("O", (), {"db_table": "t"})}))


@pytest.fixture
def declared():
    with isolate_apps("examples.shop"), reception.only_these():

        class Thing(models.Model):
            text = models.TextField()
            at = models.DateTimeField(null=True)

            class Meta:
                app_label = "shop"

        class Special(Thing):
            amount = models.IntegerField()

            class Meta:
                app_label = "shop"

        class Linked(models.Model):
            code = models.CharField(max_length=5, primary_key=True, db_column="bulksafe#")
            options = HStoreField()
            things = models.ManyToManyField(Thing)

            class Meta:
                app_label = "shop"

        yield {"thing": Thing, "special": Special, "linked": Linked}


WAYS = {
    "after the commit": {"run": "after_commit"},
    "in the transaction": {"run": "in_transaction"},
    "handed over": {"run": "in_transaction", "otherwise": "after_commit"},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_capture_of_all_changes_takes_few_bytes(declared, way):
    for signal in (post_save, post_delete):
        reception.declare(signal, declared["thing"], **WAYS[way], dispatch_uid=str(id(signal)))

    trigger = Capture().compile(declared["thing"])

    assert len(stored(trigger)) <= MOST
    assert len(trigger.operations) == 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("when", [None, Q(new__text="x"), Q(old__text="x") | Q(new__at=None)])
def test_a_migration_stores_all_of_it(declared, way, when):
    linked = declared["linked"]
    senders = [
        (post_save, declared["thing"]),
        (post_delete, declared["thing"]),
        (post_save, declared["special"]),
        (pre_save, declared["thing"]),
        (post_save, linked),
        (post_delete, linked),
        (m2m_changed, linked.things.through),
    ]
    for number, (signal, sender) in enumerate(senders):
        options = WAYS[way] if signal is not pre_save else WAYS["in the transaction"]
        condition = when if sender is declared["thing"] else None
        reception.declare(signal, sender, **options, dispatch_uid=f"r{number}", when=condition)

    for model in (*declared.values(), linked.things.through):
        trigger = Capture().compile(model)
        copy = read(trigger)
        copy.table = trigger.table
        assert copy == trigger
        assert copy.install_sql == trigger.install_sql
        assert copy.uninstall_sql == trigger.uninstall_sql
