"""The default message of a ``Transition`` names both states, in the database and in Python."""

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, models, transaction
from django.utils import translation
from django.utils.translation import gettext_lazy

from bulksafe import InvariantViolation, Transition
from tests.unit.declaring import declare, isolated, tables

pytestmark = pytest.mark.django_db


@pytest.fixture
def model_with():
    """``model_with(field, allowed, initial=None)`` makes a table with one state column."""
    with isolated():
        stack = []

        def make(field, allowed, **options):
            model = declare(Transition("status", allowed, **options), status=field)
            block = tables(model)
            block.__enter__()
            stack.append(block)
            return model

        yield make
        for block in reversed(stack):
            block.__exit__(None, None, None)


def raised(write):
    """What PostgreSQL says, and what bulksafe shows."""
    with pytest.raises(InvariantViolation) as caught, transaction.atomic():
        write()
    return caught.value.__cause__.diag.message_primary, caught.value.message


def validated(instance):
    with pytest.raises(ValidationError) as caught:
        instance.full_clean()
    return caught.value.messages


def test_every_side_says_the_same(model_with):
    order = model_with(models.CharField(max_length=9), {"draft": ["paid"]}, initial=["draft"])
    order.objects.create(status="draft")
    text = "“status” cannot change from “draft” to “sent”."

    assert raised(lambda: order.objects.update(status="sent")) == (text, text)
    stored = order.objects.get()
    stored.status = "sent"
    assert validated(stored) == [text]


def test_a_new_row(model_with):
    order = model_with(models.CharField(max_length=9), {"draft": ["paid"]}, initial=["draft"])
    text = "“status” cannot start with “paid”."

    assert raised(lambda: order.objects.bulk_create([order(status="paid")])) == (text, text)
    assert validated(order(status="paid")) == [text]
    # With a primary key that no row has it is an insert, too.
    assert validated(order(pk=7, status="paid")) == [text]


def test_null_in_plain_words(model_with):
    field = models.CharField(max_length=9, null=True, blank=True)
    order = model_with(field, {"draft": ["paid"], None: ["draft"]}, initial=["draft", None])
    row = order.objects.create(status=None)
    text = "“status” cannot change from no value to “paid”."
    assert raised(lambda: order.objects.update(status="paid")) == (text, text)
    row.status = "paid"
    assert validated(row) == [text]

    order.objects.update(status="draft")
    text = "“status” cannot change from “draft” to no value."
    assert raised(lambda: order.objects.update(status=None)) == (text, text)
    row.status = None
    assert validated(row) == [text]


def test_a_new_row_without_a_value(model_with):
    field = models.CharField(max_length=9, null=True, blank=True)
    order = model_with(field, {"draft": ["paid"]}, initial=["draft"])
    text = "“status” cannot start with no value."

    assert raised(lambda: order.objects.create(status=None)) == (text, text)
    assert validated(order(status=None)) == [text]


def test_display_names_where_python_shows_the_message(model_with):
    # Texts that Django itself has translations of.
    choices = [("d", gettext_lazy("Yes")), ("p", "Paid"), ("s", gettext_lazy("No"))]
    order = model_with(models.CharField(max_length=1, choices=choices), {"d": ["p"]})
    row = order.objects.create(status="d")
    with translation.override("de"):
        database, shown = raised(lambda: order.objects.update(status="s"))
        row.status = "s"
        in_python = validated(row)

    assert database == "“status” cannot change from “d” to “s”."
    assert shown == "“status” cannot change from “Ja” to “Nein”."
    assert in_python == [shown]


def test_a_column_of_another_type_and_name(model_with):
    order = model_with(models.IntegerField(db_column="Sta'te Ü"), {1: [2]})
    row = order.objects.create(status=1)
    text = "“status” cannot change from “1” to “3”."

    assert raised(lambda: order.objects.update(status=3)) == (text, text)
    row.status = 3
    assert validated(row) == [text]


@pytest.mark.parametrize("length", [64, 65])
def test_a_long_value_is_cut(model_with, length):
    order = model_with(models.TextField(), {"draft": ["paid"]})
    row = order.objects.create(status="draft")
    database, shown = raised(lambda: order.objects.update(status="é" * length))
    row.status = "é" * length

    assert ("é" * 64 in database) is (length == 64)
    assert ("é" * 63 + "…" in database) is (length == 65)
    assert validated(row) == [shown] == [database]


def test_the_text_of_the_user_stays(model_with):
    order = model_with(models.CharField(max_length=9), {"a": ["b"]}, message="from “a” to “b”")
    order.objects.create(status="b")

    assert raised(lambda: order.objects.update(status="a")) == ("from “a” to “b”",) * 2


@pytest.fixture
def clerk():
    """``clerk(model, columns)`` makes a role that writes the table and reads those columns."""

    def make(model, columns):
        table = model._meta.db_table
        with connection.cursor() as cursor:
            cursor.execute("CREATE ROLE state_clerk")
            cursor.execute(f"GRANT INSERT, UPDATE ON {table} TO state_clerk")
            cursor.execute(f"GRANT USAGE ON SEQUENCE {table}_id_seq TO state_clerk")
            cursor.execute(f"GRANT SELECT ({columns}) ON {table} TO state_clerk")

    return make


def as_clerk(sql):
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL ROLE state_clerk")
        cursor.execute(sql)


HIDDEN = "This change of “status” is not allowed."


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("id, status", "“status” cannot change from “draft” to “sent”."),
        ("id", HIDDEN),
    ],
)
def test_a_role_is_not_shown_what_it_may_not_read(model_with, clerk, columns, said):
    order = model_with(models.CharField(max_length=9), {"draft": ["paid"]}, initial=["draft"])
    order.objects.create(status="draft")
    clerk(order, columns)
    table = order._meta.db_table

    assert raised(lambda: as_clerk(f"UPDATE {table} SET status = 'sent'"))[0] == said


def test_a_policy_hides_the_states(model_with, clerk):
    order = model_with(models.CharField(max_length=9), {"draft": ["paid"]})
    order.objects.create(status="draft")
    clerk(order, "id, status")
    table = order._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE POLICY all_rows ON {table} USING (true)")
        cursor.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")

    assert raised(lambda: as_clerk(f"UPDATE {table} SET status = 'sent'"))[0] == HIDDEN
