"""The checks of expressions: names, lookups, types, volatile functions and time zones."""

import datetime  # noqa: F401  (for the examples in the docs)

from django.contrib.auth.models import Group
from django.contrib.postgres.functions import RandomUUID, TransactionNow
from django.db import models
from django.db.models import (
    Avg,
    Case,
    Count,
    Exists,
    F,
    Func,
    OuterRef,
    Q,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)
from django.db.models.expressions import ExpressionWrapper, RawSQL
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import (
    Cast,
    Coalesce,
    Concat,
    JSONObject,
    Lower,
    Now,
    Random,
    TruncDate,
)
from django.db.models.lookups import Exact

from bulksafe import Compute, Immutable, Transition, planning
from tests.unit.declaring import declare, findings, ids
from tests.unit.reporting import (
    Plain,
    User,
    _isolated,  # noqa: F401
    check,
    kinds,
    order_with,
    reported,
    says,
)


@kinds(
    in_a_lookup=(check(Q(amont__gte=0)), "has no field “amont”", "Did you mean 'amount'?"),
    in_an_f=(check(Q(amount__gte=F("discont"))), "“discont”", "Did you mean 'discount'?"),
    far_off=(check(Q(nothing_like_it=1)), "“nothing_like_it”", "unit.Order has: amount, at"),
    of_the_old_row=(check(Q(old__amont__gt=0)), "“amont”", "Did you mean 'amount'?"),
    of_the_new_row=(check(Q(amount=F("new__amont"))), "“amont”", "Did you mean"),
    in_an_annotation=(check(Q(x=1), x=F("amont")), "“amont”", "Did you mean 'amount'?"),
    annotation_misspelt=(check(Q(ratoi=1), ratio=F("amount")), "“ratoi”", "mean 'ratio'?"),
    in_a_case=(check(Q(Case(When(amont=1, then=True), default=False))), "“amont”", "'amount'"),
    of_a_compute=(Compute("nett", F("amount")), "has no field “nett”", "mean 'net'?"),
    in_a_compute=(Compute("net", F("amont")), "“amont”", "Did you mean 'amount'?"),
    text_for_a_value=(
        Compute("note", Case(When(quantity=1, then="x"))),
        "has no field “x”",
        "For the text itself write Value('x').",
    ),
    of_an_immutable=(Immutable("amont"), "“amont”", "Did you mean 'amount'?"),
    of_a_transition=(Transition("staus", {"draft": ["paid"]}), "“staus”", "mean 'status'?"),
    path_of_an_immutable=(Immutable("previous__amount"), "“previous__amount”", "mean 'previous'"),
)
def test_e020(declaration, fact, fix):
    reported("E020", declaration, fact, fix)


RELATION = "Keep the value in a column of the row itself"


@kinds(
    forward=(check(Q(previous__amount__gte=0)), "the relation “previous”", RELATION),
    forward_in_an_f=(check(Q(amount=F("previous__amount"))), "“previous”", RELATION),
    of_the_old_row=(check(Q(old__previous__amount=5)), "“previous”", RELATION),
    reverse=(check(Q(next__isnull=True)), "the relation “next”", RELATION),
    many_to_many=(check(Q(tags__isnull=True)), "the relation “tags”", RELATION),
    in_a_compute=(Compute("net", F("previous__amount")), "“previous”", RELATION),
    deferred=(check(Q(previous__amount__gte=0), deferred=True), "“previous”", RELATION),
)
def test_e021(declaration, fact, fix):
    reported("E021", declaration, fact, fix)


@kinds(
    count=(check(Q(amount__gt=Count("next"))), "Count aggregates over", RELATION),
    summed=(check(Q(x__gt=0), x=Sum("next__amount")), "Sum aggregates over", RELATION),
    unused=(check(Q(amount__gt=0), x=Avg("quantity")), "Avg aggregates over", RELATION),
    own_column=(Compute("net", Sum("amount")), "Sum aggregates over", RELATION),
    inside=(Compute("net", Coalesce(Sum("amount"), Value(0))), "Sum aggregates", RELATION),
)
def test_e022(declaration, fact, fix):
    reported("E022", declaration, fact, fix)


