"""Each check of a receiver and of an ``Emit``: what is reported, the fact, and the fix.

A test is named after its id and runs once for each kind of mistake that has it.
"""

import functools
import linecache
import re
from pathlib import Path

import pgtrigger
import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser, Group, User, update_last_login
from django.core import checks as django_checks
from django.core import signals as core_signals
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.db.models.signals import (
    m2m_changed,
    post_delete,
    post_save,
    pre_delete,
    pre_init,
    pre_save,
)
from django.dispatch import Signal
from django.test import override_settings

import bulksafe
from bulksafe import Emit, checks, critical
from bulksafe.declarations import capture, receiver, receivers, senders
from bulksafe.declarations import registry as declarations
from tests.unit.declaring import declare, findings, isolated

order_fulfilled = Signal()
DONE = Q(new__status="done") & ~Q(old__status="done")


#: Modules that are taken for such of an app.
OWN = {__name__, "builtins"}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No receivers but those of the test, and a model registry of its own.

    This module is as one of an app of the project.
    """
    emits = list(declarations.emits)
    declarations.emits.clear()
    find, own = apps.get_containing_app_config, apps.get_app_config("practice")

    def find_or_own(name):
        return find(name) or (own if name in OWN else None)

    monkeypatch.setattr(apps, "get_containing_app_config", find_or_own)
    with receivers.isolated(), isolated():
        yield
    declarations.emits[:] = emits


def emit(signal=order_fulfilled, when=DONE, name="done", **options):
    return Emit(signal, when=when, name=name, **options)


def order(*triggers, **fields):
    return declare(*triggers, status=models.CharField(max_length=10), **fields)


def module_level(sender, **kwargs):
    """A receiver with a name that can be imported."""


def and_another(sender, **kwargs):
    """A second receiver."""


def declared(function=module_level, signal=post_save, **options):
    options = {"sender": User, "run": "after_commit"} | options
    return critical(signal, **options)(function)


def found():
    return checks.check_receivers(None)


def reported(code, fact, fix):
    (message,) = found()
    assert message.id == f"bulksafe.{code}"
    assert fact in message.msg
    assert fix in message.hint
    levels = {
        "E": django_checks.ERROR,
        "W": django_checks.WARNING,
        "I": django_checks.INFO,
    }
    assert message.level == levels[code[0]]


def test_a_receiver_without_mistakes():
    declared(when=Q(new__is_active=True) & ~Q(old__is_active=True), queue="mail", max_attempts=1)
    declared(and_another, post_delete, after=[], batch=True)
    declared(module_level, m2m_changed, sender=User.groups.through)
    declared(module_level, [post_save, post_delete], sender=["auth.Group"])

    assert found() == []


@pytest.mark.parametrize(
    ("run", "fix"),
    [
        ("after_comit", "Did you mean 'after_commit'?"),
        ("in_transactoin", "Did you mean 'in_transaction'?"),
        (None, 'Write run="after_commit"'),
        (True, 'Write run="after_commit"'),
    ],
)
def test_e100(run, fix):
    declared(run=run)
    reported("E100", f"run is {run!r}", fix)


def test_e101():
    declared(run="in_database")
    reported("E101", 'run="in_database"', 'Write run="in_transaction"')


@pytest.mark.parametrize(
    ("signal", "fact", "fix"),
    [
        (order_fulfilled, "does not say which rows", "bulksafe.Emit"),
        (pre_init, "does not say which rows", "bulksafe.Emit"),
        (core_signals.request_started, "does not say which rows", "bulksafe.Emit"),
        ("post_save", "'post_save' is not a signal", "Did you mean 'post_save'?"),
        (None, "None is not a signal", "Take one of pre_save, post_save"),
        (User, "the class User is not a signal", "Take one of"),
    ],
)
def test_e102(signal, fact, fix):
    declared(signal=signal)
    reported("E102", fact, fix)


@pytest.mark.parametrize(
    ("signal", "fix"), [(pre_save, "Take post_save"), (pre_delete, "Take post_delete")]
)
def test_e103(signal, fix):
    declared(signal=signal)
    reported("E103", "comes before the row is written", fix)


@pytest.mark.parametrize("sender", [None, [], ()])
def test_e104(sender):
    declared(sender=sender)
    reported("E104", "has no sender", "sender=Order, sender=[Order, Invoice]")
    reported("E104", "has no sender", "sender=bulksafe.models_of('practice')")


class Unused(models.Model):
    class Meta:
        abstract = True
        app_label = "unit"


def unmanaged():
    return declare(class_name="View", meta={"managed": False})


@pytest.mark.parametrize(
    ("sender", "fact", "fix"),
    [
        ("auth.Usr", "no model 'auth.Usr'", "Did you mean 'auth.User'?"),
        ("User", "no model 'User'", "Did you mean 'auth.User'?"),
        ("a.b.c", "no model 'a.b.c'", "app.Model"),
        (Unused, "no child with a table", "concrete model"),
        (unmanaged, "is unmanaged", "managed = True"),
        (object, "the class object is not a model", "Pass a model"),
        (3, "3 is not a model", "Pass a model"),
        (models.Model, "is not a model", "Pass a model"),
    ],
)
def test_e105(sender, fact, fix):
    declared(sender=sender() if sender is unmanaged else sender)
    reported("E105", fact, fix)


@pytest.mark.parametrize(
    ("label", "signal", "fact", "fix"),
    [
        ("practise", post_save, "no installed app has this label", "Did you mean 'practice'?"),
        ("django.contrib.auth", post_save, "no installed app", "Did you mean 'auth'?"),
        ("zzz", post_save, "no installed app", "Pass one of"),
        ("postgres", post_save, "has no model with a table", "Leave its label out"),
        ("invoices", m2m_changed, "has no many-to-many table", "Leave its label out"),
    ],
)
def test_e105_of_models_of(label, signal, fact, fix):
    declared(signal=signal, sender=bulksafe.models_of("auth", label))
    reported("E105", fact, fix)


def test_models_of_apps():
    declared(sender=bulksafe.models_of("auth", "invoices"))
    declared(signal=m2m_changed, sender=bulksafe.models_of("auth"))

    assert found() == []
    every, links = ({model._meta.label for model in one.models()} for one in receivers.receivers)
    assert every == {"auth.User", "auth.Group", "auth.Permission"} | {
        f"invoices.{name}" for name in ("Invoice", "Receipt", "Voucher")
    }
    assert links == {"auth.User_groups", "auth.User_user_permissions", "auth.Group_permissions"}
    assert [one.name.partition("@")[2] for one in receivers.receivers] == [
        "auth.*+invoices.*.post_save",
        "auth.*.m2m_changed",
    ]


def test_models_of_finds_models_that_are_declared_later_and_have_a_table(monkeypatch):
    declared(sender=bulksafe.models_of("unit"))
    (one,) = receivers.receivers
    with isolated() as registry:
        for module in (senders, receiver):
            monkeypatch.setattr(module, "apps", registry)
        assert one.models() == []
        assert not one.is_called_for("unit.thing")
        thing = declare(class_name="Thing")
        declare(class_name="View", meta={"managed": False})
        declare(class_name="Special", bases=(thing,), meta={"proxy": True})
        declare(class_name="Base", meta={"abstract": True})
        child = declare(class_name="Child", bases=(thing,))
        assert one.models() == [thing, child]
        assert one.is_called_for("unit.thing")


@pytest.mark.parametrize("labels", [(), (User,), (["auth"],), ("auth", None)])
def test_models_of_takes_labels(labels):
    with pytest.raises(TypeError, match="pass the labels of apps as text"):
        bulksafe.models_of(*labels)


def test_e105_one_of_several():
    declared(sender=[User, "auth.Grop"])
    reported("E105", "auth.Grop", "Did you mean 'auth.Group'?")


def test_an_abstract_sender_stands_for_its_children():
    declared(sender=AbstractUser)

    assert found() == []
    assert receivers.receivers[0].models() == [get_user_model()]


def no_kwargs(sender, instance):
    """Takes what Django sends today."""


@pytest.mark.parametrize(
    ("function", "fact", "fix"),
    [
        (no_kwargs, "takes no **kwargs", "Add **kwargs"),
        ("module_level", "cannot be called", "Decorate a function"),
    ],
)
def test_e106(function, fact, fix):
    declared(function, dispatch_uid="it")
    reported("E106", fact, fix)


THROUGH = User.groups.through


@pytest.mark.parametrize(
    ("function", "options", "fact", "fix"),
    [
        (
            lambda created, **k: 0,
            {"signal": post_delete},
            "requires “created”",
            "give it a default",
        ),
        (lambda *, pk_set, **k: 0, {}, "requires “pk_set”, which post_save", "give it a default"),
        (
            lambda old, **k: 0,
            {"signal": m2m_changed, "sender": THROUGH},
            "requires “old”, which m2m_changed does not pass",
            "Leave the parameter out",
        ),
        (lambda instance, **k: 0, {"batch": True}, "with batch=True", "each of “events”"),
        (lambda old, **k: 0, {"batch": True}, "requires “old”", "each of “events”"),
        (lambda sender, /, **k: 0, {}, "“sender” by position only", "Remove the “/”"),
    ],
)
def test_e106_of_a_parameter_that_no_call_fills(function, options, fact, fix):
    declared(function, dispatch_uid="it", **options)
    reported("E106", fact, fix)


def with_user(function):
    @functools.wraps(function)
    def wrapper(**kwargs):
        return function(user="someone", **kwargs)

    return wrapper


@with_user
def module_level_with_user(sender, user, **kwargs):
    """Gets an argument that no signal passes."""


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (lambda created=None, old=None, **k: 0, {"signal": [post_save, post_delete]}),
        (lambda instances, events, context=None, **k: 0, {"batch": True}),
        (lambda action, pk_set, event_id, **k: 0, {"signal": m2m_changed, "sender": THROUGH}),
        (lambda signal, using, old, changed, event_id, context, raw, **k: 0, {}),
        (module_level_with_user, {}),
    ],
)
def test_no_e106_of_a_parameter_that_calls_fill(function, options):
    declared(function, dispatch_uid="it", **options)
    assert found() == []


def reads(**kwargs):
    return kwargs["old"], kwargs.get("changed"), kwargs.pop("context", None)


def asks_whether(sender, event_id, **rest):
    return "old" in rest and "event_id" not in rest


def loops(sender, **kwargs):
    old, changed = [kwargs.get(name) for name in ("old", "changed")]
    return old, changed


async def reads_later(sender, **kwargs):
    return kwargs["context"]


class Reads:
    def __call__(self, **kwargs):
        return kwargs["old"]


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (reads, "“old” and “changed” and “context”"),
        (asks_whether, "“old” in its"),
        (loops, "“old” and “changed” in its"),
        (reads_later, "“context”"),
        (Reads(), "“old”"),
        (functools.partial(reads, sender=None), "“old”"),
        (with_user(reads), "“old”"),
        (lambda **kwargs: kwargs["old"], "“old”"),
    ],
)
def test_w125(function, names):
    declared(function, dispatch_uid="it")
    reported("W125", f"looks for {names}", "Add them as parameters: def receiver(sender, ")


def reads_djangos(sender, **kwargs):
    return kwargs["created"], kwargs.get("old_price"), {"old": 1}["old"], "old"


def reads_in_a_function_of_its_own(sender, **kwargs):
    def inner(**kwargs):
        return kwargs["old"]

    return inner(old=1, **kwargs)


def reads_another(sender, names, **kwargs):
    return names["old"], names.get("context"), "changed" in names


def names_it(sender, old, **kwargs):
    return old, kwargs.get("old")


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (reads_djangos, {}),
        (reads_in_a_function_of_its_own, {}),
        (functools.partial(reads_another, names={}), {}),
        (names_it, {}),
        (reads, {"batch": True}),
        (dict, {"signal": post_save}),
    ],
)
def test_no_w125(function, options):
    declared(function, dispatch_uid="it", **options)
    assert found() == []


def test_w125_is_silent_where_there_is_no_source():
    namespace = {"__name__": __name__}
    exec("def unseen(**kwargs): return kwargs['old']", namespace)
    declared(namespace["unseen"])
    assert found() == []


def test_e107():
    declared(module_level, dispatch_uid="one")
    declared(and_another, dispatch_uid="one")

    assert [message.id for message in found()] == ["bulksafe.E107"] * 2
    assert "the name “one”" in found()[0].msg


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"sender": Group}, {"sender": User}),
        ({"signal": post_delete}, {"signal": post_save}),
        (
            {"signal": [post_save, post_delete]},
            {"signal": [post_save, post_delete], "sender": Group},
        ),
    ],
)
@pytest.mark.parametrize("uid", ["one", ("shop", 1)])
def test_no_e107_where_receivers_of_different_writes_share_a_uid(first, second, uid):
    declared(module_level, dispatch_uid=uid, **first)
    declared(and_another, dispatch_uid=uid, **second)
    assert found() == []


def test_e107_two_functions_with_the_uid_and_the_sender_of_each_other():
    declared(module_level, dispatch_uid="one")
    declared(module_level, post_delete, dispatch_uid="one")
    declared(and_another, dispatch_uid="one")

    messages = found()
    assert [message.id for message in messages] == ["bulksafe.E107"] * 2
    assert "the name “one@auth.User.post_save”" in messages[0].msg


def test_e107_one_function_declared_twice_with_different_options():
    declared(when=Q(new__is_active=True))
    declared(when=Q(new__is_active=False))
    assert [message.id for message in found()] == ["bulksafe.E107"] * 2


def test_e107_of_a_model_and_its_proxy_with_different_options():
    proxy = declare(class_name="Staff", bases=(User,), meta={"proxy": True})
    declared(queue="mail")
    declared(sender=proxy)
    (message,) = found()
    assert message.id == "bulksafe.E107"
    assert "Declare the function once for the table" in message.hint


def test_the_same_receiver_declared_again_replaces_itself():
    declared(dispatch_uid="one")
    declared(dispatch_uid="one")

    assert found() == []
    assert len(receivers.receivers) == 1


def test_stacked_decorators_stay_apart():
    declared(declared(sender=Group))

    assert found() == []
    assert len({receiver.name for receiver in receivers.receivers}) == 2


def test_e108():
    declared(module_level, dispatch_uid="one", after=["other"])
    declared(and_another, dispatch_uid="other", after=[module_level])

    messages = found()
    assert [message.id for message in messages] == ["bulksafe.E108"] * 2
    assert "one → other → one" in messages[0].msg or "other → one → other" in messages[0].msg
    assert "Remove one after=" in messages[0].hint


def test_e108_a_receiver_after_itself():
    declared(dispatch_uid="one", after=["one"])
    reported("E108", "one → one", "Remove one after=")


@pytest.mark.parametrize(
    ("after", "fix"),
    [
        (["keep_histroy"], "Did you mean 'keep_history'?"),
        ([no_kwargs], "decorated with @critical"),
        ("keep_histroy", "Did you mean"),
    ],
)
def test_e109(after, fix):
    declared(and_another, dispatch_uid="keep_history")
    declared(after=after if isinstance(after, list) else [after])
    reported("E109", "which is not a critical receiver", fix)


def test_e110():
    declared(lambda **kwargs: None)
    reported("E110", "no permanent name", "dispatch_uid=")


def test_e110_a_function_in_a_function():
    def inner(**kwargs): ...

    declared(inner)
    reported("E110", "no permanent name", "dispatch_uid=")


def test_no_e110_with_a_name():
    declared(lambda **kwargs: None, dispatch_uid="nothing")
    assert found() == []


@pytest.mark.parametrize("uid", [frozenset({"a", "b"}), object(), ("shop", object())])
def test_e110_a_uid_whose_text_is_different_in_each_process(uid):
    declared(dispatch_uid=uid)
    reported("E110", "the text differs in each process", "a tuple of texts and numbers")


def test_no_e110_for_such_a_uid_in_the_transaction():
    declared(dispatch_uid=frozenset({"a"}), run="in_transaction")
    assert found() == []


@pytest.mark.parametrize("uid", [("shop", ["a"]), {"a": 1}])
def test_e112_of_a_uid_that_has_no_hash(uid):
    declared(dispatch_uid=uid)
    reported("E112", "not hashable", 'dispatch_uid="shop.notify"')


def test_e112_of_a_blank_uid():
    declared(dispatch_uid=" ")
    reported("E112", "dispatch_uid is empty", "Leave it out")


@pytest.mark.parametrize(
    ("option", "value", "fact"),
    [
        ("batch", "yes", "not True or False"),
        ("atomic", None, "not True or False"),
        ("coalesce", 1, "not True or False"),
        ("queue", "", "a name without spaces"),
        ("queue", "a b", "a name without spaces"),
        ("queue", "a,b", "a name without spaces"),
        ("queue", None, "a name without spaces"),
        ("max_attempts", 0, "a positive whole number"),
        ("max_attempts", True, "a positive whole number"),
        ("max_attempts", 2.5, "a positive whole number"),
        ("on_dead", "ignore", "“block” or “skip”"),
    ],
)
def test_e112(option, value, fact):
    declared(**{option: value})
    reported("E112", fact, f"Write {option}=")


@pytest.mark.parametrize("option", ["batch", "coalesce"])
def test_e112_for_m2m_changed(option):
    declared(signal=m2m_changed, sender=User.groups.through, **{option: True})
    reported("E112", "one call for all rows", "Leave batch= and coalesce= out")


@pytest.mark.parametrize(
    ("when", "fact"),
    [
        ("paid", "neither true nor false"),
        (F("username"), "neither true nor false"),
        (Q, "neither true nor false"),
        (Q(username__in=[]), "the same for every change"),
    ],
)
def test_e113(when, fact):
    declared(when=when)
    reported("E113", fact, "new__")


def test_e113_for_m2m_changed():
    declared(signal=m2m_changed, sender=User.groups.through, when=Q(user_id=1))
    reported("E113", "test a row of the table in between", "use pk_set")


@pytest.mark.parametrize(
    ("when", "code"),
    [
        (Q(new__usrname="a"), "E020"),
        (Q(old__groups=1), "E033"),
        (Q(new__date_joined__lt=Now()), "E025"),
    ],
)
def test_errors_inside_a_condition_have_the_ids_of_a_check(when, code):
    declared(when=when)

    (message,) = found()
    assert message.msg.startswith("when: ")
    assert message.id.startswith("bulksafe.E0"), (message.id, code)


def test_e114():
    declared(signal=m2m_changed, sender=User)
    reported("E114", "not the table of a many-to-many field", "sender=Article.tags.through")


@pytest.mark.parametrize(
    ("declaration", "fact", "fix"),
    [
        (emit(post_save), "not a custom signal", "@bulksafe.critical"),
        (emit("done"), "not a custom signal", "django.dispatch.Signal()"),
        (emit(name=""), "has no name", "name="),
        (emit(when=None), "has no condition", "when=Q("),
        (emit(argument="sender"), "argument is 'sender'", "order"),
        (emit(argument="an order"), "argument is 'an order'", "order"),
        (emit(argument=None), "argument is None", "order"),
        (emit(operation=pgtrigger.Truncate), "operation is", "pgtrigger.Insert"),
        (emit(operation="update"), "operation is 'update'", "pgtrigger.Insert"),
    ],
)
def test_e115(declaration, fact, fix):
    findings(order(declaration))
    reported("E115", fact, fix)


def test_an_emit_without_mistakes():
    findings(order(emit(argument="order")))
    assert found() == []


async def later(sender, **kwargs):
    """A coroutine function."""


@pytest.mark.parametrize("run", ["after_commit", "in_transaction"])
def test_an_asynchronous_receiver_passes_the_checks(run):
    declared(later, run=run)
    assert found() == []


@pytest.mark.parametrize("lane", [{"queue": "mail"}, {"atomic": False}])
def test_w118(lane):
    declared(and_another)
    declared(after=[and_another], **lane)
    reported("W118", "neither waits for the other", "the same queue=")


# Receivers in the writer's transaction.


def module_level_counter(sender, **kwargs):
    return sender.objects.filter(username="a").count() == 1


def module_level_own_row(sender, instance, **kwargs):
    return sender.objects.get(pk=instance.pk)


def test_e103_of_a_writer_elsewhere():
    declared(signal=pre_save, run="in_transaction", otherwise="after_commit")
    reported("E103", 'otherwise="after_commit"', "post_save")


def test_e119():
    critical(post_save, sender=User, run="after_commit", dispatch_uid="later")(module_level)
    declared(run="in_transaction", after=["later"])
    reported("E119", "later runs after the commit", "Leave it out of after=")


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"run": "in_transaction", "queue": "mail"}, "queue= is for receivers that the listener"),
        ({"run": "in_transaction", "atomic": False}, "atomic= is for receivers that the listener"),
        ({"run": "in_transaction", "coalesce": True}, "coalesce= is for receivers"),
        ({"run": "in_transaction", "max_attempts": 3}, "max_attempts= is for receivers"),
        ({"run": "in_transaction", "on_dead": "skip"}, "on_dead= is for receivers"),
        ({"run": "after_commit", "otherwise": "after_commit"}, "otherwise= is for receivers in"),
        ({"run": "after_commit", "row_by_row": True}, "row_by_row= is for receivers in"),
        ({"run": "in_transaction", "row_by_row": True, "batch": True}, "batch= calls"),
    ],
)
def test_e121(options, fact):
    declared(**options)
    reported("E121", fact, "Leave")


def test_options_of_the_listener_are_for_writers_elsewhere_too():
    declared(run="in_transaction", otherwise="after_commit", queue="mail", max_attempts=3)
    assert not found()


@pytest.mark.parametrize("value", ["later", None, True, "after-commit"])
def test_e112_otherwise(value):
    declared(run="in_transaction", otherwise=value)
    reported("E112", "otherwise is", 'Write otherwise="refuse"')


def test_i120():
    critical(post_save, sender=User)(module_level_counter)
    reported("I120", "sender.objects.filter(username='a').count()", "row_by_row=False")


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (module_level_counter, {"row_by_row": True}),
        (module_level_counter, {"row_by_row": False}),
        (module_level_counter, {"run": "after_commit"}),
        (module_level_counter, {"batch": True}),
        (module_level_own_row, {}),
    ],
)
def test_no_i120(function, options):
    critical(post_save, sender=User, **options)(function)
    assert not found()


def test_a_lambda_in_the_transaction_needs_no_name():
    critical(post_save, sender=User)(lambda **kwargs: None)
    assert not found()


def outside(function=module_level, signal=post_save, sender=User):
    """Declared as by a module outside all apps, with its function."""
    code = "def declare(critical, function, *args, **options): critical(*args, **options)(function)"
    namespace = {"__name__": "project.signals"}
    exec(code, namespace)
    function.__module__ = "project.signals"
    try:
        namespace["declare"](critical, function, signal, sender=sender)
    finally:
        function.__module__ = __name__


@pytest.mark.parametrize(
    ("signal", "sender", "app"),
    [
        (post_save, User, "django.contrib.auth"),
        (post_save, "auth.User", "django.contrib.auth"),
        (m2m_changed, User.groups.through, "django.contrib.auth"),
    ],
)
def test_e122(signal, sender, app):
    outside(signal=signal, sender=sender)
    reported("E122", f"would go to the installed package {app}", "in one of your apps")


def test_e122_for_a_package_that_app_label_names():
    declared(sender="practice.PlainArticle", app_label="auth")
    reported("E122", "would go to the installed package django.contrib.auth", "in one of your apps")


@pytest.mark.parametrize(
    ("app_label", "fix"), [("practise", "Did you mean 'practice'?"), ([], None), (7, "Pass one of")]
)
def test_e124(app_label, fix):
    declared(sender="practice.PlainArticle", app_label=app_label)
    if fix is None:
        assert not found()
    else:
        reported("E124", "is not the label of an installed app", fix)


def test_no_e122_for_a_table_of_the_project():
    outside(sender="practice.PlainArticle")
    assert not found()


def test_no_e122_where_the_model_s_app_is_not_installed(settings):
    """As in a project's test that overrides the settings."""
    declared()
    installed = [name for name in settings.INSTALLED_APPS if name.startswith("django.contrib.co")]
    with override_settings(INSTALLED_APPS=installed):
        assert "bulksafe.E122" not in {message.id for message in found()}


