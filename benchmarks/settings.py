"""Settings of the benchmarks. ``database.py`` fills in the server that it starts."""

from examples import server

SECRET_KEY = "only-for-benchmarks"
DATABASES = {"default": server.database_settings("postgresql:///bulksafe_benchmarks")}
INSTALLED_APPS = ["pgtrigger", "bulksafe", "benchmarks"]
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
