"""Receivers of a model in rollout, while its capture is off: the same calls as when it is on."""

import json
from collections import Counter

import psycopg
import pytest

from tests.operation.processes import wait_until

MODELS = """
class Customer(models.Model):
    name = models.CharField(max_length=20)

class Order(models.Model):
    customer = models.ForeignKey(Customer, models.CASCADE, null=True, related_name="orders")
    number = models.CharField(max_length=20)
    amount = models.IntegerField(default=0)
    note = models.CharField(max_length=20, default="", db_column="a Note")
    double = models.GeneratedField(
        expression=F("amount") * 2, output_field=models.IntegerField(), db_persist=True
    )

class Effect(models.Model):
    text = models.TextField()
"""

RECEIVERS = """
import bulksafe
from django.db.models import Q
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from shop.models import Effect, Order

def note(*parts):
    Effect.objects.create(text=" ".join(map(str, parts)))

def listed(changed):
    return ",".join(sorted(changed))

@bulksafe.critical(pre_save, sender=Order)
def clean(sender, instance, old, changed, **kwargs):
    instance.note = instance.number.upper()
    note("clean", instance.number, old and old.amount)

@bulksafe.critical(post_save, sender=Order)
def keep(sender, instance, created, old, changed, event_id, context, **kwargs):
    assert event_id
    note("keep", instance.number, created, old and old.amount, listed(changed), context.get("by"))

GROWN = Q(new__amount__gt=5) & ~Q(old__amount__gt=5)

@bulksafe.critical(post_save, sender=Order, when=GROWN)
def grown(sender, instance, **kwargs):
    note("grown", instance.number)

@bulksafe.critical(post_save, sender=Order, when=Q(new__double=14), batch=True)
def seven(sender, instances, events, **kwargs):
    for instance, event in zip(instances, events, strict=True):
        note("seven", instance.number, event.old and event.old.amount, event.created)

@bulksafe.critical(pre_delete, sender=Order)
def going(sender, instance, **kwargs):
    note("going", instance.number)

@bulksafe.critical(post_delete, sender=Order, when=Q(old__amount__gt=5))
def gone(sender, instance, old, **kwargs):
    note("gone", instance.number, old.number)

@bulksafe.critical(post_save, sender=Order, run="after_commit", when=GROWN)
def ship(sender, instance, created, old, changed, event_id, **kwargs):
    assert event_id
    note("ship", instance.number, created, old and old.amount, listed(changed))

@bulksafe.critical(post_save, sender=Order, run="after_commit", batch=True)
def index(sender, instances, events, **kwargs):
    for event in events:
        note("index", event.instance.number, event.old and event.old.amount, listed(event.changed))

@bulksafe.critical(post_delete, sender=Order, run="after_commit", when=~Q(old__amount__gt=5))
def unindex(sender, instance, **kwargs):
    note("unindex", instance.number)
"""

#: Per-row writes, which both releases and both states must answer alike.
WRITES = """
import bulksafe
from django.db import transaction
from django.db.models import F
from shop.models import Customer, Order

with bulksafe.context(by="me"):
    Order.objects.create(number="small")
Order.objects.create(number="large", amount=7)
first = Order.objects.get(number="small")
first.amount = F("amount") + 6
first.save()
first = Order.objects.get(number="small")
first.amount, first.note = 7, "other"
first.save(update_fields=["amount"])
keyed = Order(pk=10_000, number="keyed", amount=7)
keyed.save()
keyed.save()
with transaction.atomic():
    Order.objects.defer("amount").get(pk=first.pk).save()
    Order.objects.update_or_create(number="third", defaults={"amount": 3})
    Order.objects.update_or_create(number="third", defaults={"amount": 4})
changed = Order.objects.get(number="large")
changed.amount = 0
changed.delete()
customer = Customer.objects.create(name="c")
for number in range(3):
    Order.objects.create(number=f"owned{number}", amount=number * 4, customer=customer)
Order.objects.filter(number="owned0").delete()
customer.delete()
"""