@kinds(
    exists=(check(Exists(Group.objects.all())), "Exists reads other rows", RELATION),
    not_exists=(check(~Exists(Group.objects.filter(pk=OuterRef("pk")))), "Exists", RELATION),
    subquery=(check(Q(key__gt=Subquery(Group.objects.values("pk")[:1]))), "reads other", RELATION),
    queryset=(check(Q(key__in=Group.objects.values("pk"))), "A queryset reads", RELATION),
    outer=(check(Q(amount=OuterRef("quantity"))), "OuterRef('quantity')", "F('quantity')"),
    computed=(Compute("net", Group.objects.values("pk")[:1]), "A queryset reads", RELATION),
)
def test_e023(declaration, fact, fix):
    reported("E023", declaration, fact, fix)


@kinds(
    window=(check(Q(amount__gt=Window(Sum("amount")))), "A window function", RELATION),
    computed=(Compute("net", Window(Sum("amount"))), "A window function", RELATION),
)
def test_e024(declaration, fact, fix):
    reported("E024", declaration, fact, fix)


STORE = "Store the value in a separate column"
NOW = {"output_field": models.DateTimeField()}


@kinds(
    now=(check(Q(at__lte=Now())), "Now returns a different value", STORE),
    of_the_transaction=(check(Q(at__lte=TransactionNow())), "current_timestamp returns", STORE),
    rand=(check(Q(amount__lte=Random())), "Random returns", STORE),
    random_uuid=(check(Q(uid=RandomUUID())), "gen_random_uuid returns", STORE),
    func=(check(Q(at__lte=Func(function="now", **NOW))), "now returns", STORE),
    qualified=(check(Q(at__lte=Func(function="pg_catalog.now", **NOW))), "now returns", STORE),
    capital=(check(Q(at__lte=Func(function="CLOCK_TIMESTAMP", **NOW))), "CLOCK_TIM", STORE),
    template=(check(Q(at__lte=Func(template="now ( )", **NOW))), "now returns", STORE),
    keyword=(check(Q(note=Func(template="current_user", output_field=models.CharField()))),
             "current_user returns", STORE),
    annotated=(check(Q(day__lte=F("today")), today=TruncDate(Now())), "Now returns", STORE),
    computed=(Compute("note", Concat("status", Cast(Random(), models.CharField()))), "R", STORE),
)  # fmt: skip
def test_e025(declaration, fact, fix):
    reported("E025", declaration, fact, fix)


def test_expressions_that_only_look_volatile_are_fine():
    model = declare(
        check(Q(user=F("old__random"))),
        check(~Q(user="now()") & Q(old__user="current_user"), name="text"),
        user=models.CharField(max_length=9),
        random=models.CharField(max_length=9, db_column="now()"),
        current_date=models.CharField(max_length=9),
    )
    assert findings(model) == []


@kinds(
    condition=(check(RawSQL("1 = 1", [], models.BooleanField())), "RawSQL hides", "F() and Func()"),
    inside=(check(Q(amount__gt=RawSQL("1", []))), "RawSQL hides", "pgtrigger.Trigger of your own"),
    computed=(Compute("net", RawSQL("amount", [])), "RawSQL hides", "F() and Func()"),
)
def test_e026(declaration, fact, fix):
    reported("E026", declaration, fact, fix)


@kinds(
    unknown=(check(Q(amount__foo=1)), "Unsupported lookup 'foo'", "a lookup that the field's"),
    of_another_type=(check(Q(quantity__len=1)), "Unsupported lookup 'len'", "or a function"),
    misspelt=(check(Q(at__yaer=2024)), "perhaps you meant year", "Use a lookup"),
    of_the_old_row=(check(Q(old__amount__foo=0)), "Unsupported lookup 'foo'", "Use a lookup"),
    behind_a_relation=(check(Q(previous__amont=1)), "'amont'", "a field of the related model"),
)
def test_e027(declaration, fact, fix):
    reported("E027", declaration, fact, fix)


