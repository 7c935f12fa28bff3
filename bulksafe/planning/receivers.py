"""What a critical receiver and an ``Emit`` must be like."""

from __future__ import annotations

import ast
import inspect
import keyword
import math
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pgtrigger
from django.dispatch import Signal
from django.utils.inspect import func_accepts_kwargs

from bulksafe.declarations import Emit, Receiver
from bulksafe.declarations.naming import is_hashable, is_lasting
from bulksafe.declarations.options import (
    AFTER_COMMIT,
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_QUEUE,
    IN_DATABASE,
    IN_TRANSACTION,
    REFUSE,
)
from bulksafe.declarations.order import cycle, meant_by
from bulksafe.declarations.receivers import earlier_of, has_same_options
from bulksafe.declarations.signals import SIGNALS, Sender
from bulksafe.planning import senders
from bulksafe.planning.capture import condition_of
from bulksafe.planning.problems import Problem, Refused, did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db import models

_RUNS = (AFTER_COMMIT, IN_TRANSACTION, IN_DATABASE)
_OPTIONS = (
    "after atomic backoff batch coalesce dispatch_uid max_attempts on_dead otherwise queue "
    "row_by_row run sender timeout weak when"
).split()
#: Options that only the listener heeds, with their defaults.
_OF_LISTENER = {
    "queue": DEFAULT_QUEUE,
    "atomic": True,
    "max_attempts": DEFAULT_MAX_ATTEMPTS,
    "on_dead": "block",
    "timeout": None,
    "backoff": None,
    "coalesce": False,
}
#: Options that only receivers in the writer's transaction have, with their defaults.
_OF_TRANSACTION = {"otherwise": REFUSE, "row_by_row": False}
#: Keyword arguments that receivers of a custom signal get besides the instance.
_RESERVED = frozenset("signal sender using created old changed event_id context".split())
#: Problems that leave nothing to look at further.
_FATAL = ("E102", "E103")


def problems(receiver: Receiver, among: Sequence[Receiver]) -> list[Problem]:
    """All that is wrong with ``receiver``; ``among`` are all receivers.

    A receiver whose signal or sender is wrong is looked at no further.
    """
    found = [
        *_option_problems(receiver),
        *_misplaced_options(receiver),
        *_signal_problems(receiver),
    ]
    if not receiver.is_emit:
        found += [*_function_problems(receiver), *_name_problems(receiver)]
    wrong = list(senders.problems(receiver))
    found += wrong
    if not wrong and not any(problem.id in _FATAL for problem in found):
        found += _condition_problems(receiver)
        found += _looking_problems(receiver)
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
    for option in ("batch", "atomic", "coalesce", "row_by_row"):
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
    if receiver.timeout is not None and not _is_duration(receiver.timeout):
        yield _wrong("timeout", receiver.timeout, "timeout=30", "a positive number of seconds")
    yield from _backoff_problems(receiver.backoff)
    if receiver.otherwise not in (REFUSE, AFTER_COMMIT):
        yield _wrong(
            "otherwise", receiver.otherwise, 'otherwise="refuse"', "“refuse” or “after_commit”"
        )


