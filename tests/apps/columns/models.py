"""A model for each type of column, all made alike, and models with names that are hard to quote.

Of the columns of a typed model ``a`` and ``b`` are free, ``c`` is computed from them, ``fixed`` is
immutable, and ``state`` goes from the first of three states to the second to the third.
"""

import datetime as dt
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pgtrigger
from django.contrib.postgres import fields as pg
from django.contrib.postgres.search import SearchVector, SearchVectorField
from django.db import models
from django.db.backends.postgresql.psycopg_any import DateRange, DateTimeTZRange, NumericRange
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Coalesce, Concat, Greatest, JSONObject, Lower, Upper

import bulksafe
import bulksafe.declarations

UTC = dt.UTC


class Target(models.Model):
    """What foreign keys refer to."""

    number = models.IntegerField(unique=True)


A_OR_B = Coalesce("a", "b")


@dataclass(frozen=True)
class Kind:
    """A type of column and what can be said of it.

    Attributes:
        field: makes the field from options like ``null=True``.
        rule: a condition over ``a`` and ``b``.
        compute: an expression over ``a`` and ``b``.
        states: three values, or none where the type has no values that could be keys of a dict.
    """

    field: Callable[..., models.Field]
    states: tuple[Any, ...]
    rule: Q = ~Q(a=F("b"))
    compute: Any = A_OR_B


def _text(field: type[models.Field], **options: Any) -> Kind:
    return Kind(
        lambda **more: field(**options, **more), ("x", "X", "ż'\\"), compute=Lower(Concat("a", "b"))
    )


def _range(field: type[models.Field], make: Callable[[Any, Any], Any], low: Any, high: Any) -> Kind:
    return Kind(
        field,
        (make(low, high), make(None, high), make(low, None)),
        rule=~Q(a__overlap=F("b")) | Q(a__isempty=True),
    )


def _day(number: int) -> dt.datetime:
    return dt.datetime(2024, 2, number, 23, 30, tzinfo=UTC)


def _target(**options: Any) -> models.Field:
    return models.ForeignKey(Target, models.CASCADE, related_name="+", **options)


def _one_target(**options: Any) -> models.Field:
    return models.OneToOneField(Target, models.CASCADE, related_name="+", **options)


def _decimal(**options: Any) -> models.Field:
    return models.DecimalField(max_digits=7, decimal_places=2, **options)


def _array(base: models.Field) -> Callable[..., models.Field]:
    return lambda **options: pg.ArrayField(base.clone(), **options)


