"""The checks of Check, Compute, Immutable and Transition, and the warnings."""

import datetime  # noqa: F401  (for the examples in the docs)
import enum

import pgtrigger
import pytest
from django.contrib.auth.models import Group
from django.db import models
from django.db.models import (
    Case,
    F,
    Q,
    Value,
    When,
)
from django.db.models.functions import (
    Lower,
    TruncDate,
)
from django.db.models.lookups import Exact, GreaterThan

from bulksafe import Compute, Immutable, Transition, planning
from tests.unit.declaring import declare, findings, ids
from tests.unit.reporting import (
    Plain,
    Status,
    User,
    _isolated,  # noqa: F401
    check,
    kinds,
    order_with,
    reported,
    says,
)


class Text(enum.StrEnum):
    DRAFT = "draft"
    PAID = "paid"


class Level(models.IntegerChoices):
    LOW = 1
    HIGH = 2


# Check.


WRITE = "Write Check(Q(amount__gte=0), name=…)."


@kinds(
    left_out=(check(), "has no condition", WRITE),
    none=(check(None), "has no condition", WRITE),
    empty=(check(Q()), "has no condition", WRITE),
    not_empty=(check(~Q()), "has no condition", WRITE),
    empty_and_empty=(check(Q() & Q()), "has no condition", WRITE),
    annotation=(
        check(amount__gt=0),
        "has no condition: amount__gt=0 was given as an annotation, not in a Q().",
        'Write Check(Q(amount__gt=0), name="rule").',
    ),
    annotations=(
        check(amount__gt=F("discount"), status="paid"),
        'amount__gt=F("discount"), status="paid" was given as an annotation',
        'Write Check(Q(amount__gt=F("discount"), status="paid"), name="rule").',
    ),
)
def test_e040(declaration, fact, fix):
    reported("E040", declaration, fact, fix)


Q_OR = "Write a Q(…), a lookup, or an expression"


@kinds(
    text=(check("amount > 0"), "'amount > 0' is neither true nor false", Q_OR),
    boolean=(check(True), "The condition True", Q_OR),
    function=(check(len), "The condition <built-in function len>", Q_OR),
    lookup_class=(check(GreaterThan), "The condition the class GreaterThan", Q_OR),
    model=(check(User), "The condition the class User", Q_OR),
    instance=(check(User(username="ann")), "The condition <User: ann>", Q_OR),
    queryset=(check(Group.objects.all()), "The condition a queryset", Q_OR),
    pair=(check(("amount__gt", 0)), "('amount__gt', 0)", Q_OR),
    listed=(check([Q(amount__gt=0)]), "is neither true nor false", Q_OR),
    lookups=(check({"amount__gt": 0}), "{'amount__gt': 0}", Q_OR),
    value=(check(Value(1)), "Value(1)", Q_OR),
    column=(check(F("flag")), "F(flag) is neither", "write Q(flag=True)"),
    sum_=(check(F("amount") + 1), "is neither true nor false", Q_OR),
    case=(check(Case(When(amount=1, then=Value("x")))), "is neither true nor false", Q_OR),
    constraint=(
        check(models.CheckConstraint(condition=Q(amount__gte=0), name="c")),
        "CheckConstraint",
        "Pass its condition",
    ),
    pgtrigger_condition=(check(pgtrigger.Condition("1 = 1")), "Condition", "old__… and new__…"),
    pgtrigger_change=(check(pgtrigger.AnyChange("amount")), "AnyChange", "or an Immutable"),
)
def test_e041(declaration, fact, fix):
    reported("E041", declaration, fact, fix)


COLUMN = "Use a column of the model in it"


@kinds(
    true=(check(Value(True)), "depends on no column", COLUMN),
    true_in_a_q=(check(Q(Value(True))), "depends on no column", COLUMN),
    constants=(check(Exact(1, 1)), "the same for every row", COLUMN),
    never=(check(Q(status__in=[])), "it is false for every row", "an empty list after __in"),
    always=(check(~Q(pk__in=[])), "it is true for every row", "an empty list after __in"),
    empty_inside=(check(Q(Q())), "depends on no column", COLUMN),
)
def test_e042(declaration, fact, fix):
    reported("E042", declaration, fact, fix)


