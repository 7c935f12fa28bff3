"""A model changes, with every kind of invariant on it.

The oracle is a new database made from the models alone: after any change the migrated database has
exactly its triggers and functions. Every migration is also unapplied and applied again.
"""

from dataclasses import dataclass

import pytest

pytestmark = pytest.mark.once

ORDER = """
class {name}(models.Model):
    number = models.{number}
    {status} = models.CharField(max_length=20, default="draft"{status_options})
    amount = models.{amount}
    discount = models.IntegerField(default=0)
    net = models.{net}
    tax = models.IntegerField(default=0, editable=False)

    class Meta:
        {meta}
        triggers = [
            bulksafe.Check(Q(discount__lte=F("amount")), name="within_amount"),
            bulksafe.Check(Q(amount__gte=0), name="positive", deferred=True),
            bulksafe.Check(Q({status}="draft"), name="drafts_only", operation=pgtrigger.Delete),
            bulksafe.Compute("net", F("amount") - F("discount")),
            bulksafe.Compute("tax", F("net") / 5),
            bulksafe.Immutable("number", "{status}", name="fixed"),
            bulksafe.Transition("{status}", {{"draft": ["paid"]}}, initial=["draft"]),
        ]
"""


def order(**parts):
    return ORDER.format(
        **{
            "name": "Order",
            "number": "CharField(max_length=20)",
            "status": "status",
            "status_options": "",
            "amount": "IntegerField()",
            "net": "IntegerField(default=0, editable=False)",
            "meta": "",
        }
        | parts
    )


def line(*invariants, fields=(), meta=()):
    """A model with a few columns and just these invariants."""
    return "\n".join(
        [
            "class Line(models.Model):",
            "    a = models.IntegerField(default=0)",
            "    b = models.IntegerField(default=0)",
            "    c = models.IntegerField(default=0)",
            *(f"    {field}" for field in fields),
            "    class Meta:",
            "        triggers = [",
            *(f"            {invariant}," for invariant in invariants),
            "        ]",
            *(f"        {option}" for option in meta),
        ]
    )


@dataclass(frozen=True)
class Change:
    """Two versions of a models module, and what makemigrations is answered."""

    before: str
    after: str
    answers: str = ""
    unchanged: bool = False


SPACED = 'db_table = "Sales Orders (old)"'

