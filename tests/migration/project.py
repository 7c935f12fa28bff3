"""A Django project in a directory of its own, on a database of its own, that a test evolves."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from bulksafe.outbox import own
from examples import server

CHECKOUT = Path(__file__).resolve().parents[2]

SETTINGS = """\
SECRET_KEY = "only-for-tests"
DATABASES = {databases!r}
INSTALLED_APPS = {installed!r}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""

MANAGE = """\
import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
execute_from_command_line(sys.argv)
"""

MODELS = """\
import bulksafe
import pgtrigger
from django.db import models
from django.db.models import Case, Count, F, Q, Sum, Value, When
from django.db.models.functions import Cast, Concat, Length, Lower, Upper
from django.utils.translation import gettext_lazy

"""

APPS = """\
from importlib import import_module
from importlib.util import find_spec

from django.apps import AppConfig

class Config(AppConfig):
    name = "{app}"

    def ready(self):
        for module in ("{app}.receivers", "{app}.signals"):
            if find_spec(module):
                import_module(module)
"""

_OBJECTS = """
    SELECT n.nspname, c.relname, t.tgname, t.tgenabled, pg_get_triggerdef(t.oid),
           obj_description(t.oid, 'pg_trigger')
    FROM pg_trigger AS t
    JOIN pg_class AS c ON c.oid = t.tgrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND c.relname <> 'bulksafe_ticket'
    ORDER BY 1, 2, 3
"""
_FUNCTIONS = f"""
    SELECT n.nspname, p.proname, pg_get_functiondef(p.oid)
    FROM pg_proc AS p
    JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
      AND p.proname NOT IN {("_pgtrigger_should_ignore", *own.FUNCTIONS)}
    ORDER BY 1, 2
"""


@dataclass(frozen=True)
class Result:
    """How a process ended, and what it wrote."""

    code: int
    stdout: str
    stderr: str

    @property
    def output(self):
        return f"exit code {self.code}\n{self.stdout}{self.stderr}"


@dataclass(frozen=True)
class Trigger:
    schema: str
    table: str
    name: str
    enabled: str
    definition: str
    comment: str


@dataclass(frozen=True)
class Function:
    schema: str
    name: str
    definition: str


@dataclass(frozen=True)
class Installed:
    """All triggers and functions that a database has beside PostgreSQL's own."""

    triggers: tuple[Trigger, ...]
    functions: tuple[Function, ...]

    def __bool__(self):
        return bool(self.triggers or self.functions)


class Forge:
    """The process of ``forge.py``."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-B", "-W", "error", str(Path(__file__).with_name("forge.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def manage(self, directory, argv, environment, answers):
        request = {
            "directory": str(directory),
            "argv": [str(argument) for argument in argv],
            "environment": environment,
            "input": answers,
        }
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return Result(**json.loads(self.process.stdout.readline()))

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


def environment(**extra):
    """What a process of the project sees: the checkout, and nothing of the run's own settings."""
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("DJANGO_")},
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "DJANGO_SETTINGS_MODULE": "settings",
        **extra,
    }


@dataclass
class Databases:
    """Makes databases on the test server, and drops them."""

    url: str
    made: list[str] = field(default_factory=list)

    def new(self, name):
        """The settings of a new, empty database."""
        with self._connection() as connection:
            # Copying the files is the faster way here, and the only one before PostgreSQL 15.
            how = "STRATEGY file_copy" if connection.info.server_version >= 150000 else ""
            create = sql.SQL(f"CREATE DATABASE {{}} {how}")
            connection.execute(create.format(sql.Identifier(name)))
        self.made.append(name)
        return {**server.database_settings(self.url), "NAME": name}

    def drop(self):
        with self._connection() as connection:
            for name in self.made:
                connection.execute(
                    sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
                )

    def _connection(self):
        return psycopg.connect(self.url, autocommit=True)