@kinds(
    insert=(
        check(Q(old__amount__gt=0), operation=pgtrigger.Insert),
        "an insert has none",
        "Leave operation= out",
    ),
    insert_or_update=(
        check(Q(amount__gt=F("old__amount")), operation=pgtrigger.Insert | pgtrigger.Update),
        "an insert has none",
        "operation=pgtrigger.Update",
    ),
)
def test_e043(declaration, fact, fix):
    reported("E043", declaration, fact, fix)


@kinds(
    delete=(
        check(Q(new__amount__gt=0), operation=pgtrigger.Delete),
        "a delete has none",
        "the plain name for the row that is deleted",
    ),
)
def test_e044(declaration, fact, fix):
    reported("E044", declaration, fact, fix)


@kinds(
    operation=(
        check(Q(amount__gt=0), deferred=True, operation=pgtrigger.Update),
        "tests the row at the commit, for any",
        "Leave operation= or deferred= out.",
    ),
    old_row=(
        check(Q(old__amount=F("amount")), deferred=True),
        "the old row no longer exists",
        "Leave deferred= out.",
    ),
)
def test_e045(declaration, fact, fix):
    reported("E045", declaration, fact, fix)


@kinds(
    text=(check(Q(amount__gt=0), operation="update"), "is 'update', which is not", "pgtrigger.Ins"),
    listed=(check(Q(amount__gt=0), operation=[1]), "is [1], which is not", "joined with |"),
    truncate=(check(Q(amount__gt=0), operation=pgtrigger.Truncate), "for TRUNCATE", "Use pgtrig"),
    both=(
        check(Q(amount__gt=0), operation=pgtrigger.Update | pgtrigger.Truncate),
        "for UPDATE OR TRUNCATE",
        "Use pgtrigger.Insert",
    ),
    update_of=(
        check(Q(amount__gt=0), operation=pgtrigger.UpdateOf("amount")),
        'for UPDATE OF "amount"',
        "test for changes with old__… and new__…",
    ),
    the_class=(check(Q(amount__gt=0), operation=pgtrigger.Operation), "the class Oper", "Write"),
)
def test_e046(declaration, fact, fix):
    reported("E046", declaration, fact, fix)


@kinds(
    update=(
        check(Q(amount__gt=0), operation=pgtrigger.Delete | pgtrigger.Update),
        "One Check cannot be for deletes and for other operations",
        "Declare two",
    ),
)
def test_e047(declaration, fact, fix):
    reported("E047", declaration, fact, fix)


@kinds(
    text=(check(Q(amount__gt=0), deferred="yes"), "deferred is 'yes'", "Write deferred=True."),
    timing=(check(Q(amount__gt=0), deferred=pgtrigger.Deferred), "deferred is <", "deferred=True"),
)
def test_e048(declaration, fact, fix):
    found = planning.problems_of(declaration, order_with())

    assert [problem.id for problem in found] == ["E048"]
    assert fact in found[0].fact
    assert fix in found[0].fix


def test_an_operation_that_is_named_twice():
    model = order_with(
        check(Q(amount__gt=F("old__amount")), operation=pgtrigger.Update | pgtrigger.Update)
    )

    assert findings(model) == []
    (rule,) = model._meta.triggers
    assert rule.compile(model).triggers[0]["events"] == "UPDATE"


# Compute.


@kinds(
    left_out=(Compute("net"), "The Compute of “net” has no expression", 'F("amount") - F('),
    none=(Compute("net", None), "has no expression", "Write Compute("),
)
def test_e050(declaration, fact, fix):
    reported("E050", declaration, fact, fix)


@kinds(
    pk=(Compute("pk", F("quantity")), "“parent_ptr” is in the primary key", "different column"),
    by_name=(Compute("parent_ptr_id", F("quantity")), "in the primary key", "different column"),
)
def test_e051(declaration, fact, fix):
    reported("E051", declaration, fact, fix)


