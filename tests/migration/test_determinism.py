"""A migration's text depends on the models only."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.migration.project import CHECKOUT, environment

pytestmark = pytest.mark.once

MODELS = """
class Order(models.Model):
    status = models.CharField(max_length=20, default="draft")
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    due = models.DateTimeField()
    day = models.DateField(null=True)
    ratio = models.FloatField(default=0)
    data = models.JSONField(default=dict)
    net = models.DecimalField(max_digits=12, decimal_places=2, editable=False)
    class Meta:
        triggers = [
            bulksafe.Check(
                Q(due__year__gte=2020)
                & Q(due__date__gte="2020-01-01")
                & ~Q(status__in={"a", "b", "c"}),
                name="late",
                message=gettext_lazy("Yes"),
            ),
            bulksafe.Check(Q(data__a__b=[1, {"x": None}]) | Q(ratio__lt=0.1), name="shape"),
            bulksafe.Check(
                Q(net__lte=F("limit"), amount__gte=F("low")),
                name="limited",
                limit=F("amount") * 2,
                low=Value(1),
            ),
            bulksafe.Compute(
                "net", Case(When(status="draft", then=-F("amount")), default=F("amount"))
            ),
            bulksafe.Immutable("due", "day"),
            bulksafe.Transition(
                "status",
                {"draft": {"paid", "cancelled", "void"}, "paid": ["shipped"]},
                initial=("draft", "paid"),
            ),
        ]
"""
REGISTERED = """
bulksafe.register("shop.Order", bulksafe.Check(Q(amount__gte=0), name="positive"))
"""


@pytest.fixture
def declared(project):
    project.models(MODELS)
    project.models("", app="press")
    project.invariants(REGISTERED, app="press")
    return project


def made(project, python=sys.executable, settings="", **variables):
    """The text of the initial migrations, made by a process of its own."""
    project.settings(settings)
    project.write_settings()
    for app in project.apps:
        for path in (project.directory / app / "migrations").glob("0*.py"):
            path.unlink()
    command = [python, "manage.py", "makemigrations", "--no-header", "-v", "0"]
    done = subprocess.run(
        command,
        cwd=project.directory,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [project.migration("0001", app=app) for app in project.apps]


def test_hash_seed_language_and_time_zone(declared):
    plain = made(declared, PYTHONHASHSEED="0")
    assert "'Yes'" in plain[0]
    assert made(declared, PYTHONHASHSEED="1") == plain
    elsewhere = 'LANGUAGE_CODE = "de"\nUSE_THOUSAND_SEPARATOR = True\n'
    assert (
        made(declared, settings=elsewhere, PYTHONHASHSEED="2", LC_ALL="C", TZ="Asia/Tokyo") == plain
    )


def test_without_a_database(declared):
    """The same text where no server can be reached."""
    plain = made(declared)
    declared.aliases["default"]["HOST"] = "/nowhere"
    assert made(declared) == plain


def test_installed_sql_does_not_depend_on_the_process(declared):
    made(declared, PYTHONHASHSEED="1")
    first = [
        declared.manage("sqlmigrate", app, "0001", PYTHONHASHSEED="1").stdout
        for app in declared.apps
    ]
    made(declared, PYTHONHASHSEED="2")
    assert first == [declared.manage("sqlmigrate", app, "0001").stdout for app in declared.apps]


def other_pythons():
    """Interpreters with another version of Django, as the matrix of the CI makes them."""
    named = os.environ.get("BULKSAFE_TEST_OTHER_PYTHON")
    return [Path(named)] if named else sorted(CHECKOUT.glob(".venv-matrix/*/bin/python"))


def django_version(python):
    asked = [str(python), "-c", "import django, pgtrigger; print(django.get_version())"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def test_versions_of_django_and_python(declared):
    pythons = [python for python in other_pythons() if django_version(python)]
    if not pythons:
        pytest.skip("no other Python with Django: set BULKSAFE_TEST_OTHER_PYTHON to one")
    plain = made(declared)
    for python in pythons:
        assert made(declared, python=str(python)) == plain
        # After one version's migration, the other version finds no changes.
        declared.assert_nothing_to_make()
