"""What is wrong around the declarations: settings, INSTALLED_APPS, and modules that are imported.

The projects here are real ones, in a process of their own, since the mistakes are made while
Django starts. No command may end in a traceback.
"""

import os
import re
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
from django.test import override_settings

import bulksafe
from bulksafe import checks, conf
from tests.migration.conftest import forge  # noqa: F401
from tests.migration.project import Result, environment
from tests.unit.declaring import ids


@pytest.mark.parametrize(
    ("configured", "fact", "fix"),
    [
        (None, "BULKSAFE is None, not a dict.", "Write BULKSAFE = {…}."),
        (["SEARCH_PATH"], "is ['SEARCH_PATH'], not a dict", "Write BULKSAFE"),
        ({"DISCOVER": "receivers"}, "is 'receivers', not a list", '["receivers"]'),
        ({"DISCOVER": ["a b"]}, "lists 'a b', which is not the name of a module", '["receivers"]'),
        ({"DISCOVER": [None]}, "lists None", '["receivers"]'),
        ({"SEARCHPATH": []}, "unknown key 'SEARCHPATH'", "Did you mean 'SEARCH_PATH'?"),
        ({"search_path": []}, "unknown key 'search_path'", "Known keys: DISCOVER, SEARCH_PATH"),
        ({5: []}, "unknown key 5", "Known keys: DISCOVER, SEARCH_PATH"),
        ({"SEARCH_PATH": "public"}, "is 'public', not a list", '["public"]'),
        ({"SEARCH_PATH": None}, "is None, not a list", '["public"]'),
        ({"SEARCH_PATH": [5]}, "lists 5", "List names of schemas"),
        ({"SEARCH_PATH": [""]}, "lists ''", "List names of schemas"),
        ({"SEARCH_PATH": ["x" * 64]}, "not a schema", "up to 63 bytes"),
        ({"SEARCH_PATH": ["ä" * 32]}, "not a schema", "up to 63 bytes"),
        ({"SEARCH_PATH": ["a\0b"]}, "not a schema", "List names"),
        ({"SEARCH_PATH": ["$user"]}, "lists '$user'", "no “$user”"),
        ({"WRITER_ROLES": "app"}, "is 'app', not a list of role names", '["app"]'),
        ({"LISTENER_ROLES": [5]}, "lists 5, which is not a role name", "List names"),
        ({"LISTENER_ROLES": ["public"]}, "lists 'public'", "PUBLIC is not a role"),
        ({"WRITER_ROLES": [""]}, "lists ''", "up to 63 bytes"),
        ({"WRITER_ROLE": ["app"]}, "unknown key 'WRITER_ROLE'", "Did you mean 'WRITER_ROLES'?"),
        ({"SEARCH_PATH": ["public", "pg_temp"]}, "lists 'pg_temp'", "no temporary schema"),
        ({"ROLLOUT": "shop.Order"}, "is 'shop.Order', not a list of model labels", "True for all"),
        ({"ROLLOUT": ["Order"]}, "lists 'Order', which is not a model label", '["shop.Order"]'),
        ({"LOCK_TIMEOUT": -1}, "is -1", "positive number"),
        ({"LOCK_TIMEOUT": float("nan")}, "is nan", "positive number"),
        ({"LOCK_TIMEOUT": float("inf")}, "is inf", "at most 2147483"),
        ({"LOCK_TIMEOUT": 2_147_484}, "is 2147484", "at most 2147483"),
        ({"LOCK_ATTEMPTS": 0}, "is 0", "positive number"),
    ],
)
def test_e009(configured, fact, fix):
    with override_settings(BULKSAFE=configured):
        found = checks.check_settings(None)

        assert ids(found) == ["E009"]
        assert fact in found[0].msg
        assert fix in found[0].hint
        assert conf.get() == conf.Settings()


def test_e009_for_a_rollout_of_a_model_that_does_not_exist():
    with override_settings(BULKSAFE={"ROLLOUT": ["auth.user", "auth.Usr"]}):
        (found,) = checks.check_settings(None)

    assert "lists 'auth.usr', and there is no such model" in found.msg
    assert "Did you mean 'auth.User'?" in found.hint


