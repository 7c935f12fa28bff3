"""The runner of both runs: it also writes down what other packages see of the project."""

import json
import os
import sys
from io import StringIO
from pathlib import Path

from common import IS_CRITICAL
from django.apps import apps
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db.backends.base.base import BaseDatabaseWrapper

from tests.django_suite import recording

#: The apps that only one of the two runs has.
_OURS = {"bulksafe", "neighbour", "pgtrigger"}


class Runner(recording.Runner):
    def setup_databases(self, **kwargs):
        if IS_CRITICAL:
            _count_no_savepoints_of_ours()
        made = super().setup_databases(**kwargs)
        path = Path(os.environ["NEIGHBOURS_FILES"]) / "facts.json"
        path.write_text(json.dumps(_facts()))
        return made


def _facts():
    """What is the same without bulksafe and with it, under the name that the report uses."""
    models = apps.get_models(include_auto_created=True, include_swapped=True)
    content_types = ContentType.objects.exclude(app_label__in=_OURS)
    permissions = Permission.objects.exclude(content_type__app_label__in=_OURS)
    return {
        "apps.get_models()": sorted(
            f"{model._meta.label} {_path(model)}"
            for model in models
            if model._meta.app_label not in _OURS
        ),
        "Model.__subclasses__()": sorted(
            f"{_path(model)}: {sorted(map(_path, model.__subclasses__()))}"
            for model in models
            if model._meta.app_label not in _OURS
        ),
        "content types": sorted(".".join(found.natural_key()) for found in content_types),
        "permissions": sorted(".".join(found.natural_key()) for found in permissions),
        "manage.py check": _check(),
    }


def _path(cls):
    return f"{cls.__module__}.{cls.__qualname__}"


def _check():
    output = StringIO()
    call_command("check", stdout=output, stderr=output)
    return output.getvalue().splitlines()


def _count_no_savepoints_of_ours():
    """Leave the savepoints that bulksafe sets out of what ``assertNumQueries`` counts.

    A write with critical receivers has one of its own. All other statements count.
    """
    for name in ("_savepoint", "_savepoint_commit", "_savepoint_rollback"):
        setattr(BaseDatabaseWrapper, name, _not_logged_if_ours(getattr(BaseDatabaseWrapper, name)))


def _not_logged_if_ours(original):
    def run(self, *args, **kwargs):
        before = len(self.queries_log)
        result = original(self, *args, **kwargs)
        if len(self.queries_log) > before and _is_called_by_bulksafe():
            self.queries_log.pop()
        return result

    return run


def _is_called_by_bulksafe():
    """Whether the first caller outside of Django's transactions and contextlib is bulksafe."""
    frame = sys._getframe(2)
    while frame.f_globals["__name__"] in _BETWEEN:
        frame = frame.f_back
    return frame.f_globals["__name__"].startswith("bulksafe.")


_BETWEEN = {
    "contextlib",
    "django.db.backends.base.base",
    "django.db.transaction",
    "django.utils.asyncio",
}
