"""``bulksafe verify`` finds the rows that break an invariant, and no others."""

import json
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models import F
from hypothesis import given
from hypothesis import strategies as st

import bulksafe
from bulksafe.adoption.verifying import verify
from bulksafe.declarations import Check, Compute, Declared
from tests.apps.columns.models import (
    KINDS,
    TYPED,
    Nullable,
)
from tests.apps.columns.trying import accepted, examples, undone
from tests.integration.test_column_types import (
    attributes,
    computed_as_orm,
    each_type,
    pairs,
    targets,  # noqa: F401  (a fixture)
)
from tests.integration.test_conditions import CONDITIONS, rows

pytestmark = pytest.mark.django_db


def quiet(*progress):
    """Show no progress."""


def look(*invariants, model, batch=1000, first=1000):
    items = [Declared(model, invariant) for invariant in invariants]
    return verify(items, "default", batch=batch, first=first, progress=quiet)


def command(*arguments, code=0):
    """Run the command; returns its output."""
    out = StringIO()
    if code:
        with pytest.raises(SystemExit) as raised:
            call_command("bulksafe", "verify", *arguments, stdout=out)
        assert raised.value.code == code
    else:
        call_command("bulksafe", "verify", *arguments, stdout=out)
    return out.getvalue()


def report(*arguments, code=0):
    """The same with ``--json``, by label."""
    listed = json.loads(command("--json", *arguments, code=code))["invariants"]
    return {result["invariant"]: result for result in listed}


# The oracle is the ORM.


@examples(60)
@given(CONDITIONS)
@undone
def test_any_condition_finds_the_rows_that_the_orm_does_not_accept(condition):
    check = Check(condition, name="drawn")
    Nullable.objects.bulk_create(rows())
    (result,) = look(check, model=Nullable, batch=7)
    if result.error is not None:
        # An empty drawn list removes the other conditions.
        assert "E042" in result.error
        return
    everything = set(Nullable.objects.values_list("pk", flat=True))
    assert set(result.first) == everything - accepted(Nullable.objects, condition)
    assert result.violations == len(result.first)
    assert rows_of_sql(result) == result.first
    assert set(rows_of_orm(result)) == set(result.first)


def rows_of_sql(result):
    with connection.cursor() as cursor:
        cursor.execute(result.sql)
        return [row[0] for row in cursor.fetchall()]


def rows_of_orm(result):
    """The keys of the query that a user would paste into a shell."""
    *imports, query = result.orm.split("\n")
    names = {}
    exec("\n".join(imports), names)
    return eval(query, names).values_list("pk", flat=True)


@each_type
def test_a_check_of_each_type_is_the_orms(name):
    kind, model = KINDS[name], TYPED[name]

    @examples(10)
    @given(pairs(name))
    @undone
    def agree(pair):
        with bulksafe.muted(label(model, "rule")):
            row = model.objects.create(**attributes(model, a=pair[0], b=pair[1]))
        (result,) = look(Check(kind.rule, name="rule"), model=model)
        expected = [] if accepted(model.objects, kind.rule) else [row.pk]
        assert (result.error, result.failures, result.first) == (None, [], expected)
        assert rows_of_sql(result) == list(rows_of_orm(result)) == expected

    agree()


@each_type
def test_a_computed_value_of_each_type_is_the_one_of_the_trigger(name):
    """A row is found if writing it again changes the computed column."""
    kind, model = KINDS[name], TYPED[name]

    @examples(10)
    @given(st.tuples(pairs(name), pairs(name)))
    @undone
    def agree(values):
        (a, b), (c, _) = values
        with bulksafe.muted(label(model, "rule"), label(model, "compute_c")):
            model.objects.create(**attributes(model, a=a, b=b, c=c))
            (result,) = look(Compute("c", kind.compute), model=model)
            assert (result.error, result.failures) == (None, [])
        before = texts_of(model)
        assert rows_of_sql(result) == result.first
        with bulksafe.muted(label(model, "rule")):
            model.objects.update(c=F("c"))
        assert result.first == [key for key, text in texts_of(model) if (key, text) not in before]
        assert look(Compute("c", kind.compute), model=model)[0].violations == 0
        assert not computed_as_orm(model).exists()

    agree()


def label(model, name):
    return f"{model._meta.label}:{name}"


def texts_of(model):
    """The key and the exact text of the computed column of each row."""
    with connection.cursor() as cursor:
        column = model._meta.get_field("c").column
        cursor.execute(f'SELECT id, "{column}"::text FROM "{model._meta.db_table}" ORDER BY id')
        return cursor.fetchall()
