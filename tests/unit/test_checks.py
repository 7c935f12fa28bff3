"""The checks of a declaration as a whole, the hints, and the documentation of every check.

A test is named after its id and runs once for each kind of mistake that has it. That the
declarations stand in decorators shows that making one never raises.
"""

import datetime  # noqa: F401  (for the examples in the docs)
import re
import textwrap
from pathlib import Path

import pgtrigger
import pytest
from django.core import checks as django_checks
from django.db import models
from django.db.models import (
    Case,
    F,
    Func,
    Q,
    Value,
    When,
    functions,
)
from django.db.models.expressions import ExpressionWrapper, RawSQL
from django.db.models.functions import (
    Cast,
    Lower,
)
from django.test import override_settings
from django.utils.translation import gettext_lazy

import bulksafe
from bulksafe import Check, Compute, Immutable, Transition, checks, planning
from bulksafe.declarations import declared
from tests.unit import test_checks_expressions, test_checks_invariants
from tests.unit.declaring import declare, findings, ids, registered
from tests.unit.reporting import (
    User,
    _isolated,  # noqa: F401
    check,
    kinds,
    order_with,
    reported,
    says,
)


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


def test_names_derived_from_fields_may_be_long_or_non_ascii():
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
    """A child that adds a rule of the same name to its inherited ones."""
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


def test_a_rejected_declaration_is_checked_too():
    model = order_with(Check(Q(amount__gt=F("old__amount"))), Check(Q(amont__gt=0)))

    assert ids(findings(model)) == ["E002", "E002", "E020"]


def test_a_declaration_in_an_abstract_base_applies_to_each_child():
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


@kinds(
    typo=(check(Q(amount__gt=0), mode="observed"), "mode is 'observed'", "Did you mean 'observe'?"),
    none=(Immutable("amount", mode=None), "mode is None", 'mode="enforce" or mode="new" or'),
    unhashable=(
        Transition("status", {"a": ["b"]}, mode=["new"]),
        "mode is ['new']",
        "Did you mean 'new'?",
    ),
    compute=(Compute("net", F("amount"), mode="NEW"), "mode is 'NEW'", "Write mode="),
)
def test_e013(declaration, fact, fix):
    found = findings(order_with(declaration))

    assert "E013" in ids(found)
    says(next(one for one in found if one.id == "bulksafe.E013"), fact, fix)


@kinds(
    immutable=(Immutable("amount", mode="new"), "an Immutable", "It is enforced"),
    change=(
        check(Q(old__amount__lte=F("new__amount")), mode="new"),
        "a rule over the old and the new row",
        'mode="observe"',
    ),
    deletion=(
        check(Q(status="paid"), operation=pgtrigger.Delete, mode="new"),
        "a rule for deletion",
        "Leave mode= out",
    ),
)
def test_i003(declaration, fact, fix):
    (found,) = findings(order_with(declaration))
    assert found.id == "bulksafe.I003"
    says(found, fact, fix)


@pytest.mark.parametrize("mode", ["new", "observe"])
def test_a_rule_that_is_not_enforced_has_no_alternative(mode):
    rules = [check(Q(amount__gt=0), mode=mode), Compute("net", -F("amount"), mode=mode)]
    assert findings(order_with(*rules)) == []


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


def test_hints_are_not_shown_by_every_command(settings):
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
def test_no_i001_if_a_trigger_is_needed(needed):
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
def test_no_i002_if_a_trigger_is_needed(needed):
    assert not {"I002"} & set(ids(findings(order_with(*needed))))


def test_no_i002_in_a_chain():
    """A generated column can neither read a computed one in time nor be read by it."""
    model = order_with(
        Compute("net", F("amount") - F("discount")), Compute("gross", F("net") * Value(2))
    )
    assert findings(model) == []


def test_hints_appear_only_for_valid_declarations():
    found = findings(order_with(check(Q(amont__gt=0)), Compute("quantity", F("nothing"))))

    assert set(ids(found)) == {"E020"}


# All of them.


PACKAGE = Path(bulksafe.__file__).parent
CODE = re.compile(r'"([EWI]\d{3})"')


def example_names():
    """The names that the examples in the docs may use without importing them."""
    return {**vars(models), **vars(functions), "RawSQL": RawSQL, **globals()}


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
        for function in (
            vars(test_checks_expressions) | vars(test_checks_invariants) | globals()
        ).values()
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
def test_the_documented_examples_pass_or_fail_as_documented(code, is_wrong, example):
    declaration = eval(example, example_names())

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
    known = {**example_names(), "__name__": "tests.apps.practice.example"}
    exec(source, known)
    found = list(known.values())[-1]
    if issubclass(found, models.Model):
        return found
    options = {name: value for name, value in vars(found.Meta).items() if name[0] != "_"}
    fields = {name: value for name, value in vars(found).items() if isinstance(value, models.Field)}
    return order_with(fields={"number": models.CharField(max_length=9)} | fields, **options)


@pytest.mark.parametrize(("code", "is_wrong", "example"), list(documented_models()))
def test_the_documented_models_pass_or_fail_as_documented(code, is_wrong, example):
    found = ids(findings(documented_model(example)))

    assert (code in found) == is_wrong
    assert not {other for other in found if other.startswith("E")} - {code}


@pytest.mark.parametrize("is_wrong", [True, False])
def test_the_documented_routers_pass_or_fail_as_documented(is_wrong):
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
def test_the_documented_registrations_pass_or_fail_as_documented(position, expected):
    known = {**example_names(), "__name__": "tests.apps.practice.invariants"}
    with registered():
        exec(examples_of("E008")[position], known)
        assert ids(checks.check_declarations(None)) == expected


@pytest.mark.parametrize(("position", "expected"), [(0, ["E009"]), (1, [])])
def test_the_documented_settings_pass_or_fail_as_documented(settings, position, expected):
    known = {}
    exec(examples_of("E009")[position], known)
    settings.BULKSAFE = known["BULKSAFE"]
    assert ids(checks.check_settings(None)) == expected


def test_the_documented_registration_of_a_many_to_many_field_passes():
    model = order_with()
    known = {**example_names(), "__name__": "tests.apps.practice.invariants", "Order": model}
    with registered(model, model.tags.through):
        exec(examples_of("E033")[1], known)
        assert ids(checks.check_declarations(None)) == []


def test_the_documented_alternatives_to_a_trigger_work():
    condition, expression = (
        eval(examples_of(code)[1], example_names()) for code in ("I001", "I002")
    )

    model = order_with(constraints=[condition], fields={"net": expression})

    assert [constraint.name for constraint in model._meta.constraints] == ["not_negative"]
    assert model._meta.get_field("net").generated