BULK = """
from django.db import connection
from shop.models import Order
Order.objects.bulk_create([Order(number="bulk", amount=9)])
Order.objects.filter(number="bulk").update(amount=1)
row = Order.objects.get(number="bulk")
row.amount = 8
Order.objects.bulk_update([row], ["amount"])
connection.cursor().execute("UPDATE shop_order SET amount = 2 WHERE number = 'bulk'")
Order.objects.filter(number="bulk")._raw_delete("default")
"""


@pytest.fixture
def shop(project):
    project.settings('BULKSAFE = {"ROLLOUT": ["shop.order"]}\n')
    project.models(MODELS)
    project.make()
    project.write("shop/receivers.py", RECEIVERS)
    project.make()
    project.migrate()
    return project


def effects(shop):
    """What the receivers have done since the last call, without order."""
    shop.manage("bulksafe", "listen", "--once")
    found = [text for (text,) in shop.run("SELECT text FROM shop_effect ORDER BY id")]
    shop.run("TRUNCATE shop_effect")
    return sorted(found)


def test_per_row_writes_make_the_same_calls(shop):
    shop.python(WRITES)
    off = effects(shop)
    shop.run("DELETE FROM shop_order")
    shop.manage("bulksafe", "switch-on")
    shop.python(WRITES)
    on = effects(shop)

    assert off == on
    assert {text.split()[0] for text in on} == {
        *("clean", "keep", "grown", "seven", "going", "gone"),
        *("ship", "index", "unindex"),
    }


def test_bulk_writes_run_no_receiver_until_the_capture_is_on(shop):
    shop.python(BULK)
    assert effects(shop) == []
    shop.manage("bulksafe", "switch-on")
    shop.python(BULK)
    assert len(effects(shop)) > 10
    shop.manage("bulksafe", "switch-off")
    shop.python(BULK)
    assert effects(shop) == []


def test_without_a_migration_it_is_off(shop):
    shop.migrate("shop", "0001")
    shop.python("from shop.models import Order; Order.objects.create(number='1', amount=9)")
    assert [text.split()[0] for text in effects(shop)] == [
        *("clean", "grown", "index", "keep", "ship"),
    ]


#: Switching in a process of its own, while the transaction of this one is open.
SWITCHING = """
import subprocess
import sys
from django.db import connection, transaction
from shop.models import Order

def begin(*arguments):
    return subprocess.Popen([sys.executable, "manage.py", *arguments])

def wait_until_blocked():
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return

"""

ACROSS = """
with transaction.atomic():
    order = Order.objects.create(number="a")
    switching = begin("bulksafe", "switch-{to}", "--lock-timeout", "60")
    wait_until_blocked()
    order.amount = 6
    order.save()
    try:
        with transaction.atomic():
            order.save()
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
assert switching.wait() == 0
order.amount = 9
order.save()
order.delete()
"""

ONCE = {"clean": 3, "keep": 3, "index": 3, "grown": 1, "ship": 1, "going": 1, "gone": 1}


@pytest.mark.parametrize("to", ["on", "off"])
def test_a_transaction_that_is_open_while_the_capture_is_switched(shop, to):
    if to == "off":
        shop.manage("bulksafe", "switch-on")
    shop.python(SWITCHING + ACROSS.format(to=to))
    assert Counter(text.split()[0] for text in effects(shop)) == ONCE


#: The snapshot of the transaction is older than the switch, and its first write is later.
OLD_SNAPSHOT = """
with transaction.atomic():
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL {level}")
        cursor.execute("SELECT count(*) FROM shop_effect")
    assert begin({command}).wait() == 0
    Order.objects.create(number="a", amount=7)
"""