TYPE = "Write a value of the column's type."


@kinds(
    decimal=(check(Q(amount__gt="abc")), "“abc” value must be a decimal number", TYPE),
    integer=(check(Q(quantity__gt="abc")), "expected a number but got 'abc'", TYPE),
    date=(check(Q(day__gt="yesterday")), "invalid date format", TYPE),
    number_for_a_date=(check(Q(day__gt=5)), "argument must be str", TYPE),
    time=(check(Q(at__gt="abc")), "invalid format", TYPE),
    uid=(check(Q(uid="abc")), "is not a valid UUID", TYPE),
    boolean=(check(Q(flag="maybe")), "must be either True or False", TYPE),
    not_a_number=(check(Q(amount__gt=float("nan"))), "must be a decimal number", TYPE),
    nothing=(check(Q(amount__gt=None)), "Cannot use None", TYPE),
    isnull=(check(Q(note__isnull="yes")), "must be True or False", TYPE),
    foreign_key=(check(Q(previous="x")), "expected a number but got 'x'", TYPE),
    instance=(check(Q(amount__gt=User(username="ann"))), "must be a decimal number", TYPE),
    enumeration=(check(Q(quantity=Plain.DRAFT)), "expected a number", TYPE),
    enumeration_as_text=(check(Q(status=Plain.DRAFT)), "stores it as 'Plain.DRAFT'", "'draft'"),
    listed=(check(Q(quantity__in=["x"])), "expected a number but got 'x'", TYPE),
    list_for_a_text=(check(Q(status=["draft"])), "['draft'] is not a value for “status”", TYPE),
    text_for_a_list=(check(Q(status__in="draft")), "each letter", "['draft']"),
    function=(check(Q(status=len)), "is not a value for “status”", TYPE),
    state=(Transition("quantity", {"a": [2]}), "'a' is not a value for “quantity”", TYPE),
    half=(Transition("quantity", {1: [2.5]}), "it is not a whole number", TYPE),
    long_state=(Transition("note", {"x" * 10: ["y"]}), "more than 9 characters", TYPE),
    null_byte=(Transition("note", {"x": ["\0"]}), "NUL", TYPE),
    time_state=(Transition("at", {"never": []}), "invalid format", TYPE),
    bytes_state=(Transition("note", {b"x": ["y"]}), "b'x' is not a value", TYPE),
    enumerated_state=(Transition("note", {Plain.DRAFT: ["y"]}), "Plain.DRAFT", "'draft'"),
)
def test_e028(declaration, fact, fix):
    reported("E028", declaration, fact, fix)


EXPRESSION = "Use F('column'), Value(…), Q(…)"
NAME = "Write the field's name as a string."