def _is_duration(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value < math.inf  # type: ignore[operator]


def _backoff_problems(backoff: object) -> Iterator[Problem]:
    if backoff is None or callable(backoff) or _is_duration(backoff):
        return
    if isinstance(backoff, list | tuple) and backoff and all(map(_is_duration, backoff)):
        return
    wanted = "positive seconds, a list of them, or a function of the number of attempts"
    yield _wrong("backoff", backoff, "backoff=[1, 60, 3600]", wanted)


def _misplaced_options(receiver: Receiver) -> Iterator[Problem]:
    """Options that say nothing for receivers of this kind."""
    if receiver.run == AFTER_COMMIT:
        for option, default in _OF_TRANSACTION.items():
            if getattr(receiver, option) != default:
                yield Problem(
                    "E121",
                    f"{option}= is for receivers in the writer's transaction, and this one runs "
                    "after the commit.",
                    f'Leave {option}= out, or write run="in_transaction".',
                )
    elif receiver.is_inline:
        for option, default in _OF_LISTENER.items():
            if getattr(receiver, option) != default and not receiver.is_listened:
                yield Problem(
                    "E121",
                    f"{option}= is for receivers that the listener runs, and this one runs in the "
                    "writer's transaction.",
                    f'Leave {option}= out, or write run="after_commit".',
                )
        if receiver.batch is True and receiver.row_by_row is True:
            yield Problem(
                "E121",
                "batch= calls the receiver once for all rows, and row_by_row= for each.",
                "Leave one of them out.",
            )


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
    elif not func_accepts_kwargs(function):
        yield Problem(
            "E106",
            "The receiver takes no **kwargs, and later versions may pass more arguments.",
            "Add **kwargs to its parameters.",
        )


def _name_problems(receiver: Receiver) -> Iterator[Problem]:
    if not receiver.name.strip():
        yield Problem("E112", "dispatch_uid is empty.", "Leave it out, or give a lasting name.")
    elif not is_hashable(receiver.uid):
        yield _wrong("dispatch_uid", receiver.uid, 'dispatch_uid="shop.notify"', "hashable")
    elif not receiver.is_listened:
        return
    elif receiver.has_uid and not is_lasting(receiver.uid):
        yield Problem(
            "E110",
            f"The receiver has no lasting name: each process makes a different text of the "
            f"dispatch_uid {shown(receiver.uid)}.",
            'Give it text, or a tuple of texts and numbers: dispatch_uid="notify_warehouse".',
        )
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


# Receivers whose outcome depends on the rows before theirs.


def _looking_problems(receiver: Receiver) -> Iterator[Problem]:
    if not receiver.is_inline or receiver.row_by_row or receiver.batch:
        return
    if not receiver.signal_name.startswith("post_"):
        return
    looks = _looks_at_its_table(receiver)
    if looks:
        yield Problem(
            "W120",
            f"The receiver looks at other rows of its table: “{looks}”. In a bulk write all are "
            "stored by then; in per-row saves those before it.",
            "If that makes a difference, write row_by_row=True.",
        )


#: Methods of a queryset whose result depends on other rows than the one at hand.
_LOOKING = frozenset({"count", "exists", "aggregate", "exclude", "first", "last", "latest"})


def _looks_at_its_table(receiver: Receiver) -> str:
    """The expression in the receiver's source that looks so; empty if none does."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(receiver.function)))
    except (OSError, TypeError, SyntaxError):
        return ""
    names = {"sender", *(model.__name__ for model in receiver.models())}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            chain = _chain(node.func)
            is_manager = len(chain) > 2 and chain[0] in names and "objects" in chain[1]
            if is_manager and node.func.attr in _LOOKING:
                return ast.unparse(node)
    return ""


def _chain(node: ast.expr) -> list[str]:
    """``sender.objects.filter(…).count`` as its names."""
    if isinstance(node, ast.Attribute):
        return [*_chain(node.value), node.attr]
    if isinstance(node, ast.Call):
        return _chain(node.func)
    return [node.id] if isinstance(node, ast.Name) else []


# Order and names.


def _order_problems(receiver: Receiver, among: Sequence[Receiver]) -> Iterator[Problem]:
    same_run = [other for other in among if other.run == receiver.run]
    circle = cycle(same_run) if receiver.after else []
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
            'Give one of them a different one: dispatch_uid="…".',
        )
    for model in receiver.models():
        earlier = earlier_of(receiver, model._meta.label_lower)
        if earlier is None or earlier.name == receiver.name:
            continue
        if not has_same_options(earlier, receiver):
            yield Problem(
                "E107",
                f"{earlier.name} calls the same function for {model._meta.label}, with other "
                "options: a write has one call.",
                "Declare the function once for the table, or give both the same options.",
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
        if receiver.is_inline and other.run == AFTER_COMMIT:
            yield Problem(
                "E119",
                f"{other.name} runs after the commit, and this one in the transaction: it cannot "
                "come after that.",
                "Leave it out of after=, or let both run at the same time.",
            )
        lanes = [(r.run, r.queue, r.atomic) for r in (receiver, other)]
        if lanes[0] != lanes[1] and receiver.run == other.run == AFTER_COMMIT:
            yield Problem(
                "W118",
                f"{other.name} has another queue, or another atomic=: neither waits for the other.",
                "Give both the same queue= and the same atomic=, or leave after= out.",
            )