COMMANDS = {
    "on": '"bulksafe", "switch-on"',
    "off": '"bulksafe", "switch-off"',
    "migrated": '"migrate", "-v0", "--settings", "without_rollout"',
    "dropped": '"migrate", "shop", "0001", "-v0"',
}


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("to", COMMANDS)
def test_a_snapshot_that_is_older_than_the_switch(shop, level, to):
    shop.write("without_rollout.py", "from settings import *\nBULKSAFE = {}\n")
    if to == "migrated":
        shop.migrate("shop", "0001")
    elif to in {"off", "dropped"}:
        shop.manage("bulksafe", "switch-on")
    shop.python(SWITCHING + OLD_SNAPSHOT.format(level=level, command=COMMANDS[to]))
    assert [text.split()[0] for text in effects(shop)] == [
        *("clean", "grown", "index", "keep", "seven", "ship"),
    ]


def test_a_trigger_that_is_enabled_or_disabled_by_hand(shop):
    shop.run("ALTER TABLE shop_order ENABLE TRIGGER ALL")
    assert "outdated" in shop.manage("bulksafe", "ls", code=1).stdout
    shop.manage("pgtrigger", "enable", "shop.Order:bulksafe_capture")
    assert "installed" in shop.manage("bulksafe", "ls").stdout
    shop.python(BULK)
    shop.manage("pgtrigger", "disable", "shop.Order:bulksafe_capture")
    assert "disabled" in shop.manage("bulksafe", "ls", code=1).stdout
    shop.manage("bulksafe", "switch-off")
    assert "switched off" in shop.manage("bulksafe", "ls").stdout


def test_ls_and_doctor_show_it(shop):
    listed = shop.manage("bulksafe", "ls")
    assert "switched off" in listed.stdout
    assert "switch-on" in listed.stdout
    shop.manage("bulksafe", "doctor")
    assert "shop.Order:bulksafe_capture is switched off" in shop.manage("bulksafe", "status").stdout
    shop.settings("")
    assert "switched off" in shop.manage("bulksafe", "ls", code=1).stdout
    found = shop.manage("bulksafe", "doctor", code=1).stdout
    assert "switch-on shop.Order" in found


MORE = """
@bulksafe.critical(post_save, sender=Order, when=Q(new__amount={amount}))
def more(sender, **kwargs):
    pass
"""


def test_a_capture_that_is_replaced_stays_as_it_is(shop):
    """Here: a receiver with a new condition."""
    for state in ("switched off", "installed"):
        if state == "installed":
            shop.manage("bulksafe", "switch-on")
        shop.write("shop/receivers.py", RECEIVERS + MORE.format(amount=len(state)))
        shop.make()
        shop.migrate()
        assert json.loads(shop.manage("bulksafe", "ls", "--json").stdout)[0]["state"] == state


def test_switching_is_refused_with_what_to_do(shop):
    assert "Did you mean" in shop.manage("bulksafe", "switch-on", "shop.Ordr", code=2).stderr
    shop.settings("")
    assert (
        "does not list shop.Order"
        in shop.manage("bulksafe", "switch-off", "shop.Order", code=2).stderr
    )
    shop.manage("bulksafe", "switch-on", "shop.Order")
    shop.settings('BULKSAFE = {"ROLLOUT": ["shop.Order"]}\n')
    shop.migrate("shop", "0001")
    assert "missing" in shop.manage("bulksafe", "switch-on", code=2).stderr


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9"])
def test_a_wait_that_postgresql_cannot_limit_is_refused(shop, seconds):
    said = shop.manage("bulksafe", "switch-on", f"--lock-timeout={seconds}", code=2).stderr
    assert "--lock-timeout must be a positive number of seconds, at most 2147483." in said


TWO_SWITCHES = """
import subprocess
import sys
from django.db import connection, transaction
from shop.models import Order

with transaction.atomic():
    Order.objects.create(number="a")
    command = [sys.executable, "manage.py", "bulksafe", "switch-on", "--lock-timeout", "60"]
    switches = [subprocess.Popen(command) for _ in range(2)]
    while True:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0] == 2:
                break
print([switch.wait() for switch in switches])
"""


def test_two_switches_at_once(shop):
    assert shop.python(TWO_SWITCHES).endswith("[0, 0]\n")
    shop.manage("bulksafe", "ls")
    assert "was on already" in shop.manage("bulksafe", "switch-on").stdout
    shop.manage("bulksafe", "switch-off")
    assert "was off already" in shop.manage("bulksafe", "switch-off").stdout