@kinds(
    message_misspelt=(check(Q(amount__gt=0), mesage="x"), "mesage='x'", "mean 'message'?"),
    deferred_misspelt=(check(Q(amount__gt=0), defered=True), "defered=True", "mean 'deferred'?"),
    operation_misspelt=(check(Q(amount__gt=0), opertion="x"), "opertion='x'", "'operation'?"),
    keyword=(check(Q(amount__gt=0), whatever=3), "whatever=3", "Keyword arguments are named"),
    text=(Compute("net", "amount"), "'amount' is not an expression", EXPRESSION),
    number=(Compute("net", 5), "5 is not an expression", EXPRESSION),
    function=(Compute("net", len), "<built-in function len>", EXPRESSION),
    a_class=(Compute("net", F), "the class F is not an expression", EXPRESSION),
    order=(Compute("net", F("amount").desc()), "An order is not a value", ".desc()"),
    no_field=(Compute(), "'' is not a field name", NAME),
    none_for_a_field=(Compute(None, F("amount")), "None is not a field name", NAME),
    number_for_a_field=(Compute(5, F("amount")), "5 is not a field name", NAME),
    list_of_fields=(
        Immutable(["amount", "day"]),
        "Immutable was given a list, which is not a field name.",
        'Write Immutable("amount", "day").',
    ),
    set_of_fields=(Immutable({"day", "amount"}), "a set", 'Write Immutable("amount", "day").'),
    swapped=(
        Compute(F("amount") - F("discount"), "net"),
        "The arguments of the Compute are swapped",
        'Write Compute("net", F("amount") - F("discount")).',
    ),
    swapped_function=(Compute(Lower("status"), "note"), "swapped", 'Write Compute("note", …).'),
    f_for_a_field=(Immutable(F("amount")), "F(amount) is not a field name", NAME),
    empty_field=(Immutable(""), "'' is not a field name", NAME),
    none_in_a_transition=(Transition(None, {"draft": ["paid"]}), "None is not a field name", NAME),
)
def test_e029(declaration, fact, fix):
    reported("E029", declaration, fact, fix)


COMPILES = "Check that Model.objects.annotate(x=…) or .filter(…) accepts it."


@kinds(
    class_for_an_f=(check(Q(amount__gt=F)), "Django cannot compile it", COMPILES),
    short_range=(check(Q(quantity__range=(1,))), "Django cannot compile it", COMPILES),
    number_in_in=(check(Q(quantity__in=5)), "'int' object is not iterable", COMPILES),
    f_in_a_q=(check(Q(F("flag"))), "non-conditional expression", COMPILES),
)
def test_e030(declaration, fact, fix):
    reported("E030", declaration, fact, fix)


ZONE = "Name the time zone: TruncDate('column', tzinfo=…)"
PARTS = "Take the parts that you need as numbers"
STORED = "in a separate "
MOMENT = models.DateTimeField()


@kinds(
    cast_to_text=(
        check(Q(note=Cast("at", models.CharField()))),
        "DateTimeField to CharField",
        PARTS,
    ),
    cast_of_date=(check(Q(note=Cast("day", models.CharField()))), "DateField to CharField", PARTS),
    cast_to_date=(Compute("day", Cast("at", models.DateField())), "to DateField", ZONE),
    assigned=(Compute("day", F("at")), "DateTimeField to DateField", ZONE),
    concatenated=(check(Q(note=Concat("note", "day"))), "The text of a DateField", PARTS),
    as_json=(check(Q(data=JSONObject(at="at"))), "The text of a DateTimeField", PARTS),
    pattern=(check(Q(at__contains="2020")), "The text of a DateTimeField", PARTS),
    pattern_of_date=(check(Q(day__startswith="2020")), "The text of a DateField", PARTS),
    date_beside_time=(check(Q(day__lte=F("at"))), "A date beside a date and time", ZONE),
    time_beside_date=(check(Q(old__at__lte=F("day"))), "A date beside", ZONE),
    text_as_date=(Compute("day", Cast("note", models.DateField())), "as a DateField", STORED),
    text_as_moment=(check(Q(at=Cast("note", models.DateTimeField()))), "as a DateTime", STORED),
    text_in_json_as_date=(
        Compute("day", Cast(KeyTextTransform("day", "data"), models.DateField())),
        "as a DateField",
        STORED,
    ),
    truncated_by_hand=(
        check(Q(at=Func(Value("day"), F("at"), function="DATE_TRUNC", output_field=MOMENT))),
        "DATE_TRUNC depends on the time zone",
        ZONE,
    ),
    parsed_by_hand=(
        check(Q(at=Func(F("note"), Value("YYYY"), function="to_timestamp", output_field=MOMENT))),
        "to_timestamp depends on the time zone",
        ZONE,
    ),
)
def test_e031(declaration, fact, fix):
    if isinstance(declaration, Compute):
        declaration = Compute("day", declaration.expression)
        (problem,) = planning.problems_of(declaration, order_with())
        assert problem.id == "E031"
    else:
        reported("E031", declaration, fact, fix)


