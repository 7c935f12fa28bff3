"""Checks the names of critical receivers and their ``after``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bulksafe.declarations import Receiver
from bulksafe.declarations.naming import is_hashable, is_lasting
from bulksafe.declarations.options import AFTER_COMMIT
from bulksafe.declarations.order import cycle, meant_by
from bulksafe.declarations.receivers import earlier_of, has_same_options
from bulksafe.planning.problems import Problem, did_you_mean, shown
from bulksafe.planning.receiver_options import wrong


def name_problems(receiver: Receiver) -> Iterator[Problem]:
    if not receiver.name.strip():
        yield Problem("E112", "dispatch_uid is empty.", "Leave it out, or give a permanent name.")
    elif not is_hashable(receiver.uid):
        yield wrong("dispatch_uid", receiver.uid, 'dispatch_uid="shop.notify"', "hashable")
    elif not receiver.is_listened:
        return
    elif receiver.has_uid and not is_lasting(receiver.uid):
        yield Problem(
            "E110",
            f"The receiver has no permanent name: the text differs in each process for the "
            f"dispatch_uid {shown(receiver.uid)}.",
            'Give it text, or a tuple of texts and numbers: dispatch_uid="notify_warehouse".',
        )
    elif not receiver.has_uid and ("<lambda>" in receiver.name or "<locals>" in receiver.name):
        yield Problem(
            "E110",
            "The receiver has no permanent name: it is a lambda, or defined inside a function.",
            'Give it one: dispatch_uid="notify_warehouse".',
        )


def order_problems(receiver: Receiver, among: Sequence[Receiver]) -> Iterator[Problem]:
    same_run = [other for other in among if other.run == receiver.run]
    circle = cycle(same_run) if receiver.after else []
    if receiver in circle:
        named = " → ".join(other.name for other in circle)
        yield Problem(
            "E108", f"Receivers are declared after each other: {named}.", "Remove one after=."
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
                f"{earlier.name} calls the same function for {model._meta.label} with other "
                "options: a write has one call.",
                "Declare the function once for the table, or give both the same options.",
            )


def _reference_problems(
    receiver: Receiver, reference: object, among: Sequence[Receiver]
) -> Iterator[Problem]:
    found = meant_by(reference, among)
    if not found:
        names = [other.name for other in among]
        yield Problem(
            "E109",
            f"after names {shown(reference)}, which is not a critical receiver.",
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
                f"{other.name} has a different queue or atomic=: neither waits for the other.",
                "Give both the same queue= and the same atomic=, or leave after= out.",
            )