KINDS = {
    "SmallInteger": Kind(
        models.SmallIntegerField, (1, -2, 3), Q(a__lte=F("b")), F("a") + F("b") * 2
    ),
    "Integer": Kind(models.IntegerField, (1, -2, 3), Q(a__lte=F("b")), F("a") % 7 - F("b")),
    "BigInteger": Kind(
        models.BigIntegerField, (1, -(2**62), 3), Q(a__lte=F("b") + 1), (F("a") - F("b")) / 2
    ),
    "PositiveSmallInteger": Kind(models.PositiveSmallIntegerField, (0, 1, 2), Q(a__gte=F("b"))),
    "PositiveInteger": Kind(
        models.PositiveIntegerField, (0, 1, 2), Q(a__gte=F("b")), Greatest("a", "b")
    ),
    "PositiveBigInteger": Kind(models.PositiveBigIntegerField, (0, 1, 2), Q(a__range=(1, F("b")))),
    "Decimal": Kind(
        _decimal,
        (Decimal("0.10"), Decimal("-1.5"), Decimal(3)),
        Q(a__lte=F("b") * Decimal("1.1")),
        F("a") * F("b") / 3,
    ),
    "Float": Kind(
        models.FloatField, (0.1, float("inf"), float("nan")), Q(a__lte=F("b")), F("a") - F("b")
    ),
    "Boolean": Kind(
        models.BooleanField,
        (True, False, None),
        Q(a=True) | Q(b=True),
        Case(When(a=True, b=True, then=True), When(Q(a=False) | Q(b=False), then=False)),
    ),
    "Char": _text(models.CharField, max_length=10),
    "Text": _text(models.TextField),
    "Slug": _text(models.SlugField),
    "URL": _text(models.URLField),
    "Email": _text(models.EmailField),
    # Django stores the empty string for None.
    "File": Kind(
        lambda **options: models.FileField(upload_to="files", **options),
        ("", "x", "X"),
        ~Q(a=F("b")) | Q(a=""),
        Lower(Concat("a", "b")),
    ),
    "FilePath": _text(models.FilePathField),
    "UUID": Kind(models.UUIDField, tuple(uuid.UUID(int=n) for n in (1, 2, 3))),
    "IPAddress": Kind(
        models.GenericIPAddressField, ("10.0.0.1", "::1", "10.0.0.2"), Q(a__lte=F("b"))
    ),
    "Binary": Kind(models.BinaryField, (b"", b"\\ ' \x00\xff", b"%s")),
    "Date": Kind(
        models.DateField,
        tuple(dt.date(2024, 2, n) for n in (27, 28, 29)),
        Q(a__lte=F("b")) & ~Q(a__week_day=1),
        Greatest("a", "b"),
    ),
    "DateTime": Kind(
        models.DateTimeField,
        (_day(27), _day(28), _day(29)),
        Q(a__lte=F("b")) & ~Q(a__hour=5),
        F("a") + Value(dt.timedelta(days=1, hours=2)),
    ),
    "Time": Kind(models.TimeField, (dt.time(1), dt.time(2, 3, 4, 5), dt.time(0)), Q(a__lt=F("b"))),
    "Duration": Kind(
        models.DurationField,
        tuple(dt.timedelta(days=n, seconds=-n, microseconds=n) for n in (1, -2, 0)),
        Q(a__lt=F("b") + Value(dt.timedelta(hours=-1))),
        F("a") - F("b"),
    ),
    "JSON": Kind(
        models.JSONField,
        ("draft", 1.5, "a' \\ %s {x} $body$"),
        Q(a__n__gte=F("b__n")) | Q(a__has_key="free"),
        JSONObject(both=JSONObject(a="a"), b="b"),
    ),
    "ArrayOfChar": Kind(
        _array(models.CharField(max_length=5)),
        (("a", "b'\\"), (), ("{", ",", '"', "NULL")),
        ~Q(a__overlap=F("b")) | Q(a__len=0),
    ),
    "ArrayOfDecimal": Kind(
        _array(models.DecimalField(max_digits=5, decimal_places=2)),
        ((Decimal("1.10"),), (), (Decimal(-2), Decimal("0.01"))),
        ~Q(a__contains=F("b")),
    ),
    "ArrayOfArray": Kind(
        _array(pg.ArrayField(models.IntegerField())),
        (((1, 2), (3, 4)), (), ((5,),)),
        ~Q(a__0__0=F("b__0__0")),
    ),
    "ArrayOfNoCase": Kind(
        _array(models.CharField(max_length=5, db_collation="no_case")), (("a",), ("A",), ("b",))
    ),
    "HStore": Kind(
        pg.HStoreField,
        (),
        ~Q(a__k=F("b__k")) | Q(a__has_key="free"),
    ),
    "NoCase": Kind(
        lambda **options: models.CharField(max_length=10, db_collation="no_case", **options),
        ("x", "X", "y"),
        compute=Upper(Concat("a", "b")),
    ),
    "IntegerRange": _range(pg.IntegerRangeField, NumericRange, 1, 5),
    "BigIntegerRange": _range(pg.BigIntegerRangeField, NumericRange, 1, 5),
    "DecimalRange": _range(pg.DecimalRangeField, NumericRange, Decimal("1.5"), Decimal(2)),
    "DateRange": _range(pg.DateRangeField, DateRange, dt.date(2024, 2, 28), dt.date(2024, 3, 1)),
    "DateTimeRange": _range(pg.DateTimeRangeField, DateTimeTZRange, _day(1), _day(2)),
    "ForeignKey": Kind(_target, (1, 2, 3)),
    "OneToOne": Kind(_one_target, (1, 2, 3)),
}