def test_expressions_that_name_their_time_zone_are_fine():
    of_zone = Func(Value("day"), F("old__at"), Value("UTC"), function="date_trunc")
    model = order_with(
        check(Q(day__lte=TruncDate("old__at"))),
        check(Q(old__at__year=1), name="y"),
        check(Q(at=ExpressionWrapper(of_zone, MOMENT)), name="z"),
        check(Q(old__day__gte=Cast(Value("2020-01-01"), models.DateField())), name="literal"),
    )

    assert findings(model) == []


def test_e032():
    related = declare(class_name="Related", amount=models.IntegerField())
    fields = {
        "amount": models.IntegerField(),
        "old": models.ForeignKey(related, models.CASCADE),
        "new": models.JSONField(),
    }
    for ambiguous in ("old__amount", "new__amount"):
        model = declare(check(Q(**{ambiguous: 5})), class_name=ambiguous, **fields)
        found = findings(model)
        assert ids(found) == ["E032"]
        says(found[0], f"“{ambiguous}” can mean the column", "under a name of its own: x=F(")


@kinds(
    immutable=(Immutable("tags"), "“tags” is many-to-many", "register(Order.tags.through, …)"),
    compute=(Compute("tags", F("amount")), "“tags” is many-to-many", "Order.tags.through"),
    transition=(Transition("tags", {1: [2]}), "“tags” is many-to-many", "Order.tags.through"),
)
def test_e033(declaration, fact, fix):
    reported("E033", declaration, fact, fix)


@kinds(
    check=(check(Q(limit__gt=1)), "a column of “unit_parent”", "on the parent model"),
    read=(Compute("net", F("limit")), "a column of “unit_parent”", "on the parent model"),
    compute=(Compute("limit", F("quantity")), "“limit” is a column of", "on unit.Parent"),
    inherited=(Compute("limit", F("quantity")), "parent model", "class Meta of its own"),
    immutable=(Immutable("limit"), "the table of a parent model", "on unit.Parent"),
    parents_key=(Immutable("id"), "“id” is a column of “unit_parent”", "on unit.Parent"),
    transition=(Transition("limit", {1: [2]}), "“limit”", "on unit.Parent"),
)
def test_e034(declaration, fact, fix):
    reported("E034", declaration, fact, fix)


@kinds(
    field=(
        check(Q(amount__gt=0), quantity=F("amount")),
        "“quantity” has the name",
        "different name",
    ),
    relation=(check(Q(amount__gt=0), tags=F("amount")), "“tags” has the name", "different name"),
)
def test_e035(declaration, fact, fix):
    reported("E035", declaration, fact, fix)


@kinds(
    generic_key=(check(Q(target=1)), "“target” of unit.Order has no column", "its columns"),
    generic_immutable=(Immutable("target"), "“target” of unit.Order", "Name its columns"),
    reverse=(Immutable("next"), "“next” of unit.Order has no column", "Name its columns"),
    compute=(Compute("next", F("amount")), "“next” of unit.Order", "Name its columns"),
)
def test_e036(declaration, fact, fix):
    reported("E036", declaration, fact, fix)


@kinds(
    number_and_text=(check(Q(amount__gt=F("status"))), "DecimalField with CharField", "Cast(…"),
    number_and_date=(check(Q(amount=F("day"))), "DecimalField with DateField", "Cast(…"),
    number_and_uuid=(check(Q(quantity=F("uid"))), "IntegerField with UUIDField", "Cast(…"),
    lookup_expression=(check(Exact(F("quantity"), F("note"))), "with CharField", "Cast(…"),
    df=(check(Q(old__flag__df=F("quantity"))), "BooleanField with IntegerField", "Cast(…"),
)
def test_e037(declaration, fact, fix):
    reported("E037", declaration, fact, fix)
