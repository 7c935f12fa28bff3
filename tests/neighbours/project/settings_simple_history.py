"""The settings of django-simple-history's own tests, on PostgreSQL."""

from common import *  # noqa: F403
from common import CRITICAL_APPS, database
from runtests import DEFAULT_SETTINGS, installed_apps

globals().update(DEFAULT_SETTINGS)


class _OnlyOurs:
    """No app has migrations, as in the package's own settings, but for the three of the run."""

    def __contains__(self, label):
        return label not in {"neighbour", "bulksafe", "pgtrigger"}

    def __getitem__(self, label):
        return None


DATABASES = {"default": database("history"), "other": database("history_other")}
INSTALLED_APPS = [*installed_apps, *CRITICAL_APPS]
MIGRATION_MODULES = _OnlyOurs()
