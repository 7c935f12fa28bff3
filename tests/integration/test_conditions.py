"""Conditions, functions and lookups: a row is taken unless the ORM finds the condition false."""

import datetime as dt

import pgtrigger
import pytest
from django.contrib.postgres.search import SearchQuery, SearchVector
from django.db.models import Case, F, IntegerField, Q, TextField, Value, When
from django.db.models.fields.json import KT
from django.db.models.functions import (
    Cast,
    Coalesce,
    Concat,
    ExtractYear,
    Greatest,
    Length,
    Lower,
    Mod,
    NullIf,
    Replace,
    Round,
    StrIndex,
    Substr,
    Trim,
    TruncMonth,
)
from hypothesis import given, reject
from hypothesis import strategies as st

import bulksafe
from bulksafe.planning import problems_of
from tests.apps.columns.models import Guarded, Nullable
from tests.apps.columns.trying import accepted, examples, install, refused, undone

pytestmark = pytest.mark.django_db

NUMBERS, TEXTS = (None, -1, 0, 2), (None, "", "a", "A%", "b\\_'")
DAYS = (None, dt.date(2024, 2, 29), dt.date(2023, 12, 31))
DATA = (None, {}, {"k": 1}, {"k": None, "t": "a"}, {"k": {"n": [1, 2]}}, [1])


def rows():
    """Some rows with each of the values, and unknowns beside them."""
    return [
        Nullable(
            n=NUMBERS[i % 4],
            m=NUMBERS[i // 4 % 4],
            t=TEXTS[i % 5],
            flag=(None, True, False)[i % 3],
            day=DAYS[i // 3 % 3],
            data=DATA[i % 6],
        )
        for i in range(60)
    ]


def agree(condition, **annotations):
    """Assert that an update of each row is refused just where the ORM finds the condition false."""
    Nullable.objects.bulk_create(rows())
    expected = accepted(Nullable.objects, condition, **annotations)
    install(Nullable, bulksafe.Check(condition, name="drawn", **annotations))
    keys = set(Nullable.objects.values_list("pk", flat=True))
    Nullable.objects.filter(pk__in=expected).update(n=F("n"))
    for pk in keys - expected:
        assert refused(lambda pk=pk: Nullable.objects.filter(pk=pk).update(n=F("n"))), pk
    return len(expected), len(keys - expected)


def comparisons(name, values):
    value = st.sampled_from([v for v in values if v is not None])
    lookups = st.sampled_from(["exact", "lt", "lte", "gt", "gte"])
    return st.builds(lambda lookup, v: Q(**{f"{name}__{lookup}": v}), lookups, value)


LEAVES = st.one_of(
    comparisons("n", NUMBERS),
    comparisons("t", TEXTS),
    comparisons("day", DAYS),
    st.sampled_from(
        [
            Q(n__lt=F("m")),
            Q(n=F("m") + 1),
            Q(flag=True),
            Q(flag=False),
            Q(n__isnull=True),
            Q(t__isnull=False),
            Q(n__in=[0, 2]),
            Q(n__in=[]),
            Q(n__in=[None, 2]),
            Q(n__in=[F("m"), 0]),
            Q(m__range=(-1, 0)),
            Q(t__startswith="a"),
            Q(t__icontains="A"),
            Q(t__contains="%"),
            Q(t__endswith="_'"),
            Q(t__regex=r"^[a-z]\\?"),
            Q(t=""),
            Q(data__k=1),
            Q(data__k__isnull=True),
            Q(data__k=None),
            Q(data__has_key="k"),
            Q(data__contains={"k": 1}),
            Q(data__k__n__0=1),
            Q(day__year=2024),
            Q(day__month__gte=3),
            Q(day__week_day=1),
            Q(t__iexact="a%"),
            Q(n__gte=F("m") * F("n") - 1),
        ]
    ),
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(lambda q: ~q),
        st.tuples(inner, inner).map(lambda pair: pair[0] & pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] ^ pair[1]),
    ),
    max_leaves=6,
)


