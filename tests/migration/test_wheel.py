"""The wheel, installed in an environment of its own, away from the checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.migration.project import CHECKOUT
from tests.migration.test_changes import order

pytestmark = pytest.mark.once

pytest.importorskip("build")
pytest.importorskip("hatchling")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The built wheel. Nothing is downloaded: the build backend is installed already."""
    directory = tmp_path_factory.mktemp("dist")
    _run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            directory,
            CHECKOUT,
        ],
        cwd=directory,
    )
    (built,) = directory.glob("*.whl")
    return built


RECEIVERS = """
import bulksafe
from django.db.models.signals import post_save

@bulksafe.critical(post_save, sender="shop.Order", run="after_commit")
def hear(sender, instance, **kwargs):
    print(instance.number)
"""


@pytest.fixture(scope="session")
def python(wheel, tmp_path_factory):
    """The interpreter of a new environment: the wheel, and what it depends on by reference."""
    directory = tmp_path_factory.mktemp("environment")
    _run([sys.executable, "-m", "venv", "--without-pip", directory], cwd=directory)
    interpreter = directory / "bin" / "python"
    paths = {"base": str(directory), "platbase": str(directory)}
    packages = Path(sysconfig.get_path("purelib", "venv", paths))
    # A path file does not process those that it leads to, so that no editable install comes along.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    install = ["install", "--quiet", "--no-deps", "--no-index", wheel]
    _run([sys.executable, "-m", "pip", "--python", interpreter, *install], cwd=directory)
    return interpreter


def _run(command, cwd, **variables):
    clean = {
        key: value
        for key, value in os.environ.items()
        if key not in ("PYTHONPATH", "DJANGO_SETTINGS_MODULE")
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_contains_every_template_and_nothing_of_the_checkout(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    templates = {
        f"bulksafe/migrations_templates/{path.relative_to(CHECKOUT / 'migrations_templates')}"
        for path in (CHECKOUT / "migrations_templates").rglob("*.sql")
    }
    assert len(templates) > 15
    queries = {
        f"bulksafe/{path.relative_to(CHECKOUT / 'bulksafe')}"
        for path in (CHECKOUT / "bulksafe").rglob("*.sql")
    }
    assert len(queries) > 3
    assert templates | queries <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"bulksafe"}


def test_a_migration_is_made_and_rendered_with_it(python, project):
    project.models(order())
    project.write_settings()

    def manage(*argv):
        return _run([python, "manage.py", *argv], cwd=project.directory)

    manage("makemigrations", "shop")
    (name,) = project.migrations()
    rendered = manage("sqlmigrate", "shop", name)
    assert "CREATE FUNCTION" in rendered
    manage("migrate", "-v", "0")
    manage("bulksafe", "ls")
    assert project.refusal(
        "INSERT INTO shop_order (number, status, amount, discount) VALUES ('', 'draft', 1, 2)"
    )
    project.write("shop/receivers.py", RECEIVERS)
    manage("makemigrations", "shop")
    manage("migrate", "-v", "0")
    project.run(
        "INSERT INTO shop_order (number, status, amount, discount) VALUES ('heard', 'draft', 1, 0)"
    )
    assert manage("bulksafe", "listen", "--once") == "heard\n"
    manage("bulksafe", "status")
    # The checkout and the wheel agree about it.
    project.assert_all_installed()
    where = manage("shell", "-v", "0", "-c", "import bulksafe; print(bulksafe.__file__)")
    assert where.startswith(str(python.parents[1]))
