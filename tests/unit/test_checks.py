"""Each check of a declaration: what is reported, what is the fact, and what to write instead.

A test is named after its id and runs once for each kind of mistake that has it. That the
declarations stand in decorators shows that making one never raises.
"""

import datetime  # noqa: F401  (for the examples in the docs)
import enum
import re
import textwrap
import uuid
from pathlib import Path

import pgtrigger
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.functions import RandomUUID, TransactionNow
from django.core import checks as django_checks
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
from django.db.models.lookups import Exact, GreaterThan
from django.test import override_settings
from django.utils.translation import gettext_lazy

import bulksafe
from bulksafe import Check, Compute, Immutable, InvalidDeclaration, Transition, checks, planning
from bulksafe.declarations import declared
from tests.unit.declaring import declare, findings, ids, isolated, registered

User = get_user_model()


class Plain(enum.Enum):
    DRAFT = "draft"


class Text(enum.StrEnum):
    DRAFT = "draft"
    PAID = "paid"


class Status(models.TextChoices):
    DRAFT = "draft"
    PAID = "paid"
    SHIPPED = "shipped"


class Level(models.IntegerChoices):
    LOW = 1
    HIGH = 2


@pytest.fixture(autouse=True)
def _isolated():
    with isolated():
        yield


def money(**kwargs):
    return models.DecimalField(max_digits=9, decimal_places=2, **kwargs)


def order_with(*triggers, fields=None, **options):
    """A model with a bit of everything, which declares ``triggers``."""
    parent = declare(class_name="Parent", limit=models.IntegerField())
    tag = declare(class_name="Tag")
    columns = {
        "amount": money(),
        "discount": money(default=0),
        "net": money(editable=False),
        "gross": money(editable=False, default=0, db_default=0),
        "tax": money(editable=False),
        "quantity": models.IntegerField(),
        "status": models.CharField(max_length=9, choices=Status, default="draft"),
        "note": models.CharField(max_length=9, null=True, editable=False),
        "day": models.DateField(),
        "at": models.DateTimeField(),
        "touched": models.DateTimeField(auto_now=True),
        "flag": models.BooleanField(default=False),
        "data": models.JSONField(default=dict),
        "numbers": ArrayField(models.IntegerField(), default=list, editable=False),
        "uid": models.UUIDField(default=uuid.uuid4),
        "previous": models.ForeignKey("self", models.CASCADE, null=True, related_name="next"),
        "tags": models.ManyToManyField(tag),
        "kind": models.ForeignKey(ContentType, models.CASCADE, related_name="+"),
        "key": models.IntegerField(),
        "target": GenericForeignKey("kind", "key"),
        "double": models.GeneratedField(
            expression=F("quantity") * 2, output_field=models.IntegerField(), db_persist=True
        ),
    }
    return declare(*triggers, bases=(parent,), meta=options, **columns | (fields or {}))


def kinds(**declared):
    """Run the test for each kind of mistake: (declaration, part of the fact, part of the fix)."""
    return pytest.mark.parametrize(
        ("declaration", "fact", "fix"), list(declared.values()), ids=list(declared)
    )


def check(condition=None, /, **kwargs):
    return Check(condition, **{"name": "rule", **kwargs})


def reported(code, declaration, fact, fix):
    """The checks say this, and nothing else; makemigrations stops with the same."""
    model = order_with(declaration)
    found = findings(model)

    assert ids(found) == [code], found
    says(found[0], fact, fix)
    if code.startswith("E"):
        with pytest.raises(InvalidDeclaration, match=rf"bulksafe\.{code}"):
            declaration.compile(model)
    else:
        assert declaration.compile(model).install_sql


def says(message, fact, fix):
    assert fact in message.msg
    assert fix in message.hint
    for text in (message.msg, message.hint):
        assert text[-1] in ".?"
        assert " at 0x" not in text
        assert ".." not in text.replace("…", "")


# The declaration as such.