def _typed(name: str, kind: Kind) -> type[models.Model]:
    triggers: list[bulksafe.declarations.Invariant] = [
        bulksafe.Check(kind.rule, name="rule"),
        bulksafe.Compute("c", kind.compute),
        bulksafe.Immutable("fixed"),
    ]
    if kind.states:
        first, second, third = kind.states
        allowed = {first: [second], second: [third]}
        triggers.append(bulksafe.Transition("state", allowed, initial=[first, None]))
    fields = {column: kind.field(null=True, blank=True) for column in ("a", "b", "fixed", "state")}
    computed = kind.field(null=True, editable=False)
    meta = type("Meta", (), {"triggers": triggers})
    return type(
        f"{name}Columns",
        (models.Model,),
        {"__module__": __name__, **fields, "c": computed, "Meta": meta},
    )


TYPED = {name: _typed(name, kind) for name, kind in KINDS.items()}


class Document(models.Model):
    """Full-text search: the vector is computed, as a trigger of one's own would do it."""

    title = models.CharField(max_length=50)
    body = models.TextField(null=True)
    search = SearchVectorField(null=True, editable=False)

    class Meta:
        triggers = [
            bulksafe.Compute(
                "search",
                SearchVector("title", weight="A", config="english")
                + SearchVector("body", weight="B", config="simple"),
            )
        ]


class Measure(models.Model):
    """Generated columns as inputs, and defaults of the database."""

    width = models.IntegerField(db_default=2)
    height = models.IntegerField(null=True)
    area = models.GeneratedField(
        expression=F("width") * F("height"),
        output_field=models.IntegerField(),
        db_persist=True,
    )
    double = models.IntegerField(null=True, editable=False, db_default=-1)

    class Meta:
        triggers = [
            bulksafe.Compute("double", F("area") * 2),
            bulksafe.Check(Q(area__lte=100), name="area_at_most_100"),
            bulksafe.Check(Q(area__gt=0), name="area_positive", deferred=True),
            bulksafe.Immutable("area"),
        ]


class Cell(models.Model):
    """A composite primary key."""

    pk = models.CompositePrimaryKey("sheet", "place")
    sheet = models.IntegerField()
    place = models.CharField(max_length=20)
    value = models.IntegerField(default=0)
    triple = models.IntegerField(editable=False, default=0)
    state = models.CharField(max_length=10, default="open")

    class Meta:
        triggers = [
            bulksafe.Compute("triple", F("value") * 3),
            bulksafe.Check(Q(value__gte=0), name="value_positive"),
            bulksafe.Check(Q(value__lte=F("sheet")), name="value_in_sheet", deferred=True),
            bulksafe.Check(
                ~Q(state="locked"),
                name="locked_stays",
                operation=pgtrigger.Delete,
                message="Locked.",
            ),
            bulksafe.Immutable("place"),
            bulksafe.Transition("state", {"open": ["locked"], "locked": ["open"]}),
        ]


#: Everything that SQL, format(), psql and the templates could take for something of their own.
HOSTILE = (
    "' \" \\ {x} {0} % %s %(a)s %1$s %% $bulksafe$ $body$ $ddl$ $query$ :'x' :\"x\" :x\n\t-- ż /*"
)


class NamedLikeSQL(models.Model):
    """Fields with the names of all that the templates use, or that SQL reserves."""

    new = models.IntegerField(default=0)
    old = models.IntegerField(default=0)
    row = models.IntegerField(default=0)
    tg_op = models.IntegerField(default=0)
    subject = models.CharField(primary_key=True, max_length=30)
    target = models.IntegerField(default=0)
    broken = models.IntegerField(default=0, editable=False)
    select = models.IntegerField(default=0, db_column="select")
    home = models.IntegerField(default=0)
    path = models.IntegerField(default=0)
    user = models.IntegerField(default=0)

    class Meta:
        db_table = "table"
        triggers = [
            bulksafe.Check(Q(new__lte=F("old"), old__gte=0), name="new_up_to_old"),
            bulksafe.Check(Q(new__new__gte=F("old__new")), name="new_never_falls"),
            bulksafe.Check(Q(old__gte=F("row")), name="row_up_to_old", deferred=True),
            bulksafe.Check(~Q(old=99), name="keep_99", operation=pgtrigger.Delete),
            bulksafe.Compute(
                "broken",
                F("new")
                + F("old")
                + F("row")
                + F("tg_op")
                + F("target")
                + F("select")
                + F("home")
                + F("path")
                + F("user"),
            ),
            bulksafe.Immutable("tg_op", "subject", "user"),
            bulksafe.Transition("target", {0: [1]}, name="target"),
        ]