def test_e051_for_a_composite_primary_key():
    model = declare(
        Compute("shop", F("number") + 1),
        pk=models.CompositePrimaryKey("shop", "number"),
        shop=models.IntegerField(editable=False),
        number=models.IntegerField(),
    )
    assert ids(findings(model)) == ["E051"]


def test_e052():
    twice = [Compute("net", F("amount")), Compute("net", F("discount"), name="again")]

    found = findings(order_with(*twice))

    assert "E052" in ids(found)
    says(
        next(message for message in found if message.id == "bulksafe.E052"),
        "“net” is computed twice, also by “compute_net”",
        "Remove one of them.",
    )


def test_e052_under_two_names_of_one_field_and_on_a_proxy():
    model = order_with(Compute("previous", F("key")))
    proxy = declare(
        Compute("previous_id", F("quantity")),
        class_name="Proxy",
        bases=(model,),
        meta={"proxy": True},
    )

    found = findings(model, proxy)

    assert [m.id for m in found if m.id == "bulksafe.E052"] == ["bulksafe.E052"]


@kinds(
    itself=(Compute("net", F("net")), "in a cycle: net → net", "not computed"),
    itself_and_more=(Compute("net", F("net") + F("amount")), "net → net", "not computed"),
    through_a_generated_column=(Compute("quantity", F("double")), "quantity → quantity", "not"),
    by_its_column=(Compute("previous", F("previous_id")), "previous → previous", "not computed"),
)
def test_e053(declaration, fact, fix):
    reported("E053", declaration, fact, fix)


@pytest.mark.parametrize(
    ("circle", "facts"),
    [
        ({"net": "gross", "gross": "net"}, ["net → gross → net", "gross → net → gross"]),
        (
            {"net": "gross", "gross": "tax", "tax": "net"},
            ["net → gross → tax → net", "gross → tax → net → gross", "tax → net → gross → tax"],
        ),
    ],
    ids=["two", "three"],
)
def test_e053_with_others(circle, facts):
    model = order_with(*(Compute(field, F(read) + 1) for field, read in circle.items()))

    found = findings(model)

    assert ids(found) == ["E053"] * len(circle)
    for message, fact in zip(found, facts, strict=True):
        says(message, fact, "columns that are not computed")


@kinds(
    text_to_number=(Compute("net", F("note")), "gives CharField, and “net” is Dec", "Cast(…"),
    time_to_number=(Compute("net", F("at")), "gives DateTimeField", "Cast(…, DecimalField())"),
    condition_to_number=(Compute("net", Q(amount__gt=0)), "gives BooleanField", "Cast(…"),
    json_to_number=(Compute("net", F("data__a")), "gives JSONField", "Cast(…"),
    array_to_number=(Compute("net", F("numbers")), "gives ArrayField", "Cast(…"),
    number_to_array=(Compute("numbers", F("quantity")), "“numbers” is ArrayField", "Cast(…"),
    number_to_boolean=(Compute("flag", F("quantity")), "“flag” is BooleanField", "Cast(…"),
    function=(Compute("net", Lower("status")), "gives CharField", "Cast(…"),
    text_to_key=(Compute("previous", F("note")), "gives CharField", "Cast(…"),
)
def test_e055(declaration, fact, fix):
    reported("E055", declaration, fact, fix)


@kinds(
    generated=(Compute("double", F("key")), "“double” is a GeneratedField", "Remove the Compute"),
)
def test_e056(declaration, fact, fix):
    reported("E056", declaration, fact, fix)


@kinds(
    old_row=(Compute("net", F("old__amount")), "reads the old row", "a Check with old__…"),
    both=(Compute("net", F("amount") - F("old__amount")), "reads the old row", "the row itself"),
    generated=(Compute("net", F("old__double")), "reads the old row", "the row itself"),
)
def test_e057(declaration, fact, fix):
    reported("E057", declaration, fact, fix)


# Immutable.


@kinds(nothing=(Immutable(), "names no field", 'Immutable("number", …)'))
def test_e061(declaration, fact, fix):
    reported("E061", declaration, fact, fix)