@kinds(
    left_out=(
        Check(Q(amount__gt=0)),
        "The Check has no name.",
        'Write Check(Q(amount__gt=0), name="amount_gt").',
    ),
    of_two=(
        Check(Q(amount__gt=0, discount__lte=F("amount"))),
        "The Check has no name.",
        'Check(Q(amount__gt=0, discount__lte=F("amount")), name="amount_gt_discount_lte")',
    ),
    of_a_longer_one=(
        Check(Q(amount__gt=0) | Q(discount=0)),
        "The Check has no name.",
        'Write Check(Q(…), name="what_must_hold").',
    ),
    none=(check(Q(amount__gt=0), name=None), "has no name", "name="),
    empty=(check(Q(amount__gt=0), name=""), "has no name", "name="),
    empty_of_a_compute=(Compute("net", F("amount"), name=""), "Compute has no name", "Compute("),
)
def test_e002(declaration, fact, fix):
    reported("E002", declaration, fact, fix)


@kinds(
    of_a_check=(check(Q(amount__gt=0), name="x" * 48), "has 48 characters; 47", "x" * 47),
    of_a_transition=(
        Transition("status", {"draft": ["paid"]}, name="x" * 60),
        "has 60 characters",
        "Shorten it",
    ),
)
def test_e003(declaration, fact, fix):
    reported("E003", declaration, fact, fix)


@kinds(
    space=(check(Q(amount__gt=0), name="at most"), "'at most' has characters", 'name="at_most"'),
    colon=(check(Q(amount__gt=0), name="a:b"), "'a:b' has characters", 'name="a_b"'),
    not_ascii=(check(Q(amount__gt=0), name="größe"), "'größe' has characters", 'name="gr_e"'),
    quote=(Immutable("amount", name="it's"), "has characters other than", 'name="it_s"'),
    number=(check(Q(amount__gt=0), name=5), "The name is 5, not text.", "name="),
    byte_string=(check(Q(amount__gt=0), name=b"x"), "The name is b'x'", "name="),
    lazy=(check(Q(amount__gt=0), name=gettext_lazy("x")), "not text", "name="),
)
def test_e004(declaration, fact, fix):
    reported("E004", declaration, fact, fix)


def test_names_made_from_field_names_may_be_whatever_fields_may_be():
    model = declare(
        Immutable("größe"),
        größe=models.IntegerField(),
        **{"x" * 60: models.IntegerField(null=True, editable=False)},
    )
    assert findings(model) == []
    (problem,) = planning.problems_of(Compute("x" * 60, F("größe")), model)
    assert problem.id == "I002"


def test_e005():
    model = order_with(check(Q(amount__gt=0)), check(Q(amount__lt=9)))

    found = findings(model)

    assert ids(found) == ["E005", "I001"] or ids(found) == ["I001", "E005"]
    duplicate = next(message for message in found if message.id == "bulksafe.E005")
    says(duplicate, "have the name “rule”", "different name=")
    assert str(duplicate.obj) == "unit.Order:rule"


@pytest.mark.parametrize("plain_first", [True, False])
def test_e005_with_a_plain_pgtrigger(plain_first):
    plain = pgtrigger.Protect(name="rule", operation=pgtrigger.Delete)
    triggers = [check(Q(amount__gt=F("old__amount"))), plain]

    found = findings(order_with(*(reversed(triggers) if plain_first else triggers)))

    assert ids(found) == ["E005"]


def test_e005_between_a_proxy_and_its_model():
    model = order_with(check(Q(amount__gt=F("old__amount"))))
    proxy = declare(
        check(Q(amount__lt=F("old__amount"))),
        class_name="Proxy",
        bases=(model,),
        meta={"proxy": True},
    )

    found = findings(model, proxy)

    assert ids(found) == ["E005"]
    says(found[0], "on the table “unit_order”", "different name=")


def test_e005_through_an_abstract_base():
    """A child that adds a rule of the same name to those that it inherits."""
    base = declare(
        check(Q(amount__gt=F("old__amount"))),
        class_name="Base",
        meta={"abstract": True},
        amount=models.IntegerField(),
    )
    again = [*base._meta.triggers, check(Q(amount__lt=F("old__amount")))]
    child = declare(*again, class_name="Child", bases=(base,))
    overriding = declare(again[1], class_name="Overriding", bases=(base,))

    assert ids(findings(child)) == ["E005"]
    assert findings(overriding) == []


def test_a_rejected_declaration_is_looked_at_too():
    model = order_with(Check(Q(amount__gt=F("old__amount"))), Check(Q(amont__gt=0)))

    assert ids(findings(model)) == ["E002", "E002", "E020"]


