"""The wheel, installed in an environment of its own, away from the checkout."""

import zipfile
from email import message_from_bytes

import pytest

from tests.migration.project import CHECKOUT
from tests.migration.test_changes import order
from tests.wheel import python, run, wheel

__all__ = ["python", "wheel"]  # the fixtures

pytestmark = pytest.mark.once

RECEIVERS = """
import bulksafe
from django.db.models.signals import post_save

@bulksafe.critical(post_save, sender="shop.Order", run="after_commit")
def receive(sender, instance, **kwargs):
    print(instance.number)
"""


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


def test_its_metadata_shows_the_readme(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(archive.read(name))

    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload(decode=True) == (CHECKOUT / "README.md").read_bytes()


def test_a_migration_is_made_and_rendered_with_it(python, project):
    project.models(order())
    project.write_settings()

    def manage(*argv):
        return run([python, "manage.py", *argv], cwd=project.directory)

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
        "INSERT INTO shop_order (number, status, amount, discount) VALUES ('run', 'draft', 1, 0)"
    )
    assert manage("bulksafe", "listen", "--once") == "run\n"
    manage("bulksafe", "status")
    # The checkout and the wheel agree about it.
    project.assert_all_installed()
    where = manage("shell", "-v", "0", "-c", "import bulksafe; print(bulksafe.__file__)")
    assert where.startswith(str(python.parents[1]))
