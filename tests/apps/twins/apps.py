from pathlib import Path

from django.apps import AppConfig, apps
from django.db import connections
from django.db.models.signals import post_migrate

BY_HAND = Path(__file__).with_name("by_hand.sql")


class TwinsConfig(AppConfig):
    name = "tests.apps.twins"

    def ready(self):
        from tests.apps.twins import receivers, signals  # noqa: F401

        post_migrate.connect(make_by_hand, sender=self)


def make_by_hand(using, **kwargs):
    """Finish the tables that ``migrate`` has made; a second call changes nothing.

    The app has no migrations, so that its triggers are always those of the code under test.
    """
    with connections[using].cursor() as cursor:
        if connections[using].vendor != "postgresql" or _is_partitioned(cursor):
            return
        cursor.execute(BY_HAND.read_text())
        parcel = apps.get_model("twins", "Parcel")
        for trigger in parcel._meta.triggers:
            cursor.execute(trigger.compile(parcel).install_sql)


def _is_partitioned(cursor):
    cursor.execute("SELECT relkind FROM pg_class WHERE oid = 'twins_parcel'::regclass")
    return cursor.fetchone()[0] == "p"