def test_the_same_declaration_in_an_abstract_base_stands_for_each_child():
    base = declare(
        check(Q(amount__gt=F("old__amount"))),
        class_name="Base",
        meta={"abstract": True},
        amount=models.IntegerField(),
    )
    children = [declare(class_name=name, bases=(base,)) for name in ("First", "Second")]
    for child in children:
        child._meta.triggers = base._meta.triggers

    assert findings(*children) == []


def test_e006():
    abstract = declare(class_name="A", meta={"abstract": True}, amount=models.IntegerField())
    unmanaged = declare(class_name="View", meta={"managed": False}, amount=models.IntegerField())
    proxy = declare(class_name="Proxy", bases=(unmanaged,), meta={"proxy": True})
    with override_settings(UNIT_MODEL="auth.User"):
        swapped = declare(
            class_name="Swapped", meta={"swappable": "UNIT_MODEL"}, amount=models.IntegerField()
        )
        for model, fact in [
            (abstract, "unit.A has no table: it is abstract."),
            (unmanaged, "unit.View is unmanaged"),
            (proxy, "unit.Proxy is unmanaged"),
            (swapped, "it is swapped for auth.User."),
        ]:
            (problem,) = planning.problems_of(check(Q(amount__gt=0)), model)
            assert problem.id == "E006"
            assert fact in problem.fact
            assert "Declare the invariant on" in problem.fix


class ToLite:
    def db_for_write(self, model, **hints):
        return "lite"


def test_e007():
    model = order_with(check(Q(amount__gt=0)))

    with override_settings(DATABASE_ROUTERS=[ToLite()]):
        found = findings(model)

    assert ids(found) == ["E007"]
    says(found[0], "“lite”, which is not PostgreSQL (sqlite)", "Route the model to a PostgreSQL")


def register_badly(target, *invariants, **kwargs):
    with registered():
        bulksafe.register(target, *invariants, **kwargs)
        return checks.check_declarations(None)


@pytest.mark.parametrize(
    ("target", "invariants", "app_label", "reason"),
    [
        ("auth.Usr", [check()], "shop", "App 'auth' doesn't have a 'Usr' model"),
        ("nowhere.User", [check()], "shop", "No installed app with label 'nowhere'"),
        ("User", [check()], "shop", "a label has the form “app.Model”"),
        (5, [check()], "shop", "it is not a model"),
        (None, [check()], "shop", "it is not a model"),
        (check(), [check()], "shop", "it is not a model"),
        (User.objects, [check()], "shop", "it is not a model"),
        (models.Model, [check()], "shop", "an abstract model has no table"),
        (User, [], "shop", "no invariants were given"),
        (User, [Check], "shop", "the class Check is not an invariant"),
        (User, [Q(username="x")], "shop", "a Q is not an invariant"),
        (User, [[check()]], "shop", "a list is not an invariant"),
        (
            User,
            [pgtrigger.Protect(name="p", operation=pgtrigger.Delete)],
            "shop",
            "a Protect is no",
        ),
    ],
)
def test_e008(target, invariants, app_label, reason):
    found = register_badly(target, *invariants, app_label=app_label)

    assert ids(found) == ["E008"]
    says(found[0], reason, "Pass an installed model")


@pytest.mark.parametrize(
    ("app_label", "code", "fix"),
    [
        ("practise", "E124", "Did you mean 'practice'?"),
        (["practice"], "E124", "Did you mean 'practice'?"),
        (7, "E124", "Pass one of"),
        ("auth", "E122", "in one of your apps"),
    ],
)
def test_apps_that_cannot_get_the_migration(app_label, code, fix):
    found = register_badly(User, check(Q(username="x")), app_label=app_label)

    assert ids(found) == [code]
    says(found[0], "installed", fix)


def test_e008_for_abstract_and_swapped_models():
    abstract = declare(class_name="A", meta={"abstract": True})
    with override_settings(UNIT_MODEL="auth.User"):
        swapped = declare(class_name="Swapped", meta={"swappable": "UNIT_MODEL"})
        for target, reason in [
            (abstract, "put the invariants into its Meta.triggers"),
            (swapped, "it is swapped out for auth.User; register that one"),
        ]:
            found = register_badly(target, check(Q(amount__gt=0)), app_label="shop")
            assert ids(found) == ["E008"]
            says(found[0], reason, "Pass an installed model")