CHANGES = {
    "rename_model": Change(order(), order(name="Purchase"), "y\n"),
    "rename_model_keeping_the_table": Change(
        order(meta='db_table = "orders"'),
        order(name="Purchase", meta='db_table = "orders"'),
        "y\n",
    ),
    "rename_field": Change(order(), order(status="state"), "y\n"),
    "rename_field_keeping_the_column": Change(
        order(), order(status="state", status_options=', db_column="status"'), "y\n"
    ),
    "rename_field_with_a_column_of_its_own": Change(
        order(status_options=', db_column="St At"'), order(status="state"), "y\n"
    ),
    "rename_column": Change(order(), order(status_options=', db_column="St At"')),
    "rename_table": Change(order(), order(meta=SPACED)),
    "rename_table_to_the_default": Change(order(meta=SPACED), order()),
    "rename_table_and_model_and_field": Change(
        order(), order(name="Purchase", status="state", meta=SPACED), "y\ny\n"
    ),
    "rename_table_and_change_an_invariant": Change(
        order(), order(meta=SPACED).replace("amount__gte=0", "amount__gte=1")
    ),
    "rename_table_and_remove_an_invariant": Change(
        line('bulksafe.Check(Q(a__gt=0, b__gt=0), name="x")', 'bulksafe.Immutable("c")'),
        line('bulksafe.Immutable("c")', meta=[SPACED]),
    ),
    "alter_types": Change(
        order(),
        order(
            number="TextField()",
            status_options="",
            amount="BigIntegerField()",
            net="DecimalField(max_digits=12, decimal_places=2, default=0, editable=False)",
        ),
    ),
    "alter_types_of_a_table_with_spaces": Change(
        order(
            meta=SPACED,
            amount="DecimalField(max_digits=6, decimal_places=2)",
            net="DecimalField(max_digits=6, decimal_places=2, default=0, editable=False)",
        ),
        order(
            meta=SPACED,
            number="CharField(max_length=40)",
            amount="DecimalField(max_digits=12, decimal_places=4)",
            net="BigIntegerField(default=0, editable=False)",
        ),
    ),
    "alter_the_computed_column": Change(
        order(),
        order(net="DecimalField(max_digits=9, decimal_places=2, default=0, editable=False)"),
    ),
    "alter_the_precision_of_the_computed_column": Change(
        order(net="DecimalField(max_digits=9, decimal_places=2, default=0, editable=False)"),
        order(net="DecimalField(max_digits=9, decimal_places=3, default=0, editable=False)"),
    ),
    "alter_the_collation": Change(
        order(), order(number="CharField(max_length=20, db_collation='C')")
    ),
    "alter_a_type_and_remove_the_invariant": Change(
        line('bulksafe.Check(Q(a__gt=0), name="x")'),
        line().replace("a = models.IntegerField", "a = models.BigIntegerField"),
    ),
    "alter_null_and_default": Change(
        order(), order(amount="IntegerField(null=True, default=7, db_index=True)")
    ),
    "alter_the_key": Change(
        order(meta=SPACED),
        order(meta=SPACED).replace(
            "number =", "id = models.IntegerField(primary_key=True)\n    number ="
        ),
    ),
    "alter_the_key_of_a_parent": Change(
        """
        class Animal(models.Model):
            id = models.IntegerField(primary_key=True)
            legs = models.IntegerField()
            class Meta:
                triggers = [bulksafe.Immutable("legs")]
        class Horse(Animal):
            colour = models.TextField()
            class Meta:
                triggers = [bulksafe.Immutable("colour")]
        """,
        """
        class Animal(models.Model):
            id = models.BigIntegerField(primary_key=True)
            legs = models.IntegerField()
            class Meta:
                triggers = [bulksafe.Immutable("legs")]
        class Horse(Animal):
            colour = models.TextField()
            class Meta:
                triggers = [bulksafe.Immutable("colour")]
        """,
    ),
    "alter_a_referenced_key": Change(
        """
        class Customer(models.Model):
            id = models.IntegerField(primary_key=True)
            friends = models.ManyToManyField("self")
        class Order(models.Model):
            customer = models.ForeignKey(Customer, models.CASCADE)
            owner = models.BigIntegerField(default=0)
            class Meta:
                db_table = "Sales Orders"
                triggers = [
                    bulksafe.Immutable("customer"),
                    bulksafe.Compute("owner", F("customer_id")),
                ]
        """,
        """
        class Customer(models.Model):
            id = models.BigIntegerField(primary_key=True)
            friends = models.ManyToManyField("self")
        class Order(models.Model):
            customer = models.ForeignKey(Customer, models.CASCADE)
            owner = models.BigIntegerField(default=0)
            class Meta:
                db_table = "Sales Orders"
                triggers = [
                    bulksafe.Immutable("customer"),
                    bulksafe.Compute("owner", F("customer_id")),
                ]
        """,
    ),
    "change_a_condition": Change(
        line('bulksafe.Check(Q(a__gt=0), name="x")'), line('bulksafe.Check(Q(a__gt=1), name="x")')
    ),
    "change_a_message": Change(
        line('bulksafe.Check(Q(a__gt=0), name="x", message="50% off, {it}\'s \\"on\\"")'),
        line('bulksafe.Check(Q(a__gt=0), name="x", message="50%% $off$ \\\\ %s")'),
    ),
    "change_a_name": Change(
        line('bulksafe.Check(Q(a__gt=0), name="x")'), line('bulksafe.Check(Q(a__gt=0), name="y")')
    ),
    "exchange_two_names": Change(
        line('bulksafe.Check(Q(a__gt=0), name="x")', 'bulksafe.Check(Q(b__gt=0), name="y")'),
        line('bulksafe.Check(Q(a__gt=0), name="y")', 'bulksafe.Check(Q(b__gt=0), name="x")'),
    ),
    "change_the_kind": Change(
        line('bulksafe.Immutable("a", name="x")'), line('bulksafe.Compute("a", F("b"), name="x")')
    ),
    "change_the_order_of_declaration": Change(
        line('bulksafe.Check(Q(a__gt=0), name="x")', 'bulksafe.Check(Q(b__gt=0), name="y")'),
        line('bulksafe.Check(Q(b__gt=0), name="y")', 'bulksafe.Check(Q(a__gt=0), name="x")'),
        unchanged=True,
    ),
    "defer": Change(
        line('bulksafe.Check(Q(a__gt=0), name="x")'),
        line('bulksafe.Check(Q(a__gt=0), name="x", deferred=True)'),
    ),
    "remove_one": Change(order(), order().replace('bulksafe.Immutable("number"', '# ("number"')),
    "remove_all": Change(order(), order().split("    class Meta")[0]),
    "remove_with_the_field": Change(
        line('bulksafe.Check(Q(d=0), name="x")', fields=["d = models.IntegerField(default=0)"]),
        line(),
    ),
    "add_with_the_field": Change(
        line(), line('bulksafe.Compute("d", F("a"))', fields=["d = models.IntegerField(default=0)"])
    ),
    "delete_the_model": Change(
        order() + "\nclass Other(models.Model): pass", "class Other(models.Model): pass"
    ),
    "computes_rename_and_dependency": Change(
        line('bulksafe.Compute("b", F("a") * 2)', 'bulksafe.Compute("c", F("a") + 1)'),
        line(
            'bulksafe.Compute("b", F("a") * 2)',
            'bulksafe.Compute("c", F("b") + 1, name="double_and_one")',
        ),
    ),
    "computes_turn_round": Change(
        line('bulksafe.Compute("b", F("a") * 2)', 'bulksafe.Compute("c", F("b") + 1)'),
        line('bulksafe.Compute("c", F("a") * 2)', 'bulksafe.Compute("b", F("c") + 1)'),
    ),
    "computes_rename_a_field_between_them": Change(
        line('bulksafe.Compute("b", F("a") * 2)', 'bulksafe.Compute("c", F("b") + 1)'),
        line('bulksafe.Compute("z", F("a") * 2)', 'bulksafe.Compute("c", F("z") + 1)').replace(
            "    b =", "    z ="
        ),
        "y\n",
    ),
    "move_to_an_abstract_base": Change(
        line('bulksafe.Check(Q(a__gt=0), name="x")', 'bulksafe.Compute("c", F("a"))'),
        line(
            'bulksafe.Check(Q(a__gt=0), name="x")',
            'bulksafe.Compute("c", F("a"))',
            meta=["abstract = True"],
        ).replace("class Line", "class Base")
        + "\nclass Line(Base):\n    class Meta(Base.Meta): pass",
        unchanged=True,
    ),
    "move_to_a_proxy": Change(
        line('bulksafe.Check(Q(a__gt=0), name="x")'),
        line() + "\nclass Strict(Line):\n    class Meta:\n        proxy = True\n"
        '        triggers = [bulksafe.Check(Q(a__gt=0), name="x")]',
    ),
    "remove_a_proxy": Change(
        line() + "\nclass Strict(Line):\n    class Meta:\n        proxy = True\n"
        '        triggers = [bulksafe.Check(Q(a__gt=0), name="x")]',
        line(),
    ),
    "rename_a_proxy": Change(
        line() + "\nclass Strict(Line):\n    class Meta:\n        proxy = True\n"
        '        triggers = [bulksafe.Check(Q(a__gt=0), name="x")]',
        line() + "\nclass Stern(Line):\n    class Meta:\n        proxy = True\n"
        '        triggers = [bulksafe.Check(Q(a__gt=0), name="x")]',
    ),
    "rename_the_model_of_a_proxy": Change(
        line() + "\nclass Strict(Line):\n    class Meta:\n        proxy = True\n"
        '        triggers = [bulksafe.Check(Q(a__gt=0), name="x")]',
        line().replace("Line", "Row")
        + "\nclass Strict(Row):\n    class Meta:\n        proxy = True\n"
        '        triggers = [bulksafe.Check(Q(a__gt=0), name="x")]',
        "y\n",
    ),
    "rename_the_table_of_a_proxy": Change(
        line() + "\nclass Strict(Line):\n    class Meta:\n        proxy = True\n"
        '        triggers = [bulksafe.Check(Q(a__gt=0), name="x"), bulksafe.Compute("c", F("a"))]',
        line(meta=[SPACED]) + "\nclass Strict(Line):\n    class Meta:\n        proxy = True\n"
        '        triggers = [bulksafe.Check(Q(a__gt=0), name="x"), bulksafe.Compute("c", F("a"))]',
    ),
    "add_a_child_table": Change(
        line('bulksafe.Check(Q(a__gt=0), name="x")'),
        line('bulksafe.Check(Q(a__gt=0), name="x")')
        + "\nclass Special(Line):\n    extra = models.IntegerField()\n    class Meta:\n"
        '        triggers = [bulksafe.Immutable("extra"), '
        'bulksafe.Check(Q(extra__gt=0), name="x")]',
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_change(project, change):
    project.models(change.before)
    project.make()
    project.migrate()
    before, former = project.installed(), project.migrations()[-1]

    project.models(change.after)
    project.make(answers=change.answers)
    project.assert_nothing_to_make()
    assert (project.migrations()[-1] == former) is change.unchanged
    project.migrate()
    after = project.installed()
    assert after == project.fresh()

    project.migrate("shop", former)
    assert project.installed() == before
    project.migrate()
    assert project.installed() == after
    project.migrate("shop", "zero")
    assert not project.installed()


def test_alter_a_key_that_another_app_refers_to(project):
    """Each app has a migration of its own then, and either may be the first."""
    customer = """
    class Customer(models.Model):
        id = models.{}(primary_key=True)
    """
    project.models(customer.format("IntegerField"), app="people")
    project.models(
        """
        class Order(models.Model):
            customer = models.ForeignKey("people.Customer", models.CASCADE)
            owner = models.BigIntegerField(default=0)
            class Meta:
                db_table = "Sales Orders"
                triggers = [
                    bulksafe.Immutable("customer"),
                    bulksafe.Compute("owner", F("customer_id") + 1),
                ]
        """
    )
    project.make()
    project.migrate()
    project.run("INSERT INTO people_customer VALUES (1)")
    before = project.installed()
    project.models(customer.format("BigIntegerField"), app="people")
    project.make()
    assert len(project.migrations()) == len(project.migrations("people")) == 2
    project.assert_nothing_to_make()
    for first in ("people", "shop"):
        project.migrate(first)
        project.migrate()
        project.assert_all_installed()
        assert project.installed() == project.fresh()
        project.migrate("people", "0001")
        project.migrate("shop", "0001")
        # Not the same types: Django restores a foreign key only if its state already contains it.
        taken_back = [(trigger.name, trigger.comment) for trigger in project.installed().triggers]
        assert taken_back == [(trigger.name, trigger.comment) for trigger in before.triggers]
        project.run('INSERT INTO "Sales Orders" (customer_id, owner) VALUES (1, 0)')
        assert project.run('DELETE FROM "Sales Orders" RETURNING owner') == [(2,)]
