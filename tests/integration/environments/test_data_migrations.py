"""Data migrations."""

from __future__ import annotations

import pytest
from django.db import (
    connection,
    migrations,
)
from django.db.migrations.loader import MigrationLoader
from django.db.models.signals import (
    post_save,
)

from tests.apps.practice.models import CriticalArticle as Article
from tests.integration import inline_committed as inline
from tests.integration.environments.writing import EVERY_SIGNAL
from tests.integration.inline_committed import (
    insert,
    raw,
    titles,
    waiting,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


class TestDataMigrations:
    """Historical models have no receivers, and are not refused."""

    def apply(self, *operations, atomic=True):
        migration = type("Migration", (migrations.Migration,), {"operations": list(operations)})(
            "0001_data", "practice"
        )
        migration.atomic = atomic
        state = MigrationLoader(connection).project_state()
        with connection.schema_editor(atomic=atomic) as editor:
            migration.apply(state, editor)

    @pytest.mark.parametrize("atomic", [True, False])
    def test_no_receiver_is_called(self, atomic, article):
        calls = inline.critical(EVERY_SIGNAL, Article)

        def change(apps, editor):
            historical = apps.get_model("practice", "CriticalArticle")
            assert historical is not Article
            historical.objects.create(title="created")
            historical.objects.bulk_create([historical(title="bulk")])
            historical.objects.filter(title="bulk").update(title="updated")
            found = historical.objects.get(title="created")
            found.title = "saved"
            found.save()
            historical.objects.filter(title="there").delete()
            editor.connection.cursor().execute(insert("raw"))

        self.apply(
            migrations.RunPython(change),
            migrations.RunSQL(insert("sql")),
            migrations.RunSQL(f"DO $$ BEGIN {insert('do')}; END $$"),
            atomic=atomic,
        )

        assert calls == []
        assert titles() == ["do", "raw", "saved", "sql", "updated"]
        assert waiting() == (0, 0)

    def test_with_a_driver_cursor(self, article):
        calls = inline.critical(post_save, Article)
        self.apply(migrations.RunPython(lambda apps, editor: raw().execute(insert())))

        assert calls == []
        assert titles() == ["raw", "there"]

    def test_receivers_are_called_again_afterwards(self, article):
        calls = inline.critical(post_save, Article)
        self.apply(migrations.RunSQL(insert("sql")))
        Article.objects.filter(title="sql").update(title="delivered")

        assert [call["instance"].title for call in calls] == ["delivered"]

    def test_a_migration_that_fails(self, article):
        calls = inline.critical(post_save, Article)

        def fail(apps, editor):
            apps.get_model("practice", "CriticalArticle").objects.create(title="gone")
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            self.apply(migrations.RunPython(fail))
        Article.objects.update(title="delivered")

        assert [call["instance"].title for call in calls] == ["delivered"]
        assert titles() == ["delivered"]
