"""Writes of receivers in the listener carry the receiver's name."""

import pytest

from tests.operation.conftest import order, texts

BOTH = pytest.mark.parametrize("atomic", [True, False])

TWO_TRANSACTIONS = """
import bulksafe
from django.db import connection, transaction
from django.db.models import F
from django.db.models.signals import post_save
from shop.models import Log, Order

@bulksafe.critical(
    post_save, sender=Order, run="after_commit", dispatch_uid="count", atomic={atomic}
)
def count(sender, instance, **kwargs):
    Log.objects.create(text=f"count {{instance.amount}}")
    if Log.objects.count() > 20:
        return  # so that the listener comes to an end
    with transaction.atomic():
        Order.objects.filter(pk=instance.pk).update(amount=F("amount") + 1)
    with transaction.atomic():
        current = Order.objects.get(pk=instance.pk)
        {write}
"""

WRITES = {
    "save()": "current.amount += 1; current.save()",
    "SELECT f()": 'connection.cursor().execute("SELECT raise_amount(%s)", [current.pk])',
    "copy()": """
        with connection.cursor() as cursor:
            with cursor.copy("COPY shop_order (number, amount) FROM STDIN") as rows:
                rows.write_row(["copied", 0])
""",
}


@BOTH
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_receiver_with_two_transactions_does_not_call_itself(shop, atomic, write):
    """Nor does it where the second one reads before it writes."""
    project = shop(placeholder="")
    project.run(
        "CREATE FUNCTION raise_amount(pk bigint) RETURNS void LANGUAGE sql AS "
        "'UPDATE shop_order SET amount = amount + 1 WHERE id = pk'"
    )
    project.write("shop/receivers.py", TWO_TRANSACTIONS.format(atomic=atomic, write=write))
    project.migrate()  # the queue begins
    order(project, "a")

    project.manage("bulksafe", "listen", "--once")

    assert texts(project) == ["count 0"]


ECHO = """
import bulksafe
from django.db import connection
from django.db.models.signals import post_save
from shop.models import Log, Order

@bulksafe.critical(post_save, sender=Order, run="after_commit", dispatch_uid="x", atomic={atomic})
def x(sender, instance, **kwargs):
    if instance.number.startswith("echo"):
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT echo(%s)", [instance.number])

@bulksafe.critical(post_save, sender=Order, run="after_commit", dispatch_uid="y", atomic={atomic})
def y(sender, instance, **kwargs):
    Log.objects.create(text=instance.number)
"""


@BOTH
def test_writes_of_a_function_for_one_receiver_do_not_belong_to_another(shop, atomic):
    project = shop(placeholder="")
    project.run(
        "CREATE FUNCTION echo(number text) RETURNS void LANGUAGE sql AS "
        "$$INSERT INTO shop_order (number, amount) VALUES ('echo ' || number, 0)$$"
    )
    project.write("shop/receivers.py", ECHO.format(atomic=atomic))
    project.migrate()  # the queues begin
    numbers = [f"{number}" for number in range(40)]
    listed = ", ".join(f"('{number}', 0)" for number in numbers)
    project.run(f"INSERT INTO shop_order (number, amount) VALUES {listed}")

    project.manage("bulksafe", "listen", "--once")

    assert sorted(texts(project)) == sorted([*numbers, *(f"echo {number}" for number in numbers)])