def test_the_models_in_rollout_follow_the_setting():
    for listed, labels in ((True, None), (False, set()), (["Shop.Order"], {"shop.order"})):
        with override_settings(BULKSAFE={"ROLLOUT": listed}):
            assert conf.rollout() == labels
            assert conf.is_in_rollout("shop.Order") == (labels != set())
    assert conf.rollout() == frozenset()


FINE = {"BATCH_SIZE": 7, "SEARCH_PATH": ["side"], "TRUNCATE": "allow", "TIMEOUT": 5.5}
WRONG = {"BATCH_SIZE": "7", "SEARCH_PATH": [""], "TRUNCATE": True, "TIMEOUT": 0, "LEASE": None}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_invalid_setting_keeps_the_others_in_force(wrong):
    with override_settings(BULKSAFE={**FINE, wrong: WRONG[wrong], "NO_SUCH_KEY": 1}):
        found = checks.check_settings(None)
        assert ids(found) == ["E009", "E009"]
        assert repr(wrong) in " ".join(problem.msg for problem in found)

        settings = conf.get()

    for key, value in FINE.items():
        given = tuple(value) if isinstance(value, list) else value
        default = getattr(conf.Settings, key)
        assert getattr(settings, key) == (default if key == wrong else given)
    assert settings.LEASE == conf.Settings.LEASE


@pytest.mark.parametrize(
    "configured",
    [
        {},
        {"SEARCH_PATH": []},
        {"SEARCH_PATH": ("a b", "Ä")},
        {"WRITER_ROLES": ["app"], "LISTENER_ROLES": ("a b",)},
    ],
)
def test_settings_that_are_fine(configured):
    with override_settings(BULKSAFE=configured):
        assert checks.check_settings(None) == []
        search_path = conf.get().SEARCH_PATH
        assert search_path == tuple(configured.get("SEARCH_PATH", ()))


def test_e001(modify_installed_apps):
    modify_installed_apps("pgtrigger")

    (found,) = checks.check_settings(None)

    assert ids([found]) == ["E001"]
    assert "“pgtrigger” is not in INSTALLED_APPS" in found.msg
    assert found.hint.startswith("Add 'pgtrigger' to INSTALLED_APPS, before 'bulksafe'.")


def test_e012(modify_installed_apps):
    modify_installed_apps("bulksafe")

    (found,) = checks.check_settings(None)

    assert ids([found]) == ["E012"]
    assert "“bulksafe” is not in INSTALLED_APPS" in found.msg
    assert found.hint.startswith("Add 'bulksafe' to INSTALLED_APPS, after 'pgtrigger'.")


@pytest.fixture
def modify_installed_apps(monkeypatch):
    def without(app):
        installed = checks.apps.is_installed
        monkeypatch.setattr(
            checks.apps, "is_installed", lambda name: name != app and installed(name)
        )

    return without


ROOT = Path(bulksafe.__file__).parents[1]


@pytest.mark.parametrize("code", ["E001", "E012"])
def test_the_documented_apps_pass_or_fail_as_documented(modify_installed_apps, code):
    _, section = (ROOT / "docs" / "errors.md").read_text().split(f"\n({code})=\n")
    wrong, right = re.findall(r"^```python\n(INSTALLED_APPS = .*)\n```$", section, re.MULTILINE)[:2]
    assert right == 'INSTALLED_APPS = ["pgtrigger", "bulksafe", "shop"]'

    for app in ("pgtrigger", "bulksafe"):
        if app not in wrong:
            modify_installed_apps(app)

    assert ids(checks.check_settings(None)) == [code]


# Whole projects.

SETTINGS = """
SECRET_KEY = "only-for-tests"
INSTALLED_APPS = {apps!r}
DATABASES = {{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": "none",
                           "HOST": "/nowhere"}}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""

IMPORTS = """
import bulksafe
import pgtrigger
from django.db import models
from django.db.models import Count, F, Q
"""

BAD_MODELS = """
bulksafe.register("auth.Group", bulksafe.Check(Q(name="x"), name="too_early"))

class Base(models.Model):
    amount = models.IntegerField()
    net = models.IntegerField(editable=False)

    class Meta:
        abstract = True

class TheClass(Base):
    class Meta:
        triggers = [bulksafe.Check, bulksafe.Immutable("amount")]

class Single(Base):
    class Meta:
        triggers = bulksafe.Compute("net", F("amont"))

class Constraint(Base):
    class Meta:
        triggers = [models.CheckConstraint(condition=Q(amount__gt=0), name="c")]