@kinds(
    twice=(Immutable("amount", "amount"), "names “amount” twice", "Name it once."),
    two_names=(Immutable("previous", "previous_id"), "names “previous” twice", "Name it once."),
)
def test_e062(declaration, fact, fix):
    reported("E062", declaration, fact, fix)


# Transition.


GRAPH = '{"draft": ["paid", "cancelled"]'


@kinds(
    left_out=(Transition("status"), "allowed is None, not a dict", GRAPH),
    pairs=(Transition("status", [("draft", "paid")]), "allowed is [('draft', 'paid')]", GRAPH),
    text=(Transition("status", "draft"), "allowed is 'draft'", GRAPH),
    choices=(Transition("status", Status), "allowed is the class Status", GRAPH),
)
def test_e071(declaration, fact, fix):
    reported("E071", declaration, fact, fix)


@kinds(
    follower=(Transition("status", {"draft": ["payd"]}), "'payd' is not among", "mean 'paid'?"),
    state=(Transition("status", {"drft": ["paid"]}), "'drft' is not among", "mean 'draft'?"),
    initial=(
        Transition("status", {"draft": ["paid"]}, initial=["foo"]),
        "'foo' is not among the choices of “status”",
        "Its choices are 'draft', 'paid', 'shipped'.",
    ),
    label=(Transition("status", {"Draft": ["paid"]}), "'Draft' is not among", "mean 'draft'?"),
    byte_string=(Transition("status", {b"draft": []}), "b'draft' is not among", "mean 'draft'?"),
    enumeration=(Transition("status", {Plain.DRAFT: []}), "<Plain.DRAFT", "Write 'draft'."),
    empty=(Transition("status", {"": ["paid"]}), "'' is not among", "Its choices are"),
)
def test_e072(declaration, fact, fix):
    reported("E072", declaration, fact, fix)


@kinds(
    empty=(Transition("status", {"draft": ["paid"]}, initial=[]), "initial is empty", "List the"),
    used_up=(Transition("status", {"draft": []}, initial=iter(())), "initial is empty", "List"),
)
def test_e073(declaration, fact, fix):
    reported("E073", declaration, fact, fix)


@kinds(
    text=(
        Transition("status", {"draft": "paid"}),
        "after 'draft' are 'paid'",
        "{'draft': ['paid']",
    ),
    none=(Transition("status", {"paid": None}), "after 'paid' are None", "{'paid': []}"),
    number=(Transition("quantity", {1: 2}), "after 1 are 2, not a list", "{1: [2]}"),
    initial_text=(
        Transition("status", {"draft": ["paid"]}, initial="draft"),
        "initial is 'draft', not a list",
        "initial=['draft']",
    ),
    initial_number=(Transition("quantity", {1: [2]}, initial=1), "initial is 1", "initial=[1]"),
)
def test_e074(declaration, fact, fix):
    reported("E074", declaration, fact, fix)


@kinds(empty=(Transition("status", {}), "allowed is empty", "Use Immutable('status')"))
def test_e075(declaration, fact, fix):
    reported("E075", declaration, fact, fix)


@kinds(
    follower=(Transition("status", {"draft": [None]}), "cannot be NULL", "Remove it."),
    state=(Transition("status", {None: ["draft"]}), "None is a state", "Remove it."),
    initial=(Transition("quantity", {1: [2]}, initial=[None, 1]), "None is a state", "Remove it."),
)
def test_e076(declaration, fact, fix):
    reported("E076", declaration, fact, fix)


@kinds(
    listed=(Transition("status", {"draft": [["paid"]]}), "['paid'] is a list", "separately"),
    mapped=(Transition("status", {"draft": [{"paid": 1}]}), "is a dict", "separately"),
    initial=(
        Transition("status", {"draft": ["paid"]}, initial=[["draft"]]),
        "a list",
        "separately",
    ),
    json=(Transition("data", {"draft": [{}]}), "The state {} is a dict", "separately"),
)
def test_e078(declaration, fact, fix):
    reported("E078", declaration, fact, fix)


