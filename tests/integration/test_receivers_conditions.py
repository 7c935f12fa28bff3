"""``when``: which changes reach a receiver. The ORM decides, over a table with both rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import DatabaseError, ProgrammingError, connection, transaction
from django.db.models import Case, F, Func, Q, TextField, Value, When
from django.db.models.lookups import Exact
from django.db.models.signals import post_delete, post_save
from hypothesis import given
from hypothesis import strategies as st

import bulksafe
from bulksafe import testing
from bulksafe.declarations import receivers
from tests.apps.columns.models import KINDS, TYPED, Nullable, Wide
from tests.apps.columns.trying import examples, undone
from tests.apps.twins.models import Paper, Report
from tests.integration import reception
from tests.integration.test_column_types import attributes, targets  # noqa: F401
from tests.integration.test_column_types import pairs as pairs_of
from tests.integration.test_conditions import rows
from tests.unit.declaring import declare, isolated, tables

pytestmark = pytest.mark.django_db

SIGNALS = [post_save, post_delete]
COLUMNS = ("n", "m", "t", "flag", "day", "data")


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with reception.only_these():
        yield


def execute(text, params=None):
    with connection.cursor() as cursor:
        cursor.execute(text, params)
        return cursor.fetchall() if cursor.description else []


# Any condition.


@dataclass(frozen=True)
class Leaf:
    """A test of one row, perhaps against a column of the same or of the other row.

    Attributes:
        make: the test, from the prefixes of the two rows' columns.
        this, other: ``"old"`` or ``"new"``.
    """

    make: Callable[[str, str], Q]
    this: str
    other: str

    def over(self, prefixes: Mapping[str, str | None]) -> Q:
        """The test over columns with these prefixes; false where a row is missing."""
        this, other = prefixes[self.this], prefixes[self.other]
        if this is None or other is None:
            return Q(pk__in=[])
        return self.make(this, other)


@dataclass(frozen=True)
class Combined:
    join: Callable[..., Q]
    parts: tuple[Any, ...]

    def over(self, prefixes: Mapping[str, str | None]) -> Q:
        return self.join(*(part.over(prefixes) for part in self.parts))


def _test(lookup: str, value: Any) -> Callable[[str, str], Q]:
    return lambda this, other: Q(**{f"{this}{lookup}": value})


def _against(lookup: str, name: str, plus: int = 0) -> Callable[[str, str], Q]:
    return lambda this, other: Q(**{f"{this}{lookup}": F(f"{other}{name}") + plus})


OF_ONE_ROW = [
    _test("n", 2),
    _test("n__lt", 0),
    _test("n__isnull", True),
    _test("n__in", [0, 2]),
    _test("t", "a"),
    _test("t__startswith", "A"),
    _test("t__contains", "%"),
    _test("t", "b\\_'"),
    _test("flag", True),
    _test("flag", False),
    _test("day__year", 2024),
    _test("data__k", 1),
    _test("data__has_key", "t"),
    _test("data__isnull", False),
]
OF_TWO_ROWS = [
    _against("n", "n"),
    _against("n__gt", "m"),
    _against("m__lte", "n", 1),
    lambda this, other: Q(**{f"{this}t": F(f"{other}t")}),
    lambda this, other: Q(**{f"{this}n__in": [F(f"{other}m"), 0]}),
]
ROWS = st.sampled_from(["old", "new"])
LEAVES = st.one_of(
    st.builds(lambda make, row: Leaf(make, row, row), st.sampled_from(OF_ONE_ROW), ROWS),
    st.builds(Leaf, st.sampled_from(OF_TWO_ROWS), ROWS, ROWS),
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(lambda part: Combined(lambda q: ~q, (part,))),
        st.tuples(inner, inner).map(lambda pair: Combined(lambda a, b: a & b, pair)),
        st.tuples(inner, inner).map(lambda pair: Combined(lambda a, b: a | b, pair)),
        st.tuples(inner, inner).map(lambda pair: Combined(lambda a, b: a ^ b, pair)),
    ),
    max_leaves=6,
)


@pytest.fixture
def pairs(db):
    """A table whose rows are the rows of ``Nullable`` before an update and after it."""
    columns = {
        f"{prefix}{name}": Nullable._meta.get_field(name).clone()
        for prefix in ("b_", "a_")
        for name in COLUMNS
    }
    with isolated(), tables(model := declare(class_name="Pair", **columns)):
        before, after = rows(), rows()[7:] + rows()[:7]
        model.objects.bulk_create(
            model(
                pk=number,
                **{f"b_{name}": getattr(one, name) for name in COLUMNS},
                **{f"a_{name}": getattr(other, name) for name in COLUMNS},
            )
            for number, (one, other) in enumerate(zip(before, after, strict=True), start=1)
        )
        yield model


INSERT = f"""
    INSERT INTO columns_nullable (id, {", ".join(COLUMNS)})
    SELECT id, {", ".join(f"b_{name}" for name in COLUMNS)} FROM unit_pair
