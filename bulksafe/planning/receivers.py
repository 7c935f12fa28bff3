"""What a critical receiver and an ``Emit`` must be like."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pgtrigger
from django.dispatch import Signal
from django.utils.inspect import func_accepts_kwargs

from bulksafe.declarations import Emit, Receiver
from bulksafe.declarations.order import cycle, meant_by
from bulksafe.declarations.receivers import (
    AFTER_COMMIT,
    IN_DATABASE,
    IN_TRANSACTION,
    SIGNALS,
    Sender,
)
from bulksafe.planning import senders
from bulksafe.planning.capture import condition_of
from bulksafe.planning.problems import Problem, Refused, did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db import models

_RUNS = (AFTER_COMMIT, IN_TRANSACTION, IN_DATABASE)
_OPTIONS = (
    "after atomic batch coalesce dispatch_uid max_attempts on_dead queue run sender when"
).split()
#: Keyword arguments that receivers of a custom signal get besides the instance.
_RESERVED = frozenset("signal sender using created old changed event_id context".split())
#: Problems that leave nothing to look at further.
_FATAL = ("E102", "E103")


def problems(receiver: Receiver, among: Sequence[Receiver]) -> list[Problem]:
    """All that is wrong with ``receiver``; ``among`` are all receivers.

    A receiver whose signal or sender is wrong is looked at no further.
    """
    found = [*_option_problems(receiver), *_signal_problems(receiver)]
    if not receiver.is_emit:
        found += [*_function_problems(receiver), *_name_problems(receiver)]
    wrong = list(senders.problems(receiver))
    found += wrong
    if not wrong and not any(problem.id in _FATAL for problem in found):
        found += _condition_problems(receiver)
    return [*found, *_order_problems(receiver, among)]


# Options.


def _option_problems(receiver: Receiver) -> Iterator[Problem]:
    for option in receiver.unknown:
        yield Problem(
            "E111",
            f"critical() has no option “{option}”.",
            did_you_mean(option, _OPTIONS, f"Options are: {', '.join(_OPTIONS)}."),
        )
    if receiver.run not in _RUNS:
        yield Problem(
            "E100",
            f"run is {shown(receiver.run)}.",
            did_you_mean(receiver.run, _RUNS, 'Write run="after_commit".'),
        )
    elif receiver.run == IN_DATABASE:
        yield Problem(
            "E101",
            f'run="{receiver.run}" is not in this version of bulksafe: the receiver would never be '
            "called.",
            'Write run="in_transaction" (the default), or run="after_commit".',
        )
    yield from _value_problems(receiver)


def _value_problems(receiver: Receiver) -> Iterator[Problem]:
    for option in ("batch", "atomic", "coalesce"):
        value = getattr(receiver, option)
        if not isinstance(value, bool):
            yield _wrong(option, value, f"{option}=True", "True or False")
    queue: object = receiver.queue
    if not isinstance(queue, str) or not queue.isprintable() or not queue or set(queue) & set(", "):
        yield _wrong("queue", queue, 'queue="mail"', "a name without spaces and commas")
    attempts: object = receiver.max_attempts
    if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:
        yield _wrong("max_attempts", attempts, "max_attempts=10", "a whole number from 1 on")
    if receiver.on_dead not in ("block", "skip"):
        yield _wrong("on_dead", receiver.on_dead, 'on_dead="block"', "“block” or “skip”")


def _wrong(option: str, value: object, example: str, wanted: str) -> Problem:
    return Problem("E112", f"{option} is {shown(value)}, not {wanted}.", f"Write {example}.")


# The signal.


def _signal_problems(receiver: Receiver) -> Iterator[Problem]:
    name = receiver.signal_name
    if receiver.is_emit:
        yield from _emitted_problems(receiver)
    elif not name:
        yield Problem("E102", _unknown_signal(receiver.signal), _signal_fix(receiver.signal))
    elif name.startswith("pre_") and receiver.run == AFTER_COMMIT:
        post = name.replace("pre_", "post_")
        yield Problem(
            "E103",
            f'{name} comes before the row is written, and run="after_commit" after that.',
            f"Take {post}: it gets the row as it was before in “old”. What may refuse or change "
            "the row is an invariant: Check, Compute, Immutable or Transition.",
        )
    elif name == "m2m_changed" and (receiver.batch or receiver.coalesce):
        yield Problem(
            "E112",
            "m2m_changed has one call for all rows of an instance as it is.",
            "Leave batch= and coalesce= out.",
        )


def _unknown_signal(signal: object) -> str:
    if isinstance(signal, Signal):
        return "The signal is none that says which rows were written."
    return f"{shown(signal)} is no signal."


def _signal_fix(signal: object) -> str:
    if isinstance(signal, Signal):
        return "A signal of your own is sent with bulksafe.Emit in Meta.triggers."
    text = signal if isinstance(signal, str) else getattr(signal, "__name__", "")
    return did_you_mean(
        text, SIGNALS, f"Take one of {', '.join(SIGNALS)} of django.db.models.signals."
    )


def _emitted_problems(receiver: Receiver) -> Iterator[Problem]:
    sender = receiver.function
    signal = sender.signal if isinstance(sender, Sender) else None
    if not isinstance(signal, Signal) or signal in SIGNALS.values():
        yield Problem(
            "E115",
            f"Emit sends {shown(signal)}, which is no signal of your own.",
            "Pass a django.dispatch.Signal(); for Django's own ones write @bulksafe.critical(…).",
        )
    name = receiver.name.partition(":")[2]
    if not name:
        yield Problem("E115", "The Emit has no name.", 'Write Emit(…, name="order_fulfilled").')
    argument: object = receiver.argument
    if (
        not isinstance(argument, str)
        or not argument.isidentifier()
        or keyword.iskeyword(argument)
        or argument in _RESERVED
    ):
        yield Problem(
            "E115",
            f"argument is {shown(argument)}, which cannot carry the instance.",
            'Write argument="order", a name that no other argument has.',
        )
    if receiver.when is None:
        yield Problem(
            "E115",
            "The Emit has no condition: which change is the event?",
            'Write when=Q(new__status="done") & ~Q(old__status="done").',
        )


def emit_problems(emit: Emit) -> Iterator[Problem]:
    """What can be said of an ``Emit`` before it is a receiver."""
    operation: object = emit.operation
    known = isinstance(operation, pgtrigger.Operation) and all(
        getattr(event, "name", "") in ("INSERT", "UPDATE", "DELETE") for event in operation
    )
    if operation is not None and not known:
        yield Problem(
            "E115",
            f"operation is {shown(operation)}.",
            "Write operation=pgtrigger.Insert, Update or Delete, joined with |.",
        )


# The function.


def _function_problems(receiver: Receiver) -> Iterator[Problem]:
    function: Any = receiver.function
    if not callable(function):
        yield Problem("E106", f"{shown(function)} cannot be called.", "Decorate a function.")
    elif inspect.iscoroutinefunction(function):
        yield Problem(
            "E117",
            "The receiver is asynchronous, and the listener is not.",
            "Wrap what it does in asgiref.sync.async_to_sync.",
        )
    elif not func_accepts_kwargs(function):
        yield Problem(
            "E106",
            "The receiver takes no **kwargs, and later versions may pass more arguments.",
            "Add **kwargs to its parameters.",
        )


def _name_problems(receiver: Receiver) -> Iterator[Problem]:
    if not receiver.name.strip():
        yield Problem("E112", "dispatch_uid is empty.", "Leave it out, or give a lasting name.")
    elif not receiver.has_uid and ("<lambda>" in receiver.name or "<locals>" in receiver.name):
        yield Problem(
            "E110",
            "The receiver has no lasting name: it is a lambda, or made inside a function.",
            'Give it one: dispatch_uid="notify_warehouse".',
        )


# Conditions.


def _condition_problems(receiver: Receiver) -> Iterator[Problem]:
    if receiver.when is None:
        return
    if receiver.signal_name == "m2m_changed":
        yield Problem(
            "E113",
            "m2m_changed is about the instance, and “when” would be about a row of the table in "
            "between.",
            "Leave when= out and look at pk_set, or declare a post_save receiver on the table.",
        )
        return
    if isinstance(receiver.when, type) or not getattr(receiver.when, "conditional", False):
        yield Problem(
            "E113",
            f"when is {shown(receiver.when)}, which is neither true nor false.",
            'Write when=Q(new__status="paid") & ~Q(old__status="paid").',
        )
        return
    for model in receiver.models():
        yield from _compiled_problems(receiver, model)


def _compiled_problems(receiver: Receiver, model: type[models.Model]) -> Iterator[Problem]:
    found: dict[str, str | None] = {}
    try:
        for operation in receiver.operations:
            found[operation] = condition_of(receiver, model, operation)
    except Refused as refused:
        problem = refused.problem
        yield Problem(problem.id, f"when: {problem.fact}", problem.fix)
        return
    if found and set(found.values()) <= {"true", "false", None}:
        constant = ", ".join(sorted(set(map(str, found.values()))))
        yield Problem(
            "E113",
            f"“when” is the same for every change: {constant}.",
            "Test a column of the row: new__… after the change, old__… before it.",
        )


# Order and names.


def _order_problems(receiver: Receiver, among: Sequence[Receiver]) -> Iterator[Problem]:
    circle = cycle([other for other in among if other.run == receiver.run])
    if receiver in circle:
        named = " → ".join(other.name for other in circle)
        yield Problem(
            "E108", f"Receivers are declared after each other: {named}.", "Take one after= away."
        )
    for reference in receiver.after:
        yield from _reference_problems(receiver, reference, among)
    if any(other is not receiver and other.name == receiver.name for other in among):
        yield Problem(
            "E107",
            f"Two receivers have the name “{receiver.name}”.",
            'Give one of them another one: dispatch_uid="…".',
        )


def _reference_problems(
    receiver: Receiver, reference: Any, among: Sequence[Receiver]
) -> Iterator[Problem]:
    found = meant_by(reference, among)
    if not found:
        names = [other.name for other in among]
        yield Problem(
            "E109",
            f"after names {shown(reference)}, which is no critical receiver.",
            did_you_mean(reference, names, "Name a function that is decorated with @critical."),
        )
    for other in found:
        lanes = [(r.run, r.queue, r.atomic) for r in (receiver, other)]
        if lanes[0] != lanes[1] and receiver.run == other.run:
            yield Problem(
                "W118",
                f"{other.name} has another queue, or another atomic=: neither waits for the other.",
                "Give both the same queue= and the same atomic=, or leave after= out.",
            )