ODD_MODELS = """
import uuid

class Base(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=20, default="")

class Child(Base):
    extra = models.IntegerField(default=0, db_column="Ex Tra")
    class Meta:
        db_table = "Child's T"

class Pair(models.Model):
    pk = models.CompositePrimaryKey("a", "b")
    a = models.TextField()
    b = models.IntegerField()
    document = models.JSONField(null=True)
    share = models.FloatField(default=0)
    price = models.DecimalField(max_digits=9, decimal_places=2, null=True)

class Proxy(Pair):
    class Meta:
        proxy = True

class Tag(models.Model):
    on = models.ManyToManyField(Base, related_name="tags")

class Effect(models.Model):
    text = models.TextField()
"""

ODD_RECEIVERS = """
import bulksafe
from django.db.models.signals import m2m_changed, post_delete, post_save
from shop.models import Base, Child, Effect, Pair, Tag

def note(*parts):
    Effect.objects.create(text=" ".join(map(str, parts)))

for model in (Base, Child, Pair):
    @bulksafe.critical(post_save, sender=model, dispatch_uid=f"save{model.__name__}")
    def saved(sender, instance, created, raw, old, changed, **kwargs):
        note("save", sender.__name__, created, raw, old is None, sorted(changed))

    @bulksafe.critical(post_delete, sender=model, dispatch_uid=f"delete{model.__name__}")
    def deleted(sender, instance, **kwargs):
        note("delete", sender.__name__)

@bulksafe.critical(m2m_changed, sender=Tag.on.through)
def tagged(sender, instance, action, pk_set, **kwargs):
    note("tagged", action, len(pk_set or ()))
"""

ODD_WRITES = """
from decimal import Decimal
from django.core import serializers
from shop.models import Base, Child, Effect, Pair, Proxy, Tag

Effect.objects.all().delete()
base = Base.objects.create(name="x")
base.name = "y"
base.save(update_fields=["name"])
child = Child.objects.create(name="a")
child.extra = 2
child.save()
pair = Pair.objects.create(a="q'%s", b=1)
for values in (
    {"document": {"a": [1, None, "%s"]}},
    {"share": float("nan")},
    {},
    {"share": float("inf")},
    {"price": Decimal("1.5")},
    {"price": Decimal("1.50")},
):
    vars(pair).update(values)
    pair.save()
proxy = Proxy.objects.get()
proxy.document = 5
proxy.save()
tag = Tag.objects.create()
tag.on.add(base, child.base_ptr)
tag.on.set([base])
tag.on.clear()
base.tags.add(tag)
(loaded,) = serializers.deserialize("json", serializers.serialize("json", [base]))
loaded.save()
base.delete()
child.delete()
pair.delete()
print("\\n".join(Effect.objects.order_by("pk").values_list("text", flat=True)))
"""


def test_odd_keys_columns_and_models_make_the_same_calls(project):
    project.settings('BULKSAFE = {"ROLLOUT": True}\n')
    project.models(ODD_MODELS)
    project.write("shop/receivers.py", ODD_RECEIVERS)
    project.make()
    project.migrate()
    off = project.python(ODD_WRITES).splitlines()
    project.manage("bulksafe", "switch-on")
    on = project.python(ODD_WRITES).splitlines()

    assert off == on
    assert len(on) == 25


def test_a_lock_that_is_not_granted_lets_writers_pass(shop):
    """Switching gives up and tries again; a writer that waits behind it goes first."""
    shop.settings('BULKSAFE = {"ROLLOUT": True, "LOCK_ATTEMPTS": 2}\n')
    with shop.connect() as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE shop_order IN ROW EXCLUSIVE MODE")
        failed = shop.manage("bulksafe", "switch-on", "--lock-timeout", "0.2", code=2)
    assert "in 2 attempts" in failed.stderr
    wait_until(lambda: not shop.run("SELECT FROM pg_locks WHERE NOT granted"))
    shop.manage("bulksafe", "switch-on", "--lock-timeout", "0.2")


