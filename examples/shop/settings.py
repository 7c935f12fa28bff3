"""Settings of the example shop, for a developer's machine only.

The database is ``DATABASE_URL``, or a server that is started on demand and keeps its data in
``.postgres/`` of the checkout.
"""

import os
import shutil
from pathlib import Path

from examples import server

BASE_DIR = Path(__file__).resolve().parents[2]

SECRET_KEY = os.environ.get("SECRET_KEY", "only-for-the-example")
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

_server = server.start(
    os.environ.get("SHOP_POSTGRES", "embedded"),
    data=server.keeping_directory(BASE_DIR / ".postgres"),
)
if not shutil.which("psql"):
    # The embedded server brings one, which `manage.py dbshell` and the demo then find.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), str(_server.bin)])
DATABASES = {
    "default": {
        **server.database_settings(_server.url),
        # A pooler in transaction mode gives each transaction any server connection, so that a
        # cursor does not outlive its transaction there.
        "DISABLE_SERVER_SIDE_CURSORS": "DATABASE_POOLED" in os.environ,
    }
}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "pgtrigger",
    "bulksafe",
    "examples.shop",
    "examples.shop_signals",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "bulksafe.middleware.ContextMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

ROOT_URLCONF = "examples.shop.urls"
STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Hints that a CheckConstraint or a GeneratedField can hold a rule. They are right for the shop's
# simple rules, which are invariants for their message, for bulksafe.muted and as small examples.
SILENCED_SYSTEM_CHECKS = ["bulksafe.I001", "bulksafe.I002"]

# When a listener crashes with all its processes, a different one repeats the running request after
# this many seconds.
BULKSAFE = {"LEASE": 5}

# For api.py, if Django REST framework is installed.
REST_FRAMEWORK = {
    "EXCEPTION_HANDLER": "bulksafe.rest_framework.exception_handler",
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.DjangoModelPermissions"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}

# The URL of the warehouse, see warehouse.py; without it, requests are only logged.
WAREHOUSE_URL = os.environ.get("WAREHOUSE_URL", "")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"shop": {"handlers": ["console"], "level": "INFO"}},
}
