"""Cases that broke, or nearly broke, the promise: odd types, and policies that hide rows."""

from contextlib import ExitStack

import pgtrigger
import pytest
from django.db import ProgrammingError, connection, models
from django.db.models import F, Q
from django.db.models.functions import Lower

import bulksafe
from tests.apps.columns.trying import refused
from tests.unit.declaring import declare, isolated, tables

pytestmark = pytest.mark.django_db

JUDGE = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED"


def custom(db_type):
    """A project's text field for a type that Django does not support."""

    class Custom(models.TextField):
        def db_type(self, connection):
            return db_type

    return Custom


def execute(statement, *parameters):
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)


@pytest.fixture
def table():
    """``table(*triggers, field=…)``: a model with a table of its own."""
    with isolated(), ExitStack() as stack:

        def make(*triggers, **fields):
            model = declare(*triggers, class_name="Attacked", **fields)
            stack.enter_context(tables(model))
            return model

        yield make


@pytest.fixture
def citext(db):
    execute("CREATE EXTENSION citext")
    return custom("citext")


def test_immutable_treats_a_different_case_as_a_different_value(citext, table):
    model = table(bulksafe.Immutable("a"), a=citext())
    model.objects.create(a="abc")
    assert refused(lambda: model.objects.update(a="ABC"))
    assert not refused(lambda: model.objects.update(a="abc"))


def test_a_state_in_a_different_case_is_a_different_state(citext, table):
    model = table(bulksafe.Transition("a", {"a": ["b"]}, initial=["a"]), a=citext())
    assert refused(lambda: model.objects.create(a="A"))
    model.objects.create(a="a")
    assert refused(lambda: model.objects.update(a="A"))
    assert refused(lambda: model.objects.update(a="B"))
    assert not refused(lambda: model.objects.update(a="b"))


@pytest.mark.parametrize("domain", [False, True])
def test_case_insensitive_text_is_computed_exactly(domain, citext, table):
    execute("CREATE DOMAIN nickname AS citext")
    field = custom("nickname") if domain else citext
    model = table(bulksafe.Compute("b", Lower("a")), a=models.TextField(), b=field())
    model.objects.bulk_create([model(a="ABC", b="ABC")])
    assert model.objects.get().b == "abc"


@pytest.mark.parametrize(
    ("db_type", "first", "second"),
    [
        ("json", '{"a": 1}', '{"a": 2}'),
        ("point", "(1,2)", "(2,1)"),
        ("box", "(2,2),(0,0)", "(4,1),(0,0)"),  # of the same size, which is all that = looks at
        ("json[]", '{"1","2"}', '{"2","1"}'),
    ],
)
def test_types_that_do_not_compare(db_type, first, second, table):
    field = custom(db_type)
    computed = bulksafe.Compute("b", F("a"))
    model = table(bulksafe.Immutable("a"), computed, a=field(), b=field(null=True))
    execute("INSERT INTO unit_attacked (a, b) VALUES (%s, %s)", first, second)
    assert model.objects.extra(where=["a::text = b::text"]).exists()
    assert refused(lambda: execute("UPDATE unit_attacked SET a = %s", second))
    assert not refused(lambda: execute("UPDATE unit_attacked SET a = %s", first))


@pytest.fixture
def hidden_rows(table):
    """A table whose owner, who made the triggers, is subject to a policy that hides every row."""
    execute("CREATE ROLE landlord")
    execute("GRANT CREATE, USAGE ON SCHEMA public TO landlord")
    execute("SET LOCAL ROLE landlord")
    table(
        bulksafe.Check(Q(a__gte=0), name="positive", deferred=True),
        bulksafe.Check(Q(a=1), name="ones_only", operation=pgtrigger.Delete),
        a=models.IntegerField(),
    )
    execute("ALTER TABLE unit_attacked ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    execute("CREATE POLICY unseen ON unit_attacked USING (a > 5) WITH CHECK (true)")


@pytest.mark.parametrize(
    "write",
    [
        "INSERT INTO unit_attacked (a) VALUES (-1); " + JUDGE,
        "INSERT INTO unit_attacked (a) VALUES (2); TRUNCATE unit_attacked",
    ],
)
def test_a_policy_that_hides_a_row_hides_no_violation(write, hidden_rows):
    with pytest.raises(ProgrammingError, match="affected by row-level security policy"):
        execute(write)


def test_a_table_moved_to_another_schema_keeps_its_rules(table):
    check = bulksafe.Check(Q(b__gt=0), name="positive", deferred=True)
    compute = bulksafe.Compute("b", F("a") + 1)
    model = table(compute, check, a=models.IntegerField(), b=models.IntegerField(default=0))
    execute("CREATE SCHEMA moved; ALTER TABLE unit_attacked SET SCHEMA moved")
    execute("SET LOCAL search_path = moved, public")
    for compiled in (compute.compile(model), check.compile(model)):
        execute(compiled.install_sql)  # as the next migration that changes it does
    assert model.objects.create(a=1).b == 2
    assert refused(lambda: execute("INSERT INTO moved.unit_attacked (a) VALUES (-1); " + JUDGE))
    for compiled in (compute.compile(model), check.compile(model)):
        execute(compiled.uninstall_sql)
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_proc WHERE starts_with(proname, 'bulksafe_positive')")
        assert not cursor.fetchall()
        cursor.execute("SELECT FROM pg_trigger WHERE tgrelid = 'moved.unit_attacked'::regclass")
        assert not cursor.fetchall()
