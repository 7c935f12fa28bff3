"""Settings of Django's own tests on PostgreSQL: Django alone.

As Django's ``tests/test_sqlite.py``, and the runner that writes down what became of each test.
"""

import multiprocessing
import os

from examples import server

_postgresql = server.database_settings(os.environ["DATABASE_URL"])
DATABASES = {
    "default": {**_postgresql, "TEST": {"NAME": "test_django"}},
    "other": {**_postgresql, "TEST": {"NAME": "test_django_other"}},
}
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
TEST_RUNNER = "tests.django_suite.recording.Runner"

# Where Python has another default, Django's runner refuses several processes.
multiprocessing.set_start_method("fork", force=True)
