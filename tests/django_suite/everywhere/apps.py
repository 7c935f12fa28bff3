"""The apps that declare them. One of the three is installed."""

from django.apps import AppConfig, apps
from django.db.migrations.loader import MigrationLoader
from django.db.models.signals import post_delete, post_save

SIGNALS = [post_save, post_delete]

#: What makemigrations finds to do for its models is what its tests are about.
_NO_RECEIVERS = {"migrations"}


def ignore(sender, **kwargs):
    """It takes what Django has in hand anyway."""


def ignore_rows(sender, old=None, changed=None, **kwargs):
    """It needs state that only the database has."""


class _Everywhere(AppConfig):
    name = "tests.django_suite.everywhere"

    def ready(self):
        """Called once more when runtests.py has added the apps of the suite."""
        for model in _models():
            self.declare(model, f"everywhere.{model._meta.label}")


class Ordinary(_Everywhere):
    """``@receiver(...)``."""

    def declare(self, model, uid):
        for signal in SIGNALS:
            signal.connect(ignore, sender=model, dispatch_uid=uid)


class Critical(_Everywhere):
    """``@bulksafe.critical(...)``."""

    function = staticmethod(ignore)

    def declare(self, model, uid):
        import bulksafe  # Not where bulksafe is not to be.

        bulksafe.critical(SIGNALS, sender=model, dispatch_uid=uid)(self.function)


class CriticalWithRows(Critical):
    """The same, and the database has to say how each row was and is."""

    function = staticmethod(ignore_rows)


def _models():
    """The suite's own, whose tables are made as the models are, without migrations."""
    unmigrated = MigrationLoader(None, ignore_no_migrations=True).unmigrated_apps
    for app in apps.get_app_configs():
        is_own = not app.name.startswith("django.") and app.label not in _NO_RECEIVERS
        if is_own and app.label in unmigrated:
            yield from (model for model in app.get_models() if model._meta.can_migrate("default"))