FAMILY = """
class Base(models.Model):
    number = models.CharField(max_length=20)

class Child(Base):
    amount = models.IntegerField(default=0)
    class Meta:
        db_table = "Odd Child"

class Effect(models.Model):
    text = models.TextField()
"""

FAMILY_RECEIVERS = """
import bulksafe
from django.db.models.signals import post_delete, post_save
from shop.models import Base, Child, Effect

def note(name):
    def receiver(sender, instance, old=None, **kwargs):
        Effect.objects.create(text=f"{name} {instance.number} {old and old.number}")
    return receiver

for model in (Base, Child):
    for signal, name in ((post_save, "saved"), (post_delete, "deleted")):
        for run in ("in_transaction", "after_commit"):
            uid = f"{name} {model.__name__} {run}"
            bulksafe.critical(signal, sender=model, run=run, dispatch_uid=uid)(note(uid))
"""

FAMILY_WRITES = """
from shop.models import Base, Child
child = Child.objects.create(number="c", amount=1)
child.number = "d"
child.save()
child.amount = 2
child.save()
base = Base.objects.create(number="b")
base.number = "e"
base.save()
child.delete()
base.delete()
"""


def test_models_that_share_tables_are_switched_together(project):
    project.settings('BULKSAFE = {"ROLLOUT": True}\n')
    project.models(FAMILY)
    project.make()
    project.write("shop/receivers.py", FAMILY_RECEIVERS)
    project.make()
    project.migrate()
    project.python(FAMILY_WRITES)
    off = effects(project)
    assert project.manage("bulksafe", "switch-on", "shop.Child").stdout.startswith(
        "shop.Base, shop.Child: switched on\n"
    )
    project.python(FAMILY_WRITES)
    on = effects(project)

    assert len(off) > 15
    assert not Counter(off) - Counter(on)
    # Django sends no signal of the parent for a saved child; a capture has the parent's part.
    assert sorted((Counter(on) - Counter(off)).elements()) == [
        f"saved Base after_commit {values}" for values in ("c None", "d c", "d d")
    ]


PARTITIONED = """
    DROP TABLE shop_effect, shop_order CASCADE;
    CREATE TABLE shop_order (
        id bigint GENERATED BY DEFAULT AS IDENTITY, number varchar(20) NOT NULL, PRIMARY KEY (id)
    ) PARTITION BY RANGE (id);
    CREATE TABLE shop_order_1 PARTITION OF shop_order FOR VALUES FROM (0) TO (1000);
    CREATE TABLE shop_effect (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, text text);
"""

PARTITIONED_MODELS = """
class Order(models.Model):
    number = models.CharField(max_length=20)

class Effect(models.Model):
    text = models.TextField()
"""

PARTITIONED_RECEIVERS = """
import bulksafe
from django.db.models.signals import post_save
from shop.models import Effect, Order

@bulksafe.critical(post_save, sender=Order)
def keep(sender, instance, **kwargs):
    Effect.objects.create(text=instance.number)
"""


def test_a_partitioned_table(project):
    """Also for a program that writes to a partition, as a process of the old release may."""
    project.settings('BULKSAFE = {"ROLLOUT": True}\n')
    project.models(PARTITIONED_MODELS)
    project.make()
    project.migrate()
    project.run(PARTITIONED)
    project.write("shop/receivers.py", PARTITIONED_RECEIVERS)
    project.make()
    project.migrate()
    insert = "INSERT INTO shop_order_1 SELECT count(*) + 500, 'other' FROM shop_order"
    for to in ("on", "off"):
        project.run(insert)
        project.python("from shop.models import Order; Order.objects.create(number='own')")
        assert effects(project) == ["own"]
        project.manage("bulksafe", f"switch-{to}")
        if to == "on":
            with pytest.raises(psycopg.errors.IntegrityError):
                project.run(insert)
            project.manage("bulksafe", "switch-off")
