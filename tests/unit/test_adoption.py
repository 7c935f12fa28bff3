"""The parts of verify and backfill that need no database."""

import django
import pytest
from django.apps.registry import Apps
from django.db import models
from django.db.models import BooleanField, F, Func, Q, Value

import bulksafe
from bulksafe.adoption import keys, orm
from bulksafe.adoption.keys import Span
from bulksafe.adoption.repairing import SQL, Pace
from bulksafe.adoption.tables import Column, Table
from bulksafe.management.subcommands import is_selected
from bulksafe.management.subcommands.progress import progress_text
from tests.apps.columns.models import Nullable

INTEGER = Column("pg_catalog.int8", "bigint", "", has_collation=False)
TEXT = Column("pg_catalog.text", "text", "", has_collation=True)


def table(**key):
    return Table("default", '"public"."t"', "pg_catalog", tuple(key), key, None)


def test_a_span_is_a_condition_over_the_key():
    one, two = table(id=INTEGER), table(sheet=INTEGER, place=TEXT)

    assert keys.within(one, Span(None, None)) == "true"
    assert keys.within(one, Span(("-5",), ("7",))) == (
        """true AND ("new"."id") > ('-5'::pg_catalog.int8) """
        """AND ("new"."id") <= ('7'::pg_catalog.int8)"""
    )
    assert keys.within(two, Span(("5", "it's"), None)) == (
        """true AND ("new"."sheet", "new"."place") > """
        """('5'::pg_catalog.int8, 'it''s'::pg_catalog.text)"""
    )


def test_a_key_is_shown_as_a_number_a_text_or_an_array():
    assert keys.shown(table(id=INTEGER), ("-5",)) == -5
    assert keys.shown(table(id=TEXT), ("05",)) == "05"
    assert keys.as_text(table(sheet=INTEGER, place=TEXT), ("5", 'ż"')) == '[5, "ż\\""]'


def test_batches_grow_while_they_are_fast_and_shrink_when_they_take_long():
    pace = Pace(most=100)
    sizes = []
    for seconds in (0.010, 0.011, 0.012, 0.015, 0.025, 0.060, 0.010):
        pace.adapt(seconds)
        sizes.append(pace.size)
    assert sizes == [2, 4, 8, 16, 16, 8, 16]
    for _ in range(9):
        pace.adapt(0.01)
    assert pace.size == 100


def test_batches_grow_on_a_machine_where_even_one_row_takes_long():
    pace = Pace(most=1000)
    for _ in range(6):
        pace.adapt(0.2)
    assert pace.size == 64


def test_batches_of_slow_rows_stay_small():
    """Each row costs 30 ms more, as with a receiver that computes for so long."""
    pace = Pace(most=1000)
    sizes = set()
    for _ in range(10):
        sizes.add(pace.size)
        pace.adapt(0.005 + pace.size * 0.03)
    assert max(sizes) <= 2


def test_a_text_as_an_expression_has_no_placeholders():
    assert SQL("a % 2", BooleanField()).as_sql(None, None) == ("(a %% 2)", ())


class _NotWritable(Func):
    function = "now"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._constructor_args = ((lambda: None,), {})


@pytest.mark.parametrize(
    "invariant",
    [
        bulksafe.Check(Q(new__n__gte=F("old__n")), name="rows"),
        bulksafe.Check(Q(n__gte=_NotWritable()), name="no_code"),
        bulksafe.Compute("n", F("new__m")),
        bulksafe.Immutable("n"),
    ],
)
def test_what_the_orm_cannot_say_has_no_query(invariant):
    assert orm.query_of(invariant, Nullable, "default") is None


def test_a_query_has_its_imports():
    invariant = bulksafe.Compute("t", bulksafe_upper())
    assert orm.query_of(invariant, Nullable, "other") == (
        "from django.apps import apps\n"
        "from django.db import models\n"
        "import django.db.models.functions.text\n"
        "models.QuerySet(apps.get_model('columns.Nullable'), using='other')"
        ".alias(expected=django.db.models.functions.text.Upper(models.Value('a')))"
        ".filter(t__df=models.F('expected'))"
    )


class Taken(models.Model):
    """Its columns have the names that a query gives to its own expressions."""

    holds = models.IntegerField()
    expected = models.IntegerField()

    class Meta:
        app_label = "unit"
        apps = Apps()


@pytest.mark.parametrize(
    "invariant",
    [
        bulksafe.Check(Q(holds__gte=0), name="positive"),
        bulksafe.Check(Q(its_holds__gte=0), its_holds=F("holds"), name="annotated"),
        bulksafe.Compute("holds", F("expected")),
    ],
)
def test_a_query_takes_no_name_of_a_field(invariant):
    methods, _ = orm.filters_of(invariant, Taken)
    # Django refuses an alias with the name of a field.
    rows = eval(f"models.QuerySet(Taken){methods}", {**globals(), "django": django})
    assert rows.query.where


def bulksafe_upper():
    from django.db.models.functions import Upper

    return Upper(Value("a"))


@pytest.mark.parametrize(
    ("selection", "is_in"),
    [("shop", True), ("SHOP.order", True), ("shop.Order:Net", True), ("shop.Order:n", False)],
)
def test_a_selection_is_an_app_a_model_or_an_invariant(selection, is_in):
    assert is_selected("shop.Order:net", [selection, "other"]) is is_in
    assert is_selected("shop.Order:net", [])


def test_the_text_of_the_progress():
    assert progress_text("t", 1000, 5000, 2.0) == "t: 1,000 of about 5,000 rows, 500 a second"
    assert progress_text("t", 1000, None, 0.0) == "t: 1,000 rows"
    # The estimate of an old ANALYZE.
    assert progress_text("t", 1000, 10, 0.0) == "t: 1,000 rows"
