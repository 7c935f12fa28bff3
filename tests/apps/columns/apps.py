from django.apps import AppConfig
from django.contrib.postgres.operations import CreateCollation, HStoreExtension
from django.db import connections
from django.db.models.signals import pre_migrate

SCHEMA = 'CREATE SCHEMA IF NOT EXISTS "Side Schéma"'
HAS_ICU = "SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'und-x-icu')"


class ColumnsConfig(AppConfig):
    """An app without migrations, so that its tables always have the triggers of the models."""

    name = "tests.apps.columns"

    def ready(self):
        pre_migrate.connect(prepare, sender=self, dispatch_uid="columns.prepare")


def prepare(sender, using, **kwargs):
    """Make what the columns need before their tables."""
    connection = connections[using]
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute(SCHEMA)
        cursor.execute(HAS_ICU)
        collation = no_case(has_icu=cursor.fetchone()[0])
    with connection.schema_editor() as editor:
        for operation in (HStoreExtension(), collation):
            operation.database_forwards(sender.label, editor, None, None)


def no_case(has_icu):
    """A collation for which ``a`` equals ``A``; an ordinary one on a server without ICU."""
    if has_icu:
        return CreateCollation(
            "no_case", provider="icu", locale="und-u-ks-level2", deterministic=False
        )
    return CreateCollation("no_case", locale="C")