class Nothing(Base):
    class Meta:
        triggers = None

class Twice(Base):
    class Meta:
        triggers = [
            bulksafe.Immutable("amount", name="protect"),
            pgtrigger.Protect(name="protect", operation=pgtrigger.Delete),
        ]

class TwiceProxy(Twice):
    class Meta:
        proxy = True
        triggers = [pgtrigger.Protect(name="protect", operation=pgtrigger.Delete)]

class Nonsense(Base):
    class Meta:
        triggers = [
            bulksafe.Check(),
            bulksafe.Check(lambda row: row.amount > 0, name="function"),
            bulksafe.Check(Nothing, name="model"),
            bulksafe.Check(Nothing.objects.all(), name="queryset"),
            bulksafe.Check(Q(amount__gt=Count("id")), name="aggregate", mesage="x"),
            bulksafe.Compute("net", F("net") + 1),
            bulksafe.Immutable(["amount"]),
            bulksafe.Transition("amount", {1: [[2]]}, initial=3),
        ]
"""

BAD_INVARIANTS = """
bulksafe.register("auth.Grupo", bulksafe.Check(Q(name="x"), name="unknown"))
bulksafe.register("auth.Group", bulksafe.Check)
bulksafe.register("auth.Group", bulksafe.Check(Q(nam="x"), name="typo"))
bulksafe.register("auth.Group", bulksafe.Check(Q(name="x"), name="a"), app_label="nowhere")
"""

GOOD_MODELS = """
class Order(models.Model):
    amount = models.IntegerField()

    class Meta:
        triggers = [bulksafe.Immutable("amount")]
