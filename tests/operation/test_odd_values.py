"""Rows with values that Python cannot represent: infinite dates, and dates after 9999."""

import re

import pytest

from tests.migration.conftest import databases, forge, project  # noqa: F401

MODELS = """
class Order(models.Model):
    number = models.CharField(max_length=20)
    day = models.DateField(null=True)
    at = models.DateTimeField(null=True)

class Log(models.Model):
    text = models.TextField()
"""
RECEIVERS = """
import bulksafe
from django.db.models.signals import pre_save, post_save, post_delete
from shop.models import Log, Order

@bulksafe.critical([{signal}, post_delete], sender=Order, dispatch_uid="note", run="{run}")
def note(sender, instance, **kwargs):
    Log.objects.create(text=f"{{instance.number}} {{instance.day}} {{instance.at}}")
"""
ODD = {
    "infinite": ("at", "infinity"),
    "infinite in the past": ("day", "-infinity"),
    "late": ("at", "20000-01-01 00:00+00"),
    "late day": ("day", "10000-01-01"),
    "before Christ": ("day", "0044-03-15 BC"),
}


@pytest.fixture
def shop(project):  # noqa: F811
    def make(run, signal="post_save"):
        project.settings('BULKSAFE = {"RETRY_DELAY": 0.000001, "LEASE": 5}\n')
        project.models(MODELS)
        project.write("shop/receivers.py", RECEIVERS.format(run=run, signal=signal))
        project.make()
        project.migrate()
        return project

    return make


def texts(site):
    return [text for (text,) in site.run("SELECT text FROM shop_log ORDER BY id")]


@pytest.mark.parametrize("odd", ODD)
def test_after_the_commit_it_is_a_dead_letter_and_other_rows_continue(shop, odd):
    column, value = ODD[odd]
    site = shop("after_commit")
    site.run(f"INSERT INTO shop_order (number, {column}) VALUES ('odd', '{value}')")
    site.run("INSERT INTO shop_order (number) VALUES ('good')")
    site.run("UPDATE shop_order SET number = number || '!'")

    site.manage("bulksafe", "listen", "--once", code=1)

    assert texts(site) == ["good None None", "good! None None"]
    parked = site.manage("bulksafe", "status", "--parked", code=1).stdout
    assert re.search(r"dead +10 +note\.post_save +shop_order +1 +Unreadable: (date|time)", parked)


WRITE = """
from django.db import connection, transaction
from shop.models import Order

def write(text):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(text)

{before}
try:
    write("INSERT INTO shop_order (number, {column}) VALUES ('odd', '{value}')")
except Exception as error:
    print(type(error), error)
write("INSERT INTO shop_order (number) VALUES ('good')")
"""


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("signal", ["post_save", "pre_save"])
def test_in_the_transaction_the_write_is_refused_with_a_remedy(shop, odd, signal):
    column, value = ODD[odd]
    site = shop("in_transaction", signal)

    said = site.python(WRITE.format(column=column, value=value, before=""))

    assert "<class 'django.db.utils.DataError'> The critical receivers of shop.Order" in said
    assert "since Python cannot represent a value of a changed row" in said
    assert "docs/transaction.md#values-that-python-cannot-hold" in said
    assert texts(site) == ["good None None"]
    assert site.run("SELECT number FROM shop_order") == [("good",)]


LOADER = """
import datetime
from psycopg import DataError
from psycopg.types.datetime import TimestamptzLoader

class Loader(TimestamptzLoader):
    timezone = datetime.timezone.utc

    def load(self, data):
        try:
            return super().load(data)
        except DataError:
            return datetime.datetime.max.replace(tzinfo=datetime.timezone.utc)

connection.ensure_connection()
connection.connection.adapters.register_loader("timestamptz", Loader)
"""


def test_with_a_loader_the_receivers_are_called(shop):
    site = shop("in_transaction")

    said = site.python(WRITE.format(column="at", value="infinity", before=LOADER))

    assert said == ""
    assert texts(site) == ["odd None 9999-12-31 23:59:59.999999+00:00", "good None None"]
