"""Every kind of declaration on every kind of model compiles to valid SQL, and works."""

import re

import pytest

from tests.migration.test_neighbours import AUTH, tables

MODELS = """
from django.contrib.auth.models import AbstractUser, Group, User
from django.contrib.postgres.fields import ArrayField, HStoreField

class Log(models.Model):
    text = models.TextField()

class Member(User):
    level = models.IntegerField(default=0)
    friends = models.ManyToManyField("self")
    circles = models.ManyToManyField(Group)

class Officer(Member):
    rank = models.CharField(max_length=20, db_column="Rank of 'it'", default="")

class Wide(models.Model):
    data = models.JSONField(default=dict)
    state = models.CharField(max_length=20, default="draft")
    listed = ArrayField(models.IntegerField(), default=list)
    at = models.DateTimeField(null=True)
    total = models.IntegerField(default=0, editable=False)

    class Meta:
        db_table = "Some 'wide' table"
        triggers = [
            bulksafe.Check(Q(total__lte=10), name="few", message="50% $of$ 'it'"),
            bulksafe.Check(Q(state__in=["draft", "paid"]), name="late", deferred=True),
            bulksafe.Check(Q(state="draft"), name="drafts", operation=pgtrigger.Delete),
            bulksafe.Check(Q(new__total__gte=F("old__total")), name="grows"),
            bulksafe.Compute("total", F("listed__len") + 1),
            bulksafe.Immutable("at"),
            bulksafe.Transition("state", {"draft": ["paid"]}, initial=["draft"]),
        ]

class Pair(models.Model):
    pk = models.CompositePrimaryKey("one", "two")
    one = models.IntegerField()
    two = models.TextField()
    n = models.IntegerField(default=0)
"""

RECEIVERS = """
import bulksafe
from django.db.models import F, Q
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from shop.models import Log, Member, Officer, Pair, Wide

WHEN = {
    "Member": Q(new__level__gt=0) | Q(old__level__gt=5),
    "Officer": None,
    "Wide": Q(new__state="paid") & ~Q(old__state="paid"),
    "Pair": Q(new__n=F("old__n")),
}

def note(name):
    def receiver(sender, instance, signal, **kwargs):
        Log.objects.create(text=f"{name} {sender.__name__}")
    return receiver

for model in (Member, Officer, Pair, Wide):
    for kind, signals, options in (
        ("later", (post_save, post_delete), {"run": "after_commit"}),
        ("now", (pre_save, post_save, pre_delete, post_delete), {}),
        ("either", (post_save,), {"otherwise": "after_commit"}),
    ):
        for number, signal in enumerate(signals):
            for when in {None, WHEN[model.__name__]} if number == 0 else {None}:
                if when is not None and signal in (post_delete, pre_delete):
                    continue
                name = f"{kind} {number} {'when' if when else 'all'}"
                uid = f"{name} {model.__name__}"
                decorate = bulksafe.critical(
                    signal, sender=model, dispatch_uid=uid, when=when, **options
                )
                decorate(note(name))
for through in (Member.friends.through, Member.circles.through):
    for options in ({"run": "after_commit"}, {}):
        uid = f"{through.__name__} {options}"
        bulksafe.critical(m2m_changed, sender=through, dispatch_uid=uid, **options)(note("linked"))
"""

WRITE = """
from django.contrib.auth.models import Group, User
from django.db import transaction
from shop.models import Log, Member, Officer, Pair, Wide
with transaction.atomic():
    first = Member.objects.create(username="a", level=1)
    second = Officer.objects.create(username="b", level=1, rank="r")
with transaction.atomic():
    Member.objects.update(level=7)
    Officer.objects.update(rank="s", first_name="x")
    User.objects.update(last_name="y")
    first.friends.add(second)
    first.circles.add(Group.objects.create(name="g"))
with transaction.atomic():
    Wide.objects.bulk_create([Wide(listed=[1]), Wide(listed=[2, 3])])
    Wide.objects.update(state="paid")
    Pair.objects.bulk_create([Pair(one=1, two="x"), Pair(one=2, two="y")])
    Pair.objects.update(n=5)
with transaction.atomic():
    Pair.objects.all().delete()
    Officer.objects.all().delete()
print(sorted({text for text in Log.objects.values_list("text", flat=True)}))
"""


@pytest.fixture(scope="module")
def parsed():
    return pytest.importorskip("pglast")


def check(pglast, sql):
    """It is SQL, and so is what it executes, and the bodies of its functions."""
    assert pglast.parse_sql(sql)
    for statement in pglast.split(sql):
        if statement.lstrip().startswith("DO"):
            assert pglast.parse_plpgsql(statement)


def test_all_of_it(project, parsed):
    project.contrib = [*AUTH, "django.contrib.postgres"]
    project.models(MODELS)
    project.write("shop/receivers.py", RECEIVERS)
    project.make()
    project.manage("check")
    project.migrate()
    project.assert_nothing_to_make()
    project.assert_all_installed()

    functions = project.installed().functions
    assert len(functions) > 30
    for function in functions:
        assert parsed.parse_sql(function.definition)
        if "LANGUAGE plpgsql" in function.definition:
            assert parsed.parse_plpgsql(function.definition)
    for direction in ([], ["--backwards"]):
        for name in project.migrations():
            text = project.manage("sqlmigrate", "shop", name.split("_")[0], *direction).stdout
            check(parsed, re.sub(r"(?m)^--.*$", "", text))
    assert "auth_user" in tables(project)

    found = project.python(WRITE)
    for expected in ("now 0 when Member", "now 1 all Officer", "now 3 all Pair", "linked Member"):
        assert expected in found
    project.manage("bulksafe", "listen", "--once")
    texts = {text for (text,) in project.run("SELECT text FROM shop_log")}
    for model in ("Member", "Officer", "Wide", "Pair"):
        assert {f"later 0 all {model}", f"now 1 all {model}", f"either 0 all {model}"} <= texts

    there = project.installed()
    assert there == project.fresh()
    project.migrate("shop", "zero")
    assert not project.installed()
