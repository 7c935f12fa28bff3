"""Checks critical receivers and ``Emit``."""

from __future__ import annotations

import keyword
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pgtrigger
from django.dispatch import Signal

from bulksafe.declarations import Emit, Receiver
from bulksafe.declarations.options import AFTER_COMMIT
from bulksafe.declarations.signals import SIGNALS, Sender
from bulksafe.planning import senders
from bulksafe.planning.capture import condition_of
from bulksafe.planning.problems import Problem, Refused, did_you_mean, shown
from bulksafe.planning.receiver_function import function_problems
from bulksafe.planning.receiver_options import misplaced_options, option_problems
from bulksafe.planning.receiver_order import name_problems, order_problems
from bulksafe.planning.receiver_source import looking_problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db import models

#: Keyword arguments of a custom signal's receivers besides the instance.
_RESERVED = frozenset("signal sender using created old changed event_id context".split())
#: Problems after which no further checks make sense.
_FATAL = ("E102", "E103")


def problems(receiver: Receiver, among: Sequence[Receiver]) -> list[Problem]:
    """All problems of ``receiver``; ``among`` are all receivers.

    A receiver with a wrong signal or sender is not checked further.
    """
    found = [
        *option_problems(receiver),
        *misplaced_options(receiver),
        *_signal_problems(receiver),
    ]
    if not receiver.is_emit:
        found += [*function_problems(receiver), *name_problems(receiver)]
    wrong = list(senders.problems(receiver))
    found += wrong
    if not wrong and not any(problem.id in _FATAL for problem in found):
        found += _condition_problems(receiver)
        found += looking_problems(receiver)
    return [*found, *order_problems(receiver, among)]


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
            f"Take {post}: it gets the previous row in “old”. To refuse or change "
            "the row, declare an invariant: Check, Compute, Immutable or Transition.",
        )
    elif name.startswith("pre_") and receiver.is_inline and receiver.otherwise == AFTER_COMMIT:
        yield Problem(
            "E103",
            f'{name} comes before the row is written, and otherwise="after_commit" after that.',
            f"Leave otherwise= out, so that other programs are refused, or take "
            f"{name.replace('pre_', 'post_')}.",
        )
    elif name == "m2m_changed" and (receiver.batch or receiver.coalesce):
        yield Problem(
            "E112",
            "m2m_changed has one call for all rows of an instance as it is.",
            "Leave batch= and coalesce= out.",
        )


def _unknown_signal(signal: object) -> str:
    if isinstance(signal, Signal):
        return "The signal does not say which rows were written."
    return f"{shown(signal)} is not a signal."


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
            f"Emit sends {shown(signal)}, which is not a custom signal.",
            "Pass a django.dispatch.Signal(); for Django's own signals write "
            "@bulksafe.critical(…).",
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
    """Problems of an ``Emit`` before it becomes a receiver."""
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


# Conditions.


def _condition_problems(receiver: Receiver) -> Iterator[Problem]:
    if receiver.when is None:
        return
    if receiver.signal_name == "m2m_changed":
        yield Problem(
            "E113",
            "m2m_changed is for the instance, but “when” would test a row of the table in between.",
            "Leave when= out and use pk_set, or declare a post_save receiver on the table.",
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
