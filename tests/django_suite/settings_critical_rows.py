"""bulksafe is installed, and each model has a critical receiver that asks for rows."""

import sys

from tests.django_suite.settings import *  # noqa: F403

sys.modules["__main__"].ALWAYS_INSTALLED_APPS += [
    "pgtrigger",
    "tests.django_suite.everywhere.apps.CriticalWithRows",
    "bulksafe",
]