@examples(40)
@given(CONDITIONS)
@undone
def test_any_condition_means_what_it_means_in_a_query(condition):
    if "E042" in [p.id for p in problems_of(bulksafe.Check(condition, name="drawn"), Nullable)]:
        # An empty drawn list removes the other conditions.
        assert "('n__in', [])" in repr(condition)
        reject()
    agree(condition)


FUNCTIONS = {
    "coalesce": Coalesce("n", "m", 0),
    "case": Case(When(flag=True, then="n"), When(flag=False, then="m"), default=0),
    "cast": Cast(Cast("n", TextField()), IntegerField()),
    "length": Length(Lower(Trim(Concat("t", Value(" %s %% ' "))))) - 9,
    "extract": ExtractYear("day") - 2023,
    "month": ExtractYear(TruncMonth("day")) - 2024,
    "round": Round(F("n") / 3.0) + 0,
    "greatest": Greatest("n", "m"),
    "nullif": NullIf("n", "m"),
    "mod": Mod("n", 2),
    "replace": Length(Replace("t", Value("a"), Value("{}"))) - 1,
    "substr": StrIndex(Substr("t", 1, 2), Value("%")),
    "key": Length(KT("data__t")),
    "bits": F("n").bitand(2),
    "power": F("n") ** 2 - 1,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_mean_what_they_mean_in_a_query(name):
    agree(Q(x__gt=0), x=FUNCTIONS[name])


def test_the_conditions_distinguish_rows():
    """Or the tests above would compare nothing with nothing."""
    fine, refused_ones = agree(Q(n__lt=F("m")) | Q(t="a"))
    assert fine > 5
    assert refused_ones > 5


# pgtrigger's own words.


def change(**values):
    return lambda: Nullable.objects.update(**values)


def test_old_and_new_rows_and_changes():
    Nullable.objects.create(n=1, m=None)
    install(
        Nullable,
        bulksafe.Check(Q(new__n__gte=F("old__n")), name="grows"),
        bulksafe.Check(pgtrigger.Q(new__m__ndf=pgtrigger.F("old__m")) | Q(n=9), name="m_stays"),
        bulksafe.Check(pgtrigger.Q(old__t__ndf=pgtrigger.F("new__t")) | Q(n=9), name="t_stays"),
    )
    assert refused(change(n=0))
    assert refused(change(m=1))
    assert refused(change(t=""))
    assert not refused(change(n=None))
    assert not refused(change(n=9, m=1, t="x"))
    assert not refused(change(n=9, m=None, t=None))


def test_a_rule_for_changed_rows_only():
    Nullable.objects.create(n=None)
    unless_changed = pgtrigger.Q(old__m__ndf=pgtrigger.F("new__m"))
    install(Nullable, bulksafe.Check(unless_changed | Q(n__isnull=False), name="n_with_m"))
    assert refused(change(m=1))
    assert not refused(change(t="x"))
    assert not refused(change(n=0, m=1))
    assert not refused(change(n=None))
    assert refused(change(m=None))


def test_annotations_may_use_each_other():
    install(
        Nullable,
        bulksafe.Check(
            Q(both__lte=F("limit")),
            name="sum",
            total=F("n") + F("m"),
            limit=Value(3),
            both=F("total"),
        ),
    )
    assert not refused(lambda: Nullable.objects.create(n=1, m=2))
    assert refused(lambda: Nullable.objects.create(n=2, m=2))
    assert not refused(lambda: Nullable.objects.create(n=2))


def test_a_search_vector_without_a_configuration_depends_on_the_session():
    """default_text_search_config may differ between clients."""
    with pytest.raises(bulksafe.exceptions.InvalidDeclaration, match="config="):
        bulksafe.Check(Q(words="a"), name="words", words=SearchVector("t")).compile(Nullable)
    bulksafe.Check(Q(words="a"), name="words", words=SearchVector("t", config="simple"))


def test_full_text_search_with_a_configuration():
    vector = SearchVector("label", config="english")
    query = SearchQuery("running", config="english")
    install(Guarded, bulksafe.Check(~Q(words=query), name="words", words=vector))
    assert refused(lambda: Guarded.objects.create(label="he runs"))
    assert not refused(lambda: Guarded.objects.create(label="he walks"))
