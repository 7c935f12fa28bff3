"""A project with receivers, on a database of its own, whose listener the tests run."""

import pytest

from tests.migration.conftest import databases, forge, project  # noqa: F401

MODELS = """
class Order(models.Model):
    number = models.CharField(max_length=20)
    amount = models.IntegerField(default=0)

class Log(models.Model):
    text = models.TextField()

class Mended(models.Model):
    "While there is a row, the receivers work."
"""

RECEIVERS = """
import bulksafe
from django.db.models.signals import post_save
from shop.models import Log, Mended, Order

def work(name, instance):
    if instance.number.startswith("bad") and not Mended.objects.exists():
        raise ValueError(f"cannot ship {instance.number}")
    Log.objects.create(text=f"{name} {instance.number} {instance.amount}")

"""

RECEIVER = """
@bulksafe.critical(post_save, sender=Order, run="after_commit", dispatch_uid="{name}", {options})
def {name}(sender, instance, **kwargs):
    work("{name}", instance)
"""

#: Receivers with options of their own, after ``RECEIVERS``.
CRITICAL = """
def critical(name, **options):
    return bulksafe.critical(
        post_save, sender=Order, run="after_commit", dispatch_uid=name, **options
    )
"""

#: A worker takes all calls that run alone together at once, not only after some fast ones.
TAKEN_TOGETHER = """
from bulksafe.dispatch import alone, worker

class Fast(alone.Alone):
    _seconds = property(lambda self: 0.0001, lambda self, seconds: None)

worker.Alone = Fast
"""

#: Retries come at once, so that ``--once`` goes through all attempts.
SETTINGS = 'BULKSAFE = {"RETRY_DELAY": 0.000001, "LEASE": 5}\n'


@pytest.fixture
def shop(project):  # noqa: F811
    """Makes the project with the receivers, given as name=options, migrated."""

    def make(**receivers):
        project.settings(SETTINGS)
        project.models(MODELS)
        declare(project, **receivers)
        project.make()
        project.migrate()
        return project

    return make


def declare(project, **receivers):  # noqa: F811
    listed = [RECEIVER.format(name=name, options=options) for name, options in receivers.items()]
    project.write("shop/receivers.py", RECEIVERS + "".join(listed))


def texts(project):  # noqa: F811
    """What the receivers wrote, in order."""
    return [text for (text,) in project.run("SELECT text FROM shop_log ORDER BY id")]


def order(project, number, amount=0):  # noqa: F811
    project.run("INSERT INTO shop_order (number, amount) VALUES (%s, %s)", number, amount)


def change(project, number, amount):  # noqa: F811
    project.run("UPDATE shop_order SET amount = %s WHERE number = %s", amount, number)


def mend(project):  # noqa: F811
    project.run("INSERT INTO shop_mended DEFAULT VALUES")
