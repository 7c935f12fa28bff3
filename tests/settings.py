"""Settings of the tests.

They name no server: ``conftest.py`` fills in the one that it finds, so that tools which only read
the settings, like mypy, start none.
"""

import os

from examples import server

SECRET_KEY = "only-for-tests"

_postgresql = server.database_settings(os.environ.get("DATABASE_URL", "postgresql:///bulksafe"))
DATABASES = {
    "default": {**_postgresql, "TEST": {"NAME": "test_bulksafe"}},
    "other": {**_postgresql, "TEST": {"NAME": "test_bulksafe_other"}},
    "lite": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}
DATABASE_ROUTERS = ["tests.routers.LiteStaysEmpty"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    # Serves the pages of browser tests.
    "django.contrib.staticfiles",
    "pgtrigger",
    "bulksafe",
    "examples.shop",
    "examples.shop_signals",
    "tests.apps.columns",
    "tests.apps.edges",
    "tests.apps.invoices",
    "tests.apps.mirrors",
    "tests.apps.pairs.critical",
    "tests.apps.pairs.plain",
    "tests.apps.practice",
    "tests.apps.twins",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
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
REST_FRAMEWORK = {
    "EXCEPTION_HANDLER": "bulksafe.rest_framework.exception_handler",
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.DjangoModelPermissions"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
