"""Declarations that would leave a receiver uncalled are errors where they stand."""

import functools

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.signals import post_save

import bulksafe
from bulksafe.declarations import receivers


@pytest.fixture(autouse=True)
def alone():
    with receivers.isolated():
        yield


def note(sender, **kwargs):
    """A receiver."""


class Note:
    def __call__(self, sender, **kwargs):
        pass


@pytest.mark.parametrize(
    ("declare", "name"),
    [
        (lambda: bulksafe.critical(note), "note"),
        (lambda: bulksafe.critical(note, sender=User), "note"),
        (lambda: bulksafe.critical(functools.partial(note)), "partial"),
        (lambda: bulksafe.critical(Note()), "Note"),
        (lambda: bulksafe.critical(Note), "Note"),
    ],
)
def test_a_decorator_without_parentheses(declare, name):
    with pytest.raises(TypeError) as caught:
        declare()
    assert str(caught.value) == (
        f"critical({name}) has a function in place of a signal, so {name} would never be called. "
        "Write @bulksafe.critical(post_save, sender=Order) above it."
    )


def test_a_decorator_without_a_signal():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'signal'"):
        bulksafe.critical()


@pytest.mark.parametrize(
    ("option", "fix"),
    [
        ("qeue", "Did you mean 'queue'?"),
        ("wek", "Did you mean 'weak'?"),
        ("atmic", "Did you mean 'atomic'?"),
        ("dispatch_id", "Did you mean 'dispatch_uid'?"),
        ("zzz", "Options are: sender, run, when, after, batch, weak, dispatch_uid, queue,"),
    ],
)
def test_an_unknown_option(option, fix):
    with pytest.raises(TypeError) as caught:
        bulksafe.critical(post_save, sender=User, **{option: True})
    assert str(caught.value).startswith(f"critical() has no option “{option}”. {fix}")


def in_a_class(**methods):
    """The decorator inside the body of a class."""

    class Audit:
        with pytest.raises(TypeError) as caught:

            @bulksafe.critical(post_save, sender=User)
            def note(self, sender, **kwargs):
                pass

    return Audit.caught


def test_a_method_in_the_body_of_its_class():
    text = str(in_a_class().value)
    assert "in_a_class.<locals>.Audit.note is a method, and a signal has no “self” for it" in text
    assert "bulksafe.critical(post_save, sender=Order)(that_object.note)" in text
    assert receivers.receivers == []


@pytest.mark.parametrize(
    "wrap",
    [transaction.atomic, classmethod, lambda function: function],
    ids=["atomic", "classmethod", "plain"],
)
def test_a_decorated_method(wrap):
    class Audit:
        def note(self, sender, **kwargs):
            pass

        def of_class(cls, sender, **kwargs):  # noqa: N805  (the mistake)
            pass

    for method in (Audit.note, Audit.of_class):
        with pytest.raises(TypeError, match="is a method, and a signal has no"):
            bulksafe.critical(post_save, sender=User)(wrap(method))


def test_functions_that_only_resemble_methods():
    class Audit:
        @bulksafe.critical(post_save, sender=User)
        def in_the_body(sender, **kwargs):  # noqa: N805  (no method)
            pass

        @staticmethod
        @bulksafe.critical(post_save, sender=User)
        def above(sender, **kwargs):
            pass

        @bulksafe.critical(post_save, sender=User)
        @staticmethod
        def below(sender, **kwargs):
            pass

        def note(self, sender, **kwargs):
            pass

        @classmethod
        def of_class(cls, sender, **kwargs):
            pass

    def function(self=None, **kwargs):
        pass

    declare = bulksafe.critical(post_save, sender=User)
    for one in (Audit().note, Audit.of_class, function, functools.partial(Audit.note, Audit())):
        declare(one)
    assert len(receivers.receivers) == 7


def test_a_function_that_wraps_itself():
    def around(sender, **kwargs):
        pass

    around.__wrapped__ = around
    around.__qualname__ = "Audit.around"
    bulksafe.critical(post_save, sender=User)(around)
    assert len(receivers.receivers) == 1


def test_single_items_of_after_and_sender():
    bulksafe.critical(post_save, sender="auth.User", after="keep_history")(note)
    bulksafe.critical(post_save, sender=User, after=note)(Note())
    assert [one.after for one in receivers.receivers] == [("keep_history",), (note,)]


def test_senders_in_any_collection_and_a_name_that_lasts():
    def declared(senders):
        with receivers.isolated():
            bulksafe.critical(post_save, sender=senders)(note)
            return receivers.receivers[0].senders

    labels = ["auth.User", "auth.Group", "admin.LogEntry"]
    assert declared(labels) == declared(iter(labels)) == tuple(labels)
    assert declared(dict.fromkeys(labels)) == tuple(labels)
    assert declared(set(labels)) == declared(frozenset(labels)) == tuple(sorted(labels))


def test_change_and_event_are_public():
    assert {"created", "deleted", "changed", "instance", "old"} <= set(dir(bulksafe.Change))
    assert "xid" in bulksafe.Event.__annotations__
    assert bulksafe.Change[User].__origin__ is bulksafe.Change