def test_e008_outside_of_any_app():
    found = register_badly(User, check(Q(username="x")))

    assert ids(found) == ["E008"]
    says(found[0], f"the calling module {__name__} is in no installed app", "invariants.py")


@pytest.mark.parametrize(
    ("given", "fact", "fix"),
    [
        ([Check], "Meta.triggers has the class Check, not an instance of it.", "Write Check(…)."),
        (
            [models.CheckConstraint(condition=Q(amount__gt=0), name="c")],
            "not a trigger",
            "Meta.con",
        ),
        ([Q(amount__gt=0)], "which is not a trigger", "List invariants"),
        (["amount > 0"], "Meta.triggers has 'amount > 0'", "List invariants"),
        ([None], "Meta.triggers has None", "List invariants"),
        ([[check()]], "which is not a trigger", "List invariants"),
        (Immutable("amount"), "is a single Immutable, not a list", "triggers = […]"),
        ("amount", "Meta.triggers has 'amount'", "List invariants"),
        ({"rule": check()}, "which is not a trigger", "List invariants"),
    ],
)
def test_e010(given, fact, fix):
    model = order_with(triggers=given)

    found = findings(model)

    assert ids(found) == ["E010"]
    says(found[0], fact, fix)
    assert found[0].obj is model


@pytest.mark.parametrize("given", [None, [], (), (Immutable("amount"),)])
def test_other_forms_of_meta_triggers_are_fine(given):
    assert findings(order_with(triggers=given)) == []


@kinds(
    byte_string=(check(Q(amount__gt=0), message=b"No."), "is b'No.', not text", "gettext_lazy"),
    number=(Immutable("amount", message=5), "The message is 5", 'message="…"'),
    template=(Transition("status", {}, message=("a", "b")), "The message is ('a', 'b')", "="),
)
def test_e011(declaration, fact, fix):
    found = findings(order_with(declaration))

    assert "E011" in ids(found)
    says(found[0], fact, fix)


# What expressions mention.


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


def test_what_only_looks_volatile_is_fine():
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


def test_what_names_its_time_zone_is_fine():
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


def test_w003_not_for_a_model_of_somebody_else():
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


# Where Django itself is enough.


def test_i001():
    model = order_with(
        check(Q(amount__gt=0)), check(Q(quantity__gt=0), name="second"), Immutable("amount")
    )

    (found,) = findings(model)

    assert found.id == "bulksafe.I001"
    says(found, "Django's own CheckConstraint can hold this rule.", "Keep the Check if")
    # One message for all that it is about.
    assert str(found.obj) == "unit.Order:rule, unit.Order:second"
    assert found.level == django_checks.INFO


def test_hints_are_none_of_the_messages_that_every_command_shows(settings):
    model = order_with(check(Q(amount__gt=0)), Compute("net", F("amount") - F("discount")))
    with registered(model):
        assert checks.check_declarations(None) == []
        assert ids(checks.hints(declared())) == ["I001", "I002"]
        settings.SILENCED_SYSTEM_CHECKS = ["bulksafe.I001"]
        assert ids(checks.hints(declared())) == ["I002"]


@pytest.mark.parametrize(
    ("declaration", "label"),
    [
        (Check(Q(amount__gt=0)), "unit.Order:Check without a name"),
        (Compute(F("amount") - F("discount"), "net"), "unit.Order:compute_net"),
        (Immutable(["amount", "day"]), "unit.Order:immutable_amount_day"),
        (Check(amount__gt=0, name="positive"), "unit.Order:positive"),
    ],
)
def test_the_label_of_a_mistake_can_be_read(declaration, label):
    found, *_ = findings(order_with(declaration))

    assert str(found.obj) == label


def test_every_message_links_to_its_section():
    headings = re.findall(r"^## (.+)$", (PACKAGE.parent / "docs/errors.md").read_text(), re.M)
    anchors = {heading.lower().replace(".", "") for heading in headings}

    for code in emitted():
        hint = checks.message(code, "Fact.", "Fix.").hint
        link = re.fullmatch(r"Fix\. See docs/errors\.md#(\w+)\.", hint)
        assert link is not None
        assert link[1] in anchors