class Project:
    """A project of apps whose models a test writes, rewrites and migrates."""

    def __init__(self, directory, forge, databases, prefix):
        self.directory = directory
        self.forge = forge
        self.databases = databases
        self.prefix = prefix
        self.apps = []
        self.contrib = []
        self.extra_settings = ""
        self.aliases = {"default": databases.new(prefix)}
        directory.mkdir(exist_ok=True)
        (directory / "manage.py").write_text(MANAGE)

    # Writing the project.

    def write(self, path, text):
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text))
        return target

    def models(self, text, app="shop"):
        """Write an app's models; a new app is installed and gets its migrations package."""
        if app not in self.apps:
            self.apps.append(app)
            self.write(f"{app}/__init__.py", "")
            self.write(f"{app}/migrations/__init__.py", "")
            self.write(f"{app}/apps.py", APPS.format(app=app))
        self.write(f"{app}/models.py", MODELS + textwrap.dedent(text))

    def invariants(self, text, app="shop"):
        self.write(f"{app}/invariants.py", MODELS + textwrap.dedent(text))

    def settings(self, text):
        """Set the settings that follow the ones of every project."""
        self.extra_settings = textwrap.dedent(text)

    def migration(self, name, app="shop"):
        """The text of the one migration whose name starts with ``name``."""
        (path,) = (self.directory / app / "migrations").glob(f"{name}*.py")
        return path.read_text()

    def migrations(self, app="shop"):
        found = (self.directory / app / "migrations").glob("[0-9]*.py")
        return sorted(path.stem for path in found)

    # Running it.

    def manage(self, *argv, code=0, answers="", **variables):
        """Run a management command and expect it to end with ``code``; None for any."""
        self.write_settings()
        result = self.forge.manage(self.directory, argv, environment(**variables), answers)
        assert code in (result.code, None), f"manage.py {' '.join(map(str, argv))}: {result.output}"
        return result

    def python(self, code):
        """Run Python code in the project's own shell, without the automatic imports' report."""
        return self.manage("shell", "-v", "0", "-c", textwrap.dedent(code)).stdout

    def make(self, *argv, answers=""):
        return self.manage("makemigrations", *argv, answers=answers)

    def migrate(self, *argv, **kwargs):
        return self.manage("migrate", "-v", "0", *argv, **kwargs)

    def assert_nothing_to_make(self):
        self.manage("makemigrations", "--check", "--dry-run")

    def assert_all_installed(self):
        self.manage("bulksafe", "ls")

    def database(self, suffix):
        """The settings of another new database on the same server."""
        return self.databases.new(f"{self.prefix}_{suffix}")

    def write_settings(self):
        installed = [*self.contrib, "pgtrigger", "bulksafe", *self.apps]
        text = SETTINGS.format(databases=self.aliases, installed=installed)
        self.write("settings.py", text + self.extra_settings)

    # Looking at the database and writing to it.

    def connect(self, alias="default"):
        return psycopg.connect(server.database_url(self.aliases[alias]), autocommit=True)

    def run(self, statement, *parameters, alias="default") -> list[tuple[Any, ...]]:
        """Execute SQL as a program without Django would, and return the rows."""
        with self.connect(alias) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description is not None else []

    def refusal(self, statement, alias="default"):
        """The name of the invariant that refuses the statement."""
        try:
            self.run(statement, alias=alias)
        except psycopg.errors.CheckViolation as error:
            return error.diag.constraint_name
        raise AssertionError(f"nothing refused {statement}")

    def installed(self, alias="default"):
        return Installed(
            tuple(Trigger(*row) for row in self.run(_OBJECTS, alias=alias)),
            tuple(Function(*row) for row in self.run(_FUNCTIONS, alias=alias)),
        )

    def fresh(self):
        """What a new database gets from the models alone, without any migration."""
        self.aliases["fresh"] = self.database(f"fresh{len(self.databases.made)}")
        kept = self.extra_settings
        labels = [app.rpartition(".")[2] for app in [*self.contrib, *self.apps]]
        self.extra_settings += f"\nMIGRATION_MODULES = dict.fromkeys({labels!r})\n"
        try:
            self.migrate("--run-syncdb", "--database", "fresh")
            return self.installed("fresh")
        finally:
            self.extra_settings = kept
            del self.aliases["fresh"]