"""

ALL_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "pgtrigger", "bulksafe", "till"]


@pytest.fixture
def project(tmp_path, forge):  # noqa: F811
    """Runs ``manage.py`` in a project with one app, ``till``."""

    def run(*command):
        return forge.manage(tmp_path, command, environment(), "")

    return partial(write_project, tmp_path, run)


@pytest.fixture
def project_alone(tmp_path):
    """The same in a new interpreter, in which nothing has imported bulksafe before the project."""

    def run(*command):
        done = subprocess.run(
            [sys.executable, "-m", "django", *command],
            cwd=tmp_path,
            env=environment(PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)])),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return partial(write_project, tmp_path, run)


def write_project(directory, run, models, invariants="", *, apps=ALL_APPS, settings=""):
    app = directory / "till"
    (app / "migrations").mkdir(parents=True)
    for package in (app, app / "migrations"):
        (package / "__init__.py").touch()
    (app / "models.py").write_text(IMPORTS + models)
    (app / "invariants.py").write_text(IMPORTS + invariants)
    text = SETTINGS.format(apps=apps) + settings
    (directory / "settings.py").write_text(textwrap.dedent(text))
    return run


def reported(done):
    """The ids of the errors that a command ended with, and no traceback."""
    assert done.code == 1
    assert "Traceback" not in done.stderr, done.stderr
    assert "SystemCheckError" in done.stderr
    return sorted(
        word.strip("()").removeprefix("bulksafe.").rstrip(":)")
        for word in done.stderr.split()
        if word.startswith("(bulksafe.E")
    )


@pytest.mark.parametrize("command", ["check", "makemigrations"])
def test_bad_declarations_stop_a_command_without_a_traceback(project, command, tmp_path):
    run = project(BAD_MODELS, BAD_INVARIANTS)

    assert reported(run(command)) == [
        "E002",  # Check() without anything,
        *["E005", "E005"],  # “protect” twice, on the model and its proxy
        *["E008"] * 3,  # too early, unknown, no invariant
        *["E010", "E010", "E010"],  # the class, the single one, the constraint
        *["E020", "E020"],  # the single one's amont, the registered nam
        *["E029", "E029"],  # mesage=, the list of fields
        "E040",
        *["E041", "E041", "E041"],
        "E053",
        *["E074", "E078"],
        "E124",  # unknown app
    ]
    assert not list((tmp_path / "till" / "migrations").glob("0*"))


@pytest.mark.parametrize(("missing", "code"), [(["pgtrigger"], ["E001"]), (["bulksafe"], ["E012"])])
def test_a_missing_app(project, missing, code):
    run = project(GOOD_MODELS, apps=[app for app in ALL_APPS if app not in missing])

    assert reported(run("check")) == code
    assert reported(run("makemigrations")) == code


def test_both_apps_missing(project_alone):
    run = project_alone(GOOD_MODELS, apps=[*ALL_APPS[:2], "till"])

    assert reported(run("check")) == ["E001", "E012"]


def test_both_apps_missing_and_nothing_declared(project_alone):
    """Something has imported bulksafe, without using it."""
    run = project_alone("", apps=[*ALL_APPS[:2], "till"])

    assert run("check").stderr.strip() == ""


def test_the_order_of_the_apps_does_not_matter(project):
    run = project(GOOD_MODELS, apps=ALL_APPS[::-1])

    assert run("check").stderr.strip() == ""


def test_a_bad_setting(project):
    run = project(GOOD_MODELS, settings='BULKSAFE = {"SERCH_PATH": ["public"]}')

    assert reported(run("check")) == ["E009"]
    assert reported(run("makemigrations", "--check")) == ["E009"]


def test_a_good_project_makes_its_migration_without_a_server(project_alone, tmp_path):
    run = project_alone(GOOD_MODELS)

    done = run("makemigrations")

    assert done.code == 0, done.stderr
    assert "Create trigger immutable_amount on model order" in done.stdout
    assert (tmp_path / "till" / "migrations" / "0001_initial.py").exists()


# Which modules of an app are imported.

SHOUTS = "print('imported', __name__)\n"
MODULES = ("receivers", "signals", "handlers")


@pytest.mark.parametrize(
    ("settings", "imported"),
    [
        ("", []),
        ("BULKSAFE = {'DISCOVER': []}", []),
        ("BULKSAFE = {'DISCOVER': ['receivers']}", ["receivers"]),
        ("BULKSAFE = {'DISCOVER': ('handlers', 'signals', 'missing')}", ["handlers", "signals"]),
        # An invalid setting is reported, and ignored.
        ("BULKSAFE = {'DISCOVER': 'receivers'}", []),
    ],
)
def test_no_module_but_invariants_is_imported_unless_it_is_listed(
    project, tmp_path, settings, imported
):
    run = project(GOOD_MODELS, SHOUTS, settings=settings)
    for module in MODULES:
        (tmp_path / "till" / f"{module}.py").write_text(SHOUTS)

    printed = run("check").stdout.splitlines()

    listed = [f"imported till.{module}" for module in ("invariants", *imported)]
    assert [line for line in printed if line.startswith("imported")] == listed


def test_an_app_that_connects_nothing_stays_unconnected(project, tmp_path):
    """Plain receivers that are left off, and critical ones, are the app's to import."""
    run = project(GOOD_MODELS)
    (tmp_path / "till" / "signals.py").write_text("""
import bulksafe
from django.db.models.signals import post_save
from django.dispatch import receiver

@receiver(post_save)
def plain(**kwargs): ...

@bulksafe.critical(post_save, sender="till.Order")
def critical(**kwargs): ...
""")
    look = (
        "from django.db.models.signals import post_save; from bulksafe.declarations import "
        "receivers; print(len(post_save.receivers), len(receivers.receivers))"
    )
    (tmp_path / "look.py").write_text(f"import django; django.setup(); {look}")
    (tmp_path / "import_it.py").write_text(
        f"import django; django.setup(); import till.signals; {look}"
    )

    def output(script):
        env = environment(PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
        done = subprocess.run(
            [sys.executable, script],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.split()

    assert output("look.py") == ["0", "0"]
    # Late, as from an app whose ready() runs after bulksafe's.
    assert output("import_it.py") == ["2", "1"]
    assert run("makemigrations", "--check").code == 1


OWN_MIGRATE = """
from django.core.management.base import BaseCommand
from django.db.migrations.autodetector import MigrationAutodetector

class Command(BaseCommand):
    autodetector = MigrationAutodetector
"""


@pytest.mark.parametrize("command", ["migrate", "makemigrations"])
def test_a_package_with_a_migrate_command_of_its_own(project, tmp_path, command):
    """As django-tenants: Django's check commands.E001 wants one autodetector for both commands."""
    run = project(GOOD_MODELS)
    commands = tmp_path / "till/management/commands"
    commands.mkdir(parents=True)
    for package in (commands.parent, commands):
        (package / "__init__.py").touch()
    (commands / f"{command}.py").write_text(OWN_MIGRATE)

    assert run("check").stderr.strip() == ""
