"""A project without REST framework and import-export."""

SECRET_KEY = "only-for-tests"
INSTALLED_APPS = ["pgtrigger", "bulksafe"]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "unused"}}
