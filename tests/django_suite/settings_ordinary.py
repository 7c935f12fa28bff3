"""Django alone, and each model has a receiver that does nothing."""

import sys

from tests.django_suite.settings import *  # noqa: F403

sys.modules["__main__"].ALWAYS_INSTALLED_APPS += ["tests.django_suite.everywhere.apps.Ordinary"]