class OddlyNamed(models.Model):
    """Names that only work in quotes."""

    id = models.AutoField(primary_key=True, db_column="Primary Kéy")
    amount = models.IntegerField(default=0, db_column="Amount in € :'x'")
    limit = models.IntegerField(default=10, db_column="body '; SELECT 1; --")
    half = models.IntegerField(default=0, db_column="x" * 63, editable=False)
    kind = models.CharField(max_length=200, null=True, db_column="żółć")

    class Meta:
        db_table = "Odd Täble: 'x' -- ; {}"
        triggers = [
            bulksafe.Check(Q(amount__lte=F("limit")), name="Within-Limit", message=HOSTILE),
            bulksafe.Check(Q(amount__gte=0), name="at_commit", message=HOSTILE, deferred=True),
            bulksafe.Check(
                ~Q(kind=HOSTILE), name="kept", message=HOSTILE, operation=pgtrigger.Delete
            ),
            bulksafe.Compute("half", F("amount") / 2 + F("limit") * 0),
            bulksafe.Transition("kind", {None: [HOSTILE], HOSTILE: ["'"]}),
            bulksafe.Immutable("limit"),
        ]


class LongestName(models.Model):
    """A table whose name has 63 bytes and fewer characters."""

    number = models.IntegerField(default=0)

    class Meta:
        db_table = "ż" * 31 + "x"
        triggers = [bulksafe.Check(Q(number__gte=0), name="n" * 47)]


class InSchema(models.Model):
    """A table outside the search_path, as projects without a router of schemas name it."""

    number = models.IntegerField(default=0)
    double = models.IntegerField(default=0, editable=False)

    class Meta:
        db_table = '"Side Schéma"."in schema"'
        triggers = [
            bulksafe.Check(Q(number__gte=0), name="number_positive"),
            bulksafe.Check(Q(number__lte=10), name="number_small", deferred=True),
            bulksafe.Check(~Q(number=9), name="keep_nine", operation=pgtrigger.Delete),
            bulksafe.Compute("double", F("number") * 2),
        ]


class Nullable(models.Model):
    """A small table of unknowns, over which the tests make conditions at random."""

    n = models.IntegerField(null=True)
    m = models.IntegerField(null=True)
    t = models.CharField(max_length=5, null=True)
    flag = models.BooleanField(null=True)
    day = models.DateField(null=True)
    data = models.JSONField(null=True)


class Wide(models.Model):
    """Text of any length, without invariants of its own."""

    t = models.TextField(null=True)
    u = models.TextField(null=True, editable=False)
    n = models.IntegerField(default=0)


class Guarded(models.Model):
    """What the tests of muting and of hostile surroundings write to."""

    label = models.CharField(max_length=20, default="")
    amount = models.IntegerField(default=0)
    limit = models.IntegerField(default=10)
    lower = models.CharField(max_length=20, default="", editable=False)
    state = models.CharField(max_length=10, default="draft")
    data = models.JSONField(default=dict)

    class Meta:
        triggers = [
            bulksafe.Check(
                Q(amount__lte=F("limit") - 1)
                & ~Q(data__broken=True)
                & ~Q(label__istartswith="bad"),
                name="amount_below_limit",
                message="Too much.",
            ),
            bulksafe.Check(Q(amount__gte=0), name="amount_positive", deferred=True),
            bulksafe.Check(~Q(state="kept"), name="kept_stays", operation=pgtrigger.Delete),
            bulksafe.Compute("lower", Lower(Concat("label", Value("-"), "state"))),
            bulksafe.Immutable("label"),
            bulksafe.Transition("state", {"draft": ["paid", "kept"]}, initial=["draft", "kept"]),
        ]
