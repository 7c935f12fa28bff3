"""In which order the receivers of one change run."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulksafe.declarations.receiver import Receiver


def meant_by(reference: Any, among: Sequence[Receiver]) -> list[Receiver]:
    """The receivers that an item of ``after=`` names: a function, or a receiver's name."""
    if isinstance(reference, str):
        return [receiver for receiver in among if receiver.name == reference]
    return [receiver for receiver in among if receiver.function is reference]


def in_order(listed: Sequence[Receiver]) -> list[Receiver]:
    """``listed`` with each receiver behind those that it is declared ``after``.

    Where ``after`` leaves it open, the order of declaration decides. A cycle, which the system
    checks refuse, is cut where it closes.
    """
    done: dict[Receiver, None] = {}

    def place(receiver: Receiver, path: tuple[Receiver, ...]) -> None:
        for reference in receiver.after:
            for other in meant_by(reference, listed):
                if other not in path and other not in done:
                    place(other, (*path, other))
        done[receiver] = None

    for receiver in listed:
        if receiver not in done:
            place(receiver, (receiver,))
    return list(done)


def cycle(listed: Sequence[Receiver]) -> list[Receiver]:
    """Receivers that are each declared after the one before, in a circle, if there are any."""
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