@pytest.mark.parametrize(
    "needed",
    [
        check(Q(amount__gt=F("old__amount"))),
        check(Q(amount__gt=0), deferred=True),
        check(Q(amount__gt=0), operation=pgtrigger.Delete),
        check(Q(double_amount__gt=0), double_amount=F("amount") * 2),
    ],
    ids=["old row", "deferred", "operation", "annotation"],
)
def test_no_i001_where_a_trigger_is_needed(needed):
    assert findings(order_with(needed)) == []


def test_no_i001_where_no_constraint_can_be_added():
    model = order_with()
    proxy = declare(
        check(Q(amount__gt=0)), class_name="Proxy", bases=(model,), meta={"proxy": True}
    )
    assert findings(model, proxy) == []


@kinds(
    arithmetic=(Compute("net", F("amount") - F("discount")), "GeneratedField can", "Keep the Com"),
    case=(
        Compute("net", Case(When(status="paid", then=F("amount")), default=-F("amount"))),
        "GeneratedField can",
        "without rewriting the table",
    ),
    text=(Compute("note", Lower("status")), "GeneratedField can", "to compute from it"),
)
def test_i002(declaration, fact, fix):
    reported("I002", declaration, fact, fix)


@pytest.mark.parametrize(
    "needed",
    [
        [Compute("net", F("double"))],
        [Compute("note", Cast("day", models.CharField()))],
        [Compute("net", Func("amount", function="my_rounding"))],
        [Compute("net", ExpressionWrapper(F("data__a"), output_field=models.DecimalField()))],
        [Compute("previous", F("key"))],
    ],
    ids=["generated", "date", "unknown function", "json", "relation"],
)
def test_no_i002_where_a_trigger_is_needed(needed):
    assert not {"I002"} & set(ids(findings(order_with(*needed))))


def test_no_i002_in_a_chain():
    """A generated column can neither read a computed one in time nor be read by it."""
    model = order_with(
        Compute("net", F("amount") - F("discount")), Compute("gross", F("net") * Value(2))
    )
    assert findings(model) == []


def test_hints_come_only_with_declarations_that_work():
    found = findings(order_with(check(Q(amont__gt=0)), Compute("quantity", F("nothing"))))

    assert set(ids(found)) == {"E020"}


# All of them.


PACKAGE = Path(bulksafe.__file__).parent
CODE = re.compile(r'"([EWI]\d{3})"')


def emitted():
    """The ids in the code."""
    return {code for path in PACKAGE.rglob("*.py") for code in CODE.findall(path.read_text())}


def test_every_id_has_a_test_and_every_test_an_id():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    tested = {code.upper() for code in re.findall(r"def test_([ewi]\d{3})\b", tests)}

    assert tested == emitted()


def test_every_id_is_documented_with_a_wrong_and_a_right_example():
    text = (PACKAGE.parent / "docs" / "errors.md").read_text()
    sections = re.split(r"^\(([EWI]\d{3})\)=$", text, flags=re.MULTILINE)[1:]
    documented = dict(zip(sections[::2], sections[1::2], strict=True))

    assert set(documented) == emitted()
    assert list(documented) == sorted(documented, key=lambda code: ("EWI".index(code[0]), code))
    for code, section in documented.items():
        assert f"## bulksafe.{code}" in section, code
        assert len(re.findall(r"^```", section, re.MULTILINE)) >= 2, code


def test_at_least_sixty_kinds_of_mistakes_are_tried():
    kinds_tried = [
        value
        for function in globals().values()
        for mark in getattr(function, "pytestmark", ())
        if mark.name == "parametrize" and function.__name__.startswith("test_e")
        for value in mark.args[1]
    ]
    assert len(kinds_tried) >= 60


def documented_examples():
    """The examples that are one declaration, as (id, whether it is the wrong one, its code)."""
    text = (PACKAGE.parent / "docs" / "errors.md").read_text()
    pattern = r"^\(([EWI]\d{3})\)=$.*?^```python\n(.*?)^```$.*?^```python\n(.*?)^```$"
    for code, wrong, right in re.findall(pattern, text, re.MULTILINE | re.DOTALL):
        for is_wrong, example in ((True, wrong), (False, right)):
            if re.match(r"(Check|Compute|Immutable|Transition)\(", example):
                yield pytest.param(code, is_wrong, example, id=f"{code}-{is_wrong}")