def test_no_e122_for_a_function_of_a_package_that_is_declared_here():
    critical(post_save, sender=User)(update_last_login)
    assert "bulksafe.E122" not in {message.id for message in found()}
    assert capture.home_of(User) == "practice"


def documented_examples():
    text = (Path(bulksafe.__file__).parents[1] / "docs" / "errors.md").read_text()
    pattern = r"^\(([EWI]1\d{2})\)=$.*?^```python\n(.*?)^```$.*?^```python\n(.*?)^```$"
    for code, wrong, right in re.findall(pattern, text, re.MULTILINE | re.DOTALL):
        for is_wrong, example in ((True, wrong), (False, right)):
            if "Emit(" not in example:
                yield pytest.param(code, is_wrong, example, id=f"{code}-{is_wrong}")


@pytest.mark.parametrize(("code", "is_wrong", "example"), list(documented_examples()))
def test_the_documented_examples_pass_or_fail_as_documented(monkeypatch, code, is_wrong, example):
    class Tagged:
        through = User.groups.through

    class Article(Group):
        tags = Tagged

        class Meta:
            proxy = True
            app_label = "unit"

    known = {**globals(), "Order": User, "Invoice": Group, "Article": Article, "notify": print}
    known |= {"Line": User, "Sum": models.Sum}
    known["Q"] = lambda **tests: Q(new__username=tests["new__status"])
    source = example.replace('"shop.Order"', '"auth.User"').replace('"shop.Ordr"', '"auth.Usr"')
    # One of the checks reads the receiver's source.
    name = f"example of {code}"
    monkeypatch.setitem(
        linecache.cache, name, (len(source), None, source.splitlines(keepends=True), name)
    )
    module = "project.signals" if (code, is_wrong) == ("E122", True) else __name__
    exec(compile(source, name, "exec"), known | {"__name__": module})

    codes = {message.id.removeprefix("bulksafe.") for message in found()}
    assert (code in codes) == is_wrong
    assert codes <= {code}


@pytest.mark.parametrize(("position", "expected"), [(0, ["bulksafe.E115"]), (1, [])])
def test_the_documented_emits_pass_or_fail_as_documented(position, expected):
    text = (Path(bulksafe.__file__).parents[1] / "docs" / "errors.md").read_text()
    examples = re.findall(r"^```python\n([^`]*Emit\([^`]*)^```$", text, re.MULTILINE)
    known = {**globals()}
    exec(examples[position], known)

    findings(order(*known["Meta"].triggers))

    assert [message.id for message in found()] == expected
