"""The rule of recursion, case by case: see ``bulksafe.dispatch.recursion``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bulksafe import call_stack, contexts
from bulksafe.call_stack import NO_CALLS, Calls
from bulksafe.dispatch.changes import Change
from bulksafe.dispatch.recursion import MOST_CALLS, MOST_NEW_ROWS, Write, endless, is_called
from bulksafe.exceptions import EndlessWrites
from bulksafe.outbox.events import DELETED, INSERTED, UPDATED, Event
from bulksafe.writer.changes import Unsaved, row_of_instance
from tests.apps.practice.models import Log

ONE, OTHER = ("practice.log", 1), ("practice.log", 2)

A: Any = SimpleNamespace(name="a")
B: Any = SimpleNamespace(name="b")

NO_CHANGE: Any = SimpleNamespace(is_noop=True, changed=frozenset())
CHANGE: Any = SimpleNamespace(is_noop=False, changed=frozenset({"text", "amount"}))


def calls(*made):
    found = NO_CALLS
    for receiver, row in made:
        found = found.plus(receiver.name, row)
    return found


def sent(inside, row=ONE, change=CHANGE, **known):
    return Write(inside, Log, row, change, is_sent=True, **known)


def bulk(inside, row=ONE, change=CHANGE):
    return Write(inside, Log, row, change)


IN_A, IN_B = calls((A, ONE)), calls((B, ONE))
IN_B_IN_A = calls((A, ONE), (B, OTHER))


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        # Outside all calls.
        (sent(NO_CALLS), True),
        (bulk(NO_CALLS), True),
        (sent(NO_CALLS, change=NO_CHANGE), True),
        (bulk(NO_CALLS, change=NO_CHANGE), True),
        # Its own write.
        (sent(IN_A), False),
        (sent(IN_A, change=None), False),
        (bulk(IN_A), False),
        (bulk(IN_A, change=None), False),
        # Its own write to another row.
        (sent(IN_A, OTHER), True),
        (bulk(IN_A, OTHER), False),
        # A write of another receiver that it called.
        (sent(IN_B_IN_A), True),
        (bulk(IN_B_IN_A), False),
        (bulk(IN_B_IN_A, OTHER), True),
        # A write of another receiver that changes no value.
        (sent(IN_B, change=NO_CHANGE), True),
        (bulk(IN_B, change=NO_CHANGE), False),
        (sent(IN_B_IN_A, change=NO_CHANGE), False),
        (sent(IN_B_IN_A, OTHER, change=NO_CHANGE), True),
        (bulk(IN_B_IN_A, change=NO_CHANGE), False),
        # The event of a call that the listener makes names receivers and no rows.
        (bulk(Calls.of_names(("b", "a"))), False),
        (bulk(Calls.of_names(("a", "b"))), True),
    ],
)
def test_a_is_called(write, expected):
    assert is_called(A, write) is expected
    assert endless(A, write) is None


@pytest.mark.parametrize(
    ("write", "is_cut"),
    [
        (bulk(calls(*[(B, ONE)] * (MOST_CALLS - 1))), False),
        (bulk(calls(*[(B, ONE)] * MOST_CALLS)), True),
        (bulk(Calls.of_names(("b",) * MOST_CALLS)), True),
        (sent(calls(*[(A, ONE), (B, ONE)] * (MOST_CALLS - 1))), False),
        (sent(calls(*[(A, ONE), (B, ONE)] * MOST_CALLS)), True),
        # Rows that exist.
        (sent(calls(*[(A, OTHER)] * 100)), False),
        (sent(calls(*[(A, OTHER)] * (MOST_NEW_ROWS - 1)), is_new=True), False),
        (sent(calls(*[(A, OTHER)] * MOST_NEW_ROWS), is_new=True), True),
    ],
)
def test_receivers_that_do_not_converge_are_cut(write, is_cut):
    assert (endless(A, write) is not None) is is_cut


def test_the_error_names_the_circle_the_row_and_the_fields():
    start: Any = SimpleNamespace(name="start")
    error = endless(A, bulk(calls((start, ONE), *[(A, ONE), (B, ONE)] * 8)))

    assert isinstance(error, EndlessWrites)
    assert str(error) == (
        "Receivers react to each other's writes without end: b → a. "
        "The last write is to practice.Log 1, where amount, text changed."
    )


def test_the_error_for_an_object_without_a_key():
    log = Log()
    error = endless(A, sent(calls(*[(B, ONE)] * 50), row_of_instance(log), None, is_new=True))

    assert row_of_instance(log) == ("practice.log", Unsaved(id(log)))
    assert str(error).endswith("The last write is to practice.Log without a key.")


def image(*values):
    table = SimpleNamespace(names=("a",), all_names=frozenset({"a"}))
    return SimpleNamespace(values=values, table=table)


@pytest.mark.parametrize(
    ("operation", "old", "new", "expected"),
    [
        (UPDATED, image(1), image(1), True),
        (UPDATED, image(1), image(2), False),
        (INSERTED, None, image(1), False),
        (DELETED, image(1), None, False),
        # An image that cannot be read: the event must be parked, and not be left out.
        (UPDATED, image(1), None, False),
        (UPDATED, None, image(1), False),
    ],
)
def test_a_change_without_a_changed_value(operation, old, new, expected):
    event = Event(0, 1, 0, 0, 0.0, 1, None, operation, 1, "1")
    change: Any = Change(event, Log, old, new, using="default", event_id="")

    assert change.is_noop is expected


def test_calls_are_pushed_popped_and_suspended():
    with contexts.being_called(IN_A, {}):
        with contexts.being_called(call_stack.calls().plus("b", OTHER), {}):
            assert call_stack.calls() == IN_B_IN_A
            with call_stack.outside(1):
                assert call_stack.calls() == IN_A
                assert call_stack.running() == ("a",)
            assert call_stack.running() == ("a", "b")
        assert call_stack.depth() == 1
    assert call_stack.calls() == NO_CALLS