@pytest.mark.parametrize(("code", "is_wrong", "example"), list(documented_examples()))
def test_the_documented_examples_are_what_they_are_said_to_be(code, is_wrong, example):
    declaration = eval(example, dict(globals()))

    found = ids(findings(order_with(declaration)))

    if is_wrong:
        assert found == [code]
    else:
        assert not [other for other in found if other.startswith("E") or other == code]


def documented_models():
    """The examples that are a model, or what the body of ``Order`` adds, in the same form."""
    text = (PACKAGE.parent / "docs" / "errors.md").read_text()
    pattern = r"^\(([EWI]\d{3})\)=$.*?^```python\n(.*?)^```$.*?^```python\n(.*?)^```$"
    for code, wrong, right in re.findall(pattern, text, re.MULTILINE | re.DOTALL):
        for is_wrong, example in ((True, wrong), (False, right)):
            if "class Meta" in example and "Emit" not in example:
                yield pytest.param(code, is_wrong, example, id=f"{code}-{is_wrong}")


def documented_model(example):
    source = example
    if not example.startswith("class ") or example.startswith("class Meta"):
        source = f"class Body:\n{textwrap.indent(example, '    ')}"
    known = {**globals(), "__name__": "tests.apps.practice.example"}
    exec(source, known)
    found = list(known.values())[-1]
    if issubclass(found, models.Model):
        return found
    options = {name: value for name, value in vars(found.Meta).items() if name[0] != "_"}
    fields = {name: value for name, value in vars(found).items() if isinstance(value, models.Field)}
    return order_with(fields={"number": models.CharField(max_length=9)} | fields, **options)


@pytest.mark.parametrize(("code", "is_wrong", "example"), list(documented_models()))
def test_the_documented_models_are_what_they_are_said_to_be(code, is_wrong, example):
    found = ids(findings(documented_model(example)))

    assert (code in found) == is_wrong
    assert not {other for other in found if other.startswith("E")} - {code}


@pytest.mark.parametrize("is_wrong", [True, False])
def test_the_documented_routers_are_what_they_are_said_to_be(is_wrong):
    text = (PACKAGE.parent / "docs" / "errors.md").read_text()
    examples = re.findall(r"^```python\n(class Router:.*?)^```$", text, re.MULTILINE | re.DOTALL)
    known = {}
    exec(examples[0 if is_wrong else 1].replace('"sqlite"', '"lite"'), known)
    model = order_with(check(Q(amount__gt=F("old__amount"))), app_label="shop")

    with override_settings(DATABASE_ROUTERS=[known["Router"]()]):
        assert ids(findings(model)) == (["E007"] if is_wrong else [])


def examples_of(code):
    text = (PACKAGE.parent / "docs" / "errors.md").read_text()
    _, section = text.split(f"\n({code})=\n")
    return re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[:2]


@pytest.mark.parametrize(("position", "expected"), [(0, ["E008"]), (1, [])])
def test_the_documented_registrations_are_what_they_are_said_to_be(position, expected):
    known = {**globals(), "__name__": "tests.apps.practice.invariants"}
    with registered():
        exec(examples_of("E008")[position], known)
        assert ids(checks.check_declarations(None)) == expected


@pytest.mark.parametrize(("position", "expected"), [(0, ["E009"]), (1, [])])
def test_the_documented_settings_are_what_they_are_said_to_be(settings, position, expected):
    known = {}
    exec(examples_of("E009")[position], known)
    settings.BULKSAFE = known["BULKSAFE"]
    assert ids(checks.check_settings(None)) == expected


def test_what_is_documented_for_a_many_to_many_field():
    model = order_with()
    known = {**globals(), "__name__": "tests.apps.practice.invariants", "Order": model}
    with registered(model, model.tags.through):
        exec(examples_of("E033")[1], known)
        assert ids(checks.check_declarations(None)) == []


def test_what_is_documented_in_place_of_a_trigger():
    condition, expression = (
        eval(examples_of(code)[1], dict(globals())) for code in ("I001", "I002")
    )

    model = order_with(constraints=[condition], fields={"net": expression})

    assert [constraint.name for constraint in model._meta.constraints] == ["not_negative"]
    assert model._meta.get_field("net").generated
