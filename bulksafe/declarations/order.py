"""The order of the receivers of one change."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from operator import attrgetter
from typing import TYPE_CHECKING

from bulksafe.declarations.receiver import is_same_callable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulksafe.declarations.receiver import Receiver


def meant_by(reference: object, among: Sequence[Receiver]) -> list[Receiver]:
    """The receivers that an item of ``after=`` names: by function, name or ``dispatch_uid``."""
    return [receiver for receiver in among if _is_meant(receiver, reference)]


def _is_meant(receiver: Receiver, reference: object) -> bool:
    if is_same_callable(receiver.function, reference) or receiver.name == reference:
        return True
    return receiver.has_uid and not receiver.is_emit and bool(receiver.uid == reference)


def in_order(listed: Sequence[Receiver]) -> list[Receiver]:
    """``listed``, sorted so that each receiver follows the receivers in its ``after``.

    Otherwise asynchronous receivers come last, as in Django's ``send()``, and the rest keep their
    order of declaration. A cycle, which the system checks refuse, is cut where it closes.
    """
    done: dict[Receiver, None] = {}

    def place(receiver: Receiver, path: tuple[Receiver, ...]) -> None:
        for reference in receiver.after:
            for other in meant_by(reference, listed):
                if other not in path and other not in done:
                    place(other, (*path, other))
        done[receiver] = None

    for receiver in sorted(listed, key=attrgetter("is_async")):
        if receiver not in done:
            place(receiver, (receiver,))
    return list(done)


def cycle(listed: Sequence[Receiver]) -> list[Receiver]:
    """A cycle of receivers, each declared ``after`` the previous one; empty if there is none."""
    graph = {
        receiver: [other for ref in receiver.after for other in meant_by(ref, listed)]
        for receiver in listed
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[Receiver] = error.args[1]
        return found
    return []
