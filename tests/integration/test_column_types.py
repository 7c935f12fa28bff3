"""Every type of column under every kind of invariant. The ORM and what Django reads back decide."""

import datetime as dt
import math
from decimal import Decimal

import pytest
from django.db import DataError, connection, models, transaction
from django.db.backends.postgresql.psycopg_any import DateRange, DateTimeTZRange, NumericRange
from django.db.models import F, Func, Q, Value
from django.db.models.functions import Cast, Concat, Lower
from hypothesis import given
from hypothesis import strategies as st

import bulksafe
from tests.apps.columns.models import KINDS, TYPED, Cell, Document, Measure, Nullable, Target
from tests.apps.columns.trying import (
    accepted,
    check_constraints,
    examples,
    install,
    refused,
    rolled_back,
    undone,
)

pytestmark = pytest.mark.django_db

TEXT = st.text(
    st.one_of(
        st.sampled_from("aA'\\\"%{}$ \n"),
        st.characters(exclude_categories=("Cs",), exclude_characters="\x00"),
    ),
    max_size=5,
)
# Away from the ends of the calendar, so that a sum of two stays in it.
DAYS = st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1))
MOMENTS = st.datetimes(
    dt.datetime(1900, 1, 1),  # noqa: DTZ001
    dt.datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(dt.UTC),
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


def decimals(digits):
    return st.decimals(-digits, digits, places=2)


def ranges(make, points):
    bounds = st.tuples(st.none() | points, st.none() | points).filter(
        lambda pair: None in pair or pair[0] <= pair[1]
    )
    return bounds.map(lambda pair: make(*pair)) | st.just(make(empty=True))


VALUES = {
    "SmallInteger": st.integers(-10_000, 10_000),
    "Integer": st.integers(-(2**30), 2**30),
    "BigInteger": st.integers(-(2**61), 2**61),
    "PositiveSmallInteger": st.integers(0, 2**15 - 1),
    "PositiveInteger": st.integers(0, 2**31 - 1),
    "PositiveBigInteger": st.integers(0, 2**63 - 1),
    "Decimal": decimals(400),
    "Float": st.floats(-1e300, 1e300) | st.sampled_from([math.nan, math.inf, -math.inf]),
    "Boolean": st.booleans(),
    "File": TEXT.filter(bool),
    "UUID": st.uuids(),
    "IPAddress": st.ip_addresses().map(str),
    "Binary": st.binary(max_size=5),
    "Date": DAYS,
    "DateTime": MOMENTS,
    "Time": st.times(),
    "Duration": st.timedeltas(dt.timedelta(-10_000), dt.timedelta(10_000)),
    "JSON": JSON_VALUES.filter(lambda value: value is not None)
    | st.fixed_dictionaries({"n": st.integers(0, 3)}),
    "ArrayOfChar": st.lists(st.none() | TEXT, max_size=3),
    "ArrayOfDecimal": st.lists(st.none() | decimals(999), max_size=3),
    "ArrayOfArray": st.lists(st.tuples(st.integers(0, 3), st.none()).map(list), max_size=2),
    "ArrayOfNoCase": st.lists(TEXT, max_size=3),
    "HStore": st.dictionaries(st.just("k") | TEXT, st.none() | TEXT, max_size=2),
    "IntegerRange": ranges(NumericRange, st.integers(-9, 9)),
    "BigIntegerRange": ranges(NumericRange, st.integers(-9, 9)),
    "DecimalRange": ranges(NumericRange, decimals(9)),
    "DateRange": ranges(DateRange, DAYS),
    "DateTimeRange": ranges(DateTimeTZRange, MOMENTS),
    "ForeignKey": st.integers(1, 3),
    "OneToOne": st.integers(1, 3),
}

each_type = pytest.mark.parametrize("name", TYPED)


@pytest.fixture(autouse=True)
def targets(db):
    Target.objects.bulk_create(Target(pk=number, number=number) for number in (1, 2, 3))


def pairs(name):
    value = st.none() | VALUES.get(name, TEXT)
    return st.tuples(value, value)


def column(model, name):
    return model._meta.get_field(name)


def computed_as_orm(model):
    """Rows whose computed column differs from the expression, converted to the column's type."""
    compute = next(t for t in model._meta.triggers if isinstance(t, bulksafe.Compute))
    field = column(model, compute.field)
    expression = compute.expression
    if not isinstance(field, models.CharField | models.TextField | models.FileField):
        # A cast to varchar truncates; an assignment refuses.
        expression = Cast(expression, field)
    return model.objects.annotate(expected=expression).exclude(
        Q(**{compute.field: F("expected")})
        | Q(**{f"{compute.field}__isnull": True, "expected__isnull": True})
    )


def readable(value):
    """A value that Django read, so that equal ones are equal in Python."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, models.fields.files.FieldFile):
        return value.name
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def stored(row, *names):
    fresh = type(row).objects.get(pk=row.pk)
    return [readable(getattr(fresh, column(type(row), name).attname)) for name in names]


def attributes(model, **values):
    return {column(model, name).attname: value for name, value in values.items()}


@each_type
def test_check_refuses_what_the_orm_finds_false(name):
    model = TYPED[name]
    rule = KINDS[name].rule

    @examples(10)
    @given(pairs(name))
    @undone
    def agree(pair):
        values = attributes(model, a=pair[0], b=pair[1])
        with rolled_back():
            with bulksafe.muted(f"columns.{model.__name__}:rule"):
                model.objects.create(**values)
            expected = bool(accepted(model.objects, rule))
        assert refused(lambda: model.objects.bulk_create([model(**values)])) is not expected
        assert model.objects.count() == expected

    agree()


@each_type
def test_compute_stores_what_the_orm_gives(name):
    model = TYPED[name]

    @examples(10)
    @given(pairs(name), pairs(name))
    @undone
    def agree(pair, other):
        with bulksafe.muted(f"columns.{model.__name__}:rule"):
            row = model.objects.create(
                **attributes(model, a=pair[0], b=pair[1], c=other[1], fixed=None)
            )
            assert not computed_as_orm(model).exists()
            assert [readable(getattr(row, column(model, "c").attname))] == stored(row, "c")
            model.objects.update(**attributes(model, a=other[0], b=other[1], c=pair[0]))
            assert not computed_as_orm(model).exists()

    agree()


@each_type
def test_immutable_refuses_changes_that_django_reads_as_a_different_value(name):
    model = TYPED[name]

    @examples(10)
    @given(pairs(name))
    @undone
    def agree(pair):
        first, second = pair
        row = model.objects.create(**attributes(model, fixed=first))
        before = stored(row, "fixed")
        change = lambda: model.objects.update(**attributes(model, fixed=second))  # noqa: E731
        with rolled_back(), bulksafe.muted(f"columns.{model.__name__}:immutable_fixed"):
            change()
            after = stored(row, "fixed")
        assert refused(change) is (before != after)
        assert stored(row, "fixed") == before

    agree()


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.states])
def test_transition_lets_pass_what_it_lists(name):
    model = TYPED[name]
    first, second, third = KINDS[name].states
    allowed = {(first, second), (second, third)}
    states = [first, second, third]
    if third is not None and name != "File":
        states.append(None)
    for old_number, old in enumerate(states):
        for new_number, new in enumerate(states):
            with rolled_back():
                with bulksafe.muted(f"columns.{model.__name__}:transition_state"):
                    row = model.objects.create(**attributes(model, state=old))
                before = stored(row, "state")
                expected = old_number == new_number or (old, new) in allowed
                write = lambda new=new: model.objects.update(**attributes(model, state=new))  # noqa: E731
                assert refused(write) is not expected, (old, new)
                assert stored(row, "state") == before or expected


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.states])
def test_transition_lets_rows_begin_in_an_initial_state(name):
    model = TYPED[name]
    first, second, third = KINDS[name].states
    create = lambda state: lambda: model.objects.create(**attributes(model, state=state))  # noqa: E731
    assert not refused(create(first))
    assert not refused(create(None))
    assert refused(create(second))
    assert refused(create(third)) is (third is not None)


# Conversions, type by type.


def test_decimal_is_rounded_to_the_columns_scale_and_refused_beyond_its_precision():
    row = TYPED["Decimal"].objects.create(a=Decimal("0.01"), b=Decimal("99.50"))
    assert row.c == Decimal("0.33")
    row.a, row.b = Decimal("-0.05"), Decimal("0.30")
    row.save()
    assert (row.c, *stored(row, "c")) == (Decimal("-0.01"), Decimal("-0.01"))
    with pytest.raises(DataError, match="overflow"), transaction.atomic():
        TYPED["Decimal"].objects.create(a=Decimal(99_000), b=Decimal(99_000))


def test_integers_out_of_range_are_refused():
    with pytest.raises(DataError, match="out of range"), transaction.atomic():
        TYPED["SmallInteger"].objects.create(a=0, b=2**14)


def test_numbers_are_converted_to_the_columns_type():
    install(Nullable, bulksafe.Compute("n", Cast(F("m"), models.FloatField()) / 2))
    Nullable.objects.bulk_create(Nullable(m=m) for m in (1, 3, 5, -3, None))
    # As PostgreSQL rounds a double precision: half to even.
    assert list(Nullable.objects.order_by("pk").values_list("n", flat=True)) == [0, 2, 2, -2, None]


def test_division_of_integers_is_that_of_the_orm():
    install(Nullable, bulksafe.Compute("n", F("m") / 2))
    Nullable.objects.bulk_create(Nullable(m=m) for m in (-3, 3))
    assert not Nullable.objects.exclude(n=F("m") / 2).exists()


@pytest.mark.parametrize("name", ["Char", "Slug", "URL", "Email", "File", "FilePath", "NoCase"])
def test_too_long_text_is_refused_and_not_cut(name):
    model = TYPED[name]
    length = column(model, "c").max_length
    model.objects.create(a="x" * (length - 2), b="yz")
    with pytest.raises(DataError, match="too long"), transaction.atomic():
        model.objects.create(a="x" * (length - 2), b="yzz")
    with pytest.raises(DataError, match="too long"), transaction.atomic():
        model.objects.create(a="x" * (length - 1), b="żz")


def test_too_long_elements_of_an_array_are_refused_and_not_cut():
    model = TYPED["ArrayOfChar"]
    longer = Func("a", Value("123456"), function="array_append", output_field=column(model, "a"))
    install(model, bulksafe.Compute("fixed", longer, name="longer"))
    with pytest.raises(DataError, match="too long"), transaction.atomic():
        model.objects.create(a=["1"])


def test_elements_of_an_array_are_rounded():
    model = TYPED["ArrayOfDecimal"]
    install(
        model,
        bulksafe.Compute("fixed", Value([Decimal("1.005")], column(model, "a")), name="rounds"),
    )
    row = model.objects.create(a=[Decimal(1)])
    assert stored(row, "fixed") == [[Decimal("1.01")]]
    model.objects.update(b=None)
    assert stored(row, "fixed") == [[Decimal("1.01")]]


def test_null_is_a_value_for_immutable_and_unknown_for_check():
    model = TYPED["Integer"]
    row = model.objects.create(a=5, b=None)
    assert refused(lambda: model.objects.update(fixed=1))
    assert refused(lambda: model.objects.update(b=4))
    assert not refused(lambda: model.objects.update(a=None, b=4))
    assert stored(row, "a", "b", "fixed") == [None, 4, None]


def test_not_a_number_is_a_value():
    model = TYPED["Float"]
    row = model.objects.create(a=math.inf, b=math.inf, fixed=math.nan)
    assert math.isnan(row.c)
    assert not refused(lambda: model.objects.update(fixed=math.nan))
    assert refused(lambda: model.objects.update(fixed=0))
    # PostgreSQL's order puts NaN last.
    assert not refused(lambda: model.objects.update(a=math.inf, b=math.nan))
    assert refused(lambda: model.objects.update(a=math.nan, b=math.inf))


def test_the_same_moment_in_another_time_zone_is_no_change():
    moment = dt.datetime(2024, 3, 31, 0, 30, tzinfo=dt.UTC)
    row = TYPED["DateTime"].objects.create(fixed=moment)
    row.fixed = moment.astimezone(dt.timezone(dt.timedelta(hours=5)))
    row.save()
    assert stored(row, "fixed") == [moment]


@pytest.fixture
def time_zone():
    """Changes the time zone of the session, as another client may have it."""

    def change(name):
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('TimeZone', %s, true)", [name])

    yield change
    change("UTC")


def test_a_day_has_the_same_length_in_every_session_time_zone(time_zone):
    """In New York the day after 2024-03-09 has 23 hours."""
    model = TYPED["DateTime"]
    moment = dt.datetime(2024, 3, 9, 23, tzinfo=dt.UTC)
    time_zone("America/New_York")
    row = model.objects.create(a=moment)
    time_zone("UTC")
    assert stored(row, "c") == [moment + dt.timedelta(days=1, hours=2)]


def test_parts_of_a_moment_are_those_of_djangos_time_zone(time_zone):
    time_zone("Asia/Tokyo")
    at_five = dt.datetime(2024, 3, 9, 5, tzinfo=dt.UTC)
    create = lambda hour: TYPED["DateTime"].objects.create(  # noqa: E731
        a=at_five.replace(hour=hour), b=at_five.replace(hour=23)
    )
    assert refused(lambda: create(5))
    assert not refused(lambda: create(20))


def test_json_null_is_not_sql_null():
    model = TYPED["JSON"]
    model.objects.create(fixed=Value(None, models.JSONField()))
    assert model.objects.get().fixed is None
    assert refused(lambda: model.objects.update(fixed=None))
    assert not refused(lambda: model.objects.update(fixed=Value(None, models.JSONField())))


def test_json_that_postgresql_considers_equal_is_the_same_value():
    model = TYPED["JSON"]
    model.objects.create(fixed={"a": 1, "b": [1.0]})
    assert not refused(lambda: model.objects.update(fixed={"b": [1], "a": 1.0}))
    assert refused(lambda: model.objects.update(fixed={"b": [1], "a": "1"}))


def test_an_empty_range_is_a_value():
    model = TYPED["IntegerRange"]
    model.objects.create(fixed=NumericRange(5, 5))
    assert not refused(lambda: model.objects.update(fixed=NumericRange(7, 7)))
    assert refused(lambda: model.objects.update(fixed=None))


def has_icu():
    with connection.cursor() as cursor:
        cursor.execute("SELECT collisdeterministic FROM pg_collation WHERE collname = 'no_case'")
        return not cursor.fetchone()[0]


def test_a_collation_that_ignores_case_changes_nothing_that_is_stored():
    if not has_icu():
        pytest.skip("this PostgreSQL is built without ICU")
    model = TYPED["NoCase"]
    row = model.objects.create(a="ab", b="c", c="Abc", fixed="x")
    assert [row.c, *stored(row, "c")] == ["ABC", "ABC"]
    model.objects.update(c="abc")
    assert stored(row, "c") == ["ABC"]
    assert refused(lambda: model.objects.update(fixed="X"))
    # The rule is the ORM's, for which they are equal.
    assert refused(lambda: model.objects.update(b="AB"))
    array = TYPED["ArrayOfNoCase"]
    array.objects.create(a=["x"], fixed=["x"])
    array.objects.update(c=["X"])
    assert array.objects.get().c == ["x"]
    assert refused(lambda: array.objects.update(fixed=["X"]))


def test_a_computed_condition_sees_the_collation_of_the_column():
    if not has_icu():
        pytest.skip("this PostgreSQL is built without ICU")
    model = TYPED["NoCase"]
    same = models.Case(models.When(a=F("b"), then=Value("same")), default=Value("other"))
    install(model, bulksafe.Compute("state", same, name="same"))
    with bulksafe.muted("columns.NoCaseColumns:rule", "columns.NoCaseColumns:transition_state"):
        row = model.objects.create(a="x", b="X")
    assert stored(row, "state") == ["same"]


def test_a_column_may_be_computed_from_a_column_with_a_different_collation():
    model = TYPED["NoCase"]
    install(model, bulksafe.Compute("fixed", Lower(Concat("a", Value("É"))), name="mixed"))
    row = model.objects.create(a="Ab", fixed="AB")
    assert stored(row, "fixed")[0][:2] == "ab"


def test_a_foreign_key_is_computed_and_read_by_either_of_its_names():
    model = TYPED["ForeignKey"]
    install(
        model,
        bulksafe.Compute("fixed_id", F("a_id"), name="by_column"),
        bulksafe.Check(Q(b__lte=F("a_id")) & ~Q(a=3), name="by_both"),
    )
    row = model.objects.create(a_id=2, b_id=1)
    assert stored(row, "fixed") == [2]
    assert refused(lambda: model.objects.create(a_id=1, b_id=2))
    assert refused(lambda: model.objects.create(a_id=3, b_id=2))


# More than one column.


def search_vectors_are_right():
    expression = Document._meta.triggers[0].expression
    rows = Document.objects.annotate(expected=expression).values_list("search", "expected")
    return all(found == expected for found, expected in rows)


def test_a_search_vector_is_kept():
    row = Document.objects.create(title="Running dogs", body="Running cats", search="junk")
    assert Document.objects.filter(search="run").exists()
    assert search_vectors_are_right()
    Document.objects.update(body="running")
    assert search_vectors_are_right()
    Document.objects.update(body=None, search=None)
    assert search_vectors_are_right()
    assert stored(row, "search")


def test_generated_columns_and_defaults_of_the_database_are_inputs():
    row = Measure.objects.create(height=3)
    assert (row.width, row.double, *stored(row, "area", "double")) == (2, 12, 6, 12)
    assert refused(lambda: Measure.objects.create(width=11, height=11))
    assert refused(lambda: Measure.objects.update(height=4))
    Measure.objects.update(height=F("width"), width=F("height"), double=0)
    assert stored(row, "area", "double") == [6, 12]
    Measure.objects.create()
    assert Measure.objects.get(height=None).double is None
    check_constraints()
    Measure.objects.create(width=-1, height=1)
    with pytest.raises(bulksafe.InvariantViolation, match="area_positive"), transaction.atomic():
        check_constraints()
    Measure.objects.filter(width=-1).delete()
    check_constraints()


def test_a_composite_primary_key():
    cells = Cell.objects.bulk_create(Cell(sheet=5, place=p, value=n) for n, p in enumerate("ab"))
    assert [cell.triple for cell in cells] == [0, 3]
    for cell in cells:
        cell.value += 1
    Cell.objects.bulk_update(cells, ["value"])
    assert [cell.triple for cell in cells] == [3, 6]
    assert not Cell.objects.exclude(triple=F("value") * 3).exists()
    assert refused(lambda: Cell.objects.filter(place="a").update(place="c"))
    assert refused(lambda: Cell.objects.filter(place="a").update(state="gone"))
    with pytest.raises(bulksafe.InvariantViolation, match="sheet=5, place=a"), transaction.atomic():
        Cell.objects.filter(place="a").update(value=-1)
    Cell.objects.filter(place="a").update(state="locked")
    assert refused(lambda: Cell.objects.filter(place="a").delete())
    check_constraints()
    Cell.objects.filter(place="b").update(value=6)
    with pytest.raises(bulksafe.InvariantViolation, match="place=b"), transaction.atomic():
        check_constraints()
    Cell.objects.filter(place="b").update(sheet=6)
    check_constraints()


def test_a_virtual_generated_column():
    if connection.pg_version < 180000:
        pytest.skip("PostgreSQL 18 brought virtual generated columns")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE columns_measure DROP COLUMN area CASCADE")
        cursor.execute(
            "ALTER TABLE columns_measure ADD area int GENERATED ALWAYS AS (width * height)"
        )
    install(Measure, *(t for t in Measure._meta.triggers if "area" in t.name or "double" in t.name))
    row = Measure.objects.create(width=3, height=4)
    assert stored(row, "area", "double") == [12, 24]
    assert refused(lambda: Measure.objects.create(width=30, height=40))
    assert refused(lambda: Measure.objects.update(width=2))
    assert not refused(lambda: Measure.objects.update(width=4, height=3))
