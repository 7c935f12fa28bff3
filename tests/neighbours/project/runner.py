"""The runner of both runs: it also writes down what other packages see of the project."""

import json
import os
from io import StringIO
from pathlib import Path

from django.apps import apps
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command

from tests.django_suite import recording

#: The apps that only one of the two runs has.
_OURS = {"bulksafe", "neighbour", "pgtrigger"}


class Runner(recording.Runner):
    def setup_databases(self, **kwargs):
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
