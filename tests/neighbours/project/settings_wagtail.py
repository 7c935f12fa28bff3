"""Wagtail's own settings for its tests, on PostgreSQL."""

import os

os.environ["DATABASE_ENGINE"] = "django.db.backends.postgresql"

from common import *  # noqa: F403
from common import CRITICAL_APPS, database
from wagtail.test.settings import *  # noqa: F403
from wagtail.test.settings import INSTALLED_APPS

DATABASES = {"default": database("wagtail")}
INSTALLED_APPS = [*INSTALLED_APPS, *CRITICAL_APPS]
STATIC_ROOT = os.environ["NEIGHBOURS_FILES"] + "/static"
MEDIA_ROOT = os.environ["NEIGHBOURS_FILES"] + "/media"