@pytest.mark.parametrize(
    "transition",
    [
        Transition("status", {"draft": ["paid"]}, initial=["draft"]),
        Transition("status", {Status.DRAFT: [Status.PAID]}, initial=[Status.DRAFT]),
        Transition("status", {Text.DRAFT: [Text.PAID]}, initial=[Text.DRAFT]),
        Transition("status", {Plain.DRAFT.value: ["paid"]}, initial=("draft",)),
        Transition("status", {"draft": (s for s in ["paid"])}, initial=(s for s in ["draft"])),
        Transition("status", {"draft": {"paid"}}, initial={"draft"}),
        Transition("status", {"draft": {"paid": 1}.keys()}, initial={"draft": 1}),
    ],
    ids=["text", "choices", "text enum", "value", "generators", "sets", "keys"],
)
def test_states_are_frozen_as_plain_literals(transition):
    reference = Transition("status", {"draft": ["paid"]}, initial=["draft"])
    model = order_with(transition)

    assert findings(model) == []
    assert transition.compile(model) == reference.compile(model)


def test_states_that_are_members_of_an_integer_enumeration():
    model = order_with()
    members = Transition("quantity", {Level.LOW: [Level.HIGH]}).compile(model)

    assert members == Transition("quantity", {1: [2]}).compile(model)
    assert members == Transition("quantity", {"1": ["2"]}).compile(model)


def test_sets_of_states_are_in_the_same_order_in_every_process():
    model = order_with()
    in_a_set = Transition("note", {"a": {"d", "c", "b", "e"}}).compile(model)

    assert in_a_set == Transition("note", {"a": ["b", "c", "d", "e"]}).compile(model)


# Warnings.


def test_w003():
    found = findings(order_with(Compute("day", TruncDate("at"))))

    assert ids(found) == ["W003"]
    says(found[0], "“day” is computed, but forms still show it", "editable=False to day")


def test_w003_not_for_a_model_of_another_package():
    compute = Compute("day", TruncDate("at"))
    compute.home = "other"

    assert findings(order_with(compute)) == []


def test_w004():
    found = findings(order_with(Compute("touched", F("at"))))

    assert ids(found) == ["W004"]
    says(found[0], "the value of auto_now is overwritten", "Remove auto_now")


@kinds(
    value=(Compute("net", Value(5)), "“net” is the same in every row", "db_default"),
    null=(Compute("note", Case()), "reads no column", "name a column"),
)
def test_w054(declaration, fact, fix):
    reported("W054", declaration, fact, fix)


@kinds(auto_now=(Immutable("touched"), "auto_now changes it in every save()", "auto_now_add"))
def test_w063(declaration, fact, fix):
    reported("W063", declaration, fact, fix)


@kinds(
    default=(
        Transition("status", {"paid": ["shipped"]}, initial=["paid"]),
        "The default of “status”, 'draft', is not among the initial states",
        "Add it to initial=",
    ),
)
def test_w077(declaration, fact, fix):
    reported("W077", declaration, fact, fix)


@kinds(
    never=(
        Transition("status", {"draft": ["paid"], "shipped": ["draft"]}, initial=["draft"]),
        "No row can reach these states, which have followers: 'shipped'.",
        "Add a transition that leads there",
    ),
)
def test_w079(declaration, fact, fix):
    reported("W079", declaration, fact, fix)


def test_w079_not_where_any_state_may_be_the_first():
    assert findings(order_with(Transition("status", {"draft": ["paid"], "shipped": []}))) == []


def test_w080():
    found = findings(order_with(Compute("day", TruncDate("at")), Immutable("day")))

    assert ids(found) == ["W003", "W080"]
    says(found[1], "“day” is immutable and computed", "make the inputs immutable")


def test_w081():
    found = findings(order_with(Transition("status", {"draft": ["paid"]}), Immutable("status")))

    assert ids(found) == ["W081"]
    says(found[0], "is immutable, by “immutable_status”: no transition", "Remove one of the two.")