"""
UPDATE = f"""
    UPDATE columns_nullable AS n SET {", ".join(f"{name} = p.a_{name}" for name in COLUMNS)}
    FROM unit_pair AS p WHERE n.id = p.id
"""
DELETE = "DELETE FROM columns_nullable"

#: Each statement with the columns of the pairs that its old and its new row have.
STATEMENTS = {
    INSERT: {"old": None, "new": "b_"},
    UPDATE: {"old": "b_", "new": "a_"},
    DELETE: {"old": "a_", "new": None},
}


def captured_events():
    return execute("SELECT count(*) FROM bulksafe_outbox WHERE xid = pg_current_xact_id()")[0][0]


def test_any_condition(pairs):
    """Rows that match reach the receiver, and the capture keeps no others."""

    @examples(60)
    @given(CONDITIONS)
    @undone
    def agree(condition):
        with reception.only_these():
            when = condition.over({"old": "old__", "new": "new__"})
            calls = reception.listen(SIGNALS, Nullable, when=when)
            for statement, prefixes in STATEMENTS.items():
                expected = set(pairs.objects.filter(condition.over(prefixes)).values_list("pk"))
                before = captured_events()
                execute(statement)
                reached = [(call["instance"].pk,) for call in calls.delivered()]
                assert set(reached) == expected
                assert len(reached) == captured_events() - before == len(expected)

    agree()


@pytest.mark.parametrize(
    "name",
    TYPED,
)
def test_a_condition_over_every_type_of_column(name):
    model, rule = TYPED[name], KINDS[name].rule
    calls = reception.listen(post_save, model, when=rule)

    @examples(10)
    @given(pairs_of(name))
    @undone
    def agree(pair):
        with bulksafe.muted(f"{model._meta.label}:rule"):
            model.objects.bulk_create([model(**attributes(model, a=pair[0], b=pair[1]))])
            execute(f"UPDATE {model._meta.db_table} SET id = id")
        expected = set(model.objects.filter(rule).values_list("pk", flat=True))
        reached = [call["instance"].pk for call in calls.delivered()]
        assert reached == [*expected, *expected]

    agree()


# Missing rows and unknown values.


PAID = Q(new__n=2) & ~Q(old__n=2)


def reached(calls):
    return [(call["signal"], call["instance"].n) for call in calls.delivered()]


def test_a_row_inserted_in_the_state_counts_as_entering_it():
    calls = reception.listen(SIGNALS, Nullable, when=PAID)
    Nullable.objects.bulk_create([Nullable(n=2), Nullable(n=1), Nullable()])
    assert reached(calls) == [(post_save, 2)]
    Nullable.objects.update(n=2)
    assert reached(calls) == [(post_save, 2)] * 2
    Nullable.objects.update(n=2)
    Nullable.objects.all().delete()
    assert reached(calls) == []


def test_of_a_deleted_row_there_is_no_new_one():
    only_old = reception.declare(post_delete, Nullable, "old", when=Q(old__n=2) & ~Q(new__n=2))
    bare = reception.declare(post_delete, Nullable, "bare", when=Q(n=2))
    new = reception.declare(post_delete, Nullable, "new", when=Q(new__n__isnull=True) | Q(n=1))
    reception.capture(Nullable)
    Nullable.objects.bulk_create([Nullable(n=2), Nullable(n=1), Nullable(n=None)])
    Nullable.objects.all()._raw_delete("default")
    testing.deliver()

    assert [[call["instance"].n for call in calls] for calls in (only_old, bare, new)] == [
        [2],
        [2],
        [1],
    ]


def test_receivers_with_conditions_of_their_own_share_a_capture():
    conditions = [Q(n=1), Q(n=2), ~Q(n=1), Q(n=1)]
    received = [
        reception.declare(SIGNALS, Nullable, f"r{number}", when=when)
        for number, when in enumerate(conditions)
    ]
    reception.capture(Nullable)
    Nullable.objects.bulk_create([Nullable(n=1), Nullable(n=2), Nullable(n=None), Nullable(n=0)])
    testing.deliver()

    assert [[call["instance"].n for call in calls] for calls in received] == [
        [1],
        [2],
        [2, None, 0],
        [1],
    ]


def test_an_unconditional_receiver_gets_every_change_and_others_their_condition_s():
    every = reception.declare(post_save, Nullable, "every")
    some = reception.declare(post_save, Nullable, "some", when=Q(n__gte=2))
    reception.capture(Nullable)
    Nullable.objects.bulk_create([Nullable(n=1), Nullable(n=2)])
    testing.deliver()

    assert [call["instance"].n for call in every] == [1, 2]
    assert [call["instance"].n for call in some] == [2]


@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside an unconditional one"])
def test_a_condition_changes_while_events_wait(others):
    """The new code decides; it does not have the condition under which they were captured."""

    def declared(when):
        receivers.receivers.clear()
        if others:
            reception.declare(post_save, Nullable, "other")
        return reception.declare(post_save, Nullable, when=when)

    declared(Q(n__gte=1))
    reception.capture(Nullable)
    Nullable.objects.bulk_create([Nullable(n=n) for n in (0, 1, 2)])
    Nullable.objects.update(n=F("n") + 1)
    calls = declared(Q(new__n__gte=2) & ~Q(old__n=2))

    assert [call["instance"].n for call in calls.delivered()] == [2, 2]


def test_a_condition_is_added_while_events_wait():
    declared = reception.declare(post_save, Nullable)
    reception.capture(Nullable)
    Nullable.objects.bulk_create([Nullable(n=n) for n in (0, 1, 2)])
    receivers.receivers.clear()
    calls = reception.declare(post_save, Nullable, when=Q(n=1))

    assert [call["instance"].n for call in calls.delivered()] == [1]
    assert declared == []


def test_a_condition_is_removed_while_events_wait():
    """What the trigger did not keep is gone; what it kept reaches the receiver."""
    reception.declare(post_save, Nullable, when=Q(n=1))
    reception.capture(Nullable)
    Nullable.objects.bulk_create([Nullable(n=n) for n in (0, 1, 2)])
    receivers.receivers.clear()
    calls = reception.declare(post_save, Nullable)

    assert [call["instance"].n for call in calls.delivered()] == [1]


def test_a_condition_changes_while_an_unconditional_receiver_keeps_the_events():
    """A receiver without one has kept the event."""
    reception.declare(post_save, Nullable, "other")
    reception.declare(post_save, Nullable, when=Q(n__gte=1))
    reception.capture(Nullable)
    Nullable.objects.bulk_create([Nullable(n=n) for n in (0, 1)])
    receivers.receivers.clear()
    reception.declare(post_save, Nullable, "other")
    calls = reception.declare(post_save, Nullable, when=Q(n=0))

    assert [call["instance"].n for call in calls.delivered()] == [0]


# The installing session fixes the meaning of a condition.


def capture_functions():
    return execute(
        "SELECT prosrc FROM pg_proc WHERE proname LIKE '%bulksafe\\_capture%' AND prosecdef"
        " AND prosrc LIKE '%OPERATOR(%'"
    )


def test_operators_of_other_schemas_are_named_in_full_and_nothing_is_left_behind():
    reception.listen(post_save, TYPED["HStore"], when=Q(a__k="x") & Q(state=None))
    (insert, update) = capture_functions()
    for (source,) in (insert, update):
        assert "OPERATOR(public.->)" in source
    assert execute("SELECT FROM pg_proc WHERE proname = 'bulksafe_condition'") == []
    assert execute("SHOW search_path") == [('"$user", public',)]


def test_an_operator_of_another_role_is_not_used():
    """It compares the very type of the column, for which PostgreSQL prefers it."""
    execute("CREATE ROLE mallory; GRANT CREATE ON SCHEMA public TO mallory; SET LOCAL ROLE mallory")
    execute(
        """
        CREATE FUNCTION public.eq(varchar, varchar) RETURNS boolean LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'hijacked'; END $$;
        CREATE OPERATOR public.= (FUNCTION = public.eq, LEFTARG = varchar, RIGHTARG = varchar)
        """
    )
    execute("RESET ROLE")
    with pytest.raises(ProgrammingError, match="belongs to mallory"), transaction.atomic():
        reception.listen(post_save, TYPED["NoCase"], when=Q(a=F("b")))

    # In a table whose types all are PostgreSQL's own it is not found.
    calls = reception.listen(post_save, Nullable, when=Q(t=F("t")), name="other")
    execute("INSERT INTO columns_nullable (t) VALUES ('x')")
    assert [call["instance"].t for call in calls.delivered()] == ["x"]


def test_functions_of_a_schema_that_the_settings_trust(settings):
    execute("CREATE SCHEMA trusted")
    execute(
        "CREATE FUNCTION trusted.twice(text) RETURNS text IMMUTABLE LANGUAGE sql RETURN $1 || $1"
    )
    twice = Func("t", function="twice", output_field=TextField())
    when = Exact(twice, Value("xx"))
    with pytest.raises(ProgrammingError, match="twice"), transaction.atomic():
        reception.listen(post_save, Nullable, when=when)

    settings.BULKSAFE = {"SEARCH_PATH": ["trusted"]}
    calls = reception.listen(post_save, Nullable, when=when)
    Nullable.objects.bulk_create([Nullable(t="x"), Nullable(t="y"), Nullable()])
    assert [call["instance"].t for call in calls.delivered()] == ["x"]


HARD = "%1$s %s ' \\ $body$ :x :'x'"


@pytest.mark.parametrize(
    "condition",
    [
        Q(t__in=["a) AS met\n   FROM x", " AS met"]),
        Q(t=HARD),
        Q(t__startswith="%1$s"),
        Q(t__in=["(new).t = ''(old).t", "\\(new)."]),
        Exact(Case(When(n__gt=1, then=Value("%")), default=Value("(")), Value("%")),
        ~Q(t="y") | Q(n__in=[2, 3]),
    ],
)
def test_conditions_with_anything_in_them_survive(condition):
    calls = reception.listen(SIGNALS, Wide, when=condition)
    rows = [
        Wide(t=" AS met"),
        Wide(t="(new).t = ''(old).t"),
        Wide(t="\\(new)."),
        Wide(t=HARD),
        Wide(t="y", n=2),
        Wide(t="y"),
        Wide(),
    ]
    Wide.objects.bulk_create(rows)
    expected = set(Wide.objects.filter(condition).values_list("pk", flat=True))
    assert {call["instance"].pk for call in calls.delivered()} == expected
    assert 0 < len(expected) < len(rows)


def test_a_child_s_condition_is_evaluated_for_writes_to_its_parent():
    """The trigger of the parent's table captures them all; the dispatcher asks."""
    calls = reception.declare(post_save, Report, when=Q(new__amount__gt=100))
    reception.capture(Report, Paper)
    Report.objects.create(key=1, title="a", amount=150)
    Report.objects.create(key=2, title="a")
    calls.delivered()

    Paper.objects.update(title="b")

    assert [(call["instance"].key, call["instance"].title) for call in calls.delivered()] == [
        (1, "b")
    ]


def test_a_type_of_an_extension_compares_as_the_extension_says():
    class CITextField(TextField):
        def db_type(self, connection):
            return "citext"

    try:
        with transaction.atomic():
            execute("CREATE EXTENSION IF NOT EXISTS citext")
    except DatabaseError as error:
        pytest.skip(f"this PostgreSQL has no citext: {error}")
    with isolated(), tables(model := declare(class_name="Named", name=CITextField())):
        calls = reception.listen(SIGNALS, model, when=Q(name="ann"))
        model.objects.bulk_create([model(name="Ann"), model(name="Ben")])
        model.objects.update(name="ANN")
        model.objects.all().delete()

        assert [call["instance"].name for call in calls.delivered()] == [
            *("Ann", "ANN", "ANN"),
            *("ANN", "ANN"),
        ]
