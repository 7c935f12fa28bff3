"""Decides which in-transaction receivers are called for which changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulksafe.dispatch.ordering import Delivery
from bulksafe.dispatch.recursion import Write, must_call
from bulksafe.writer import connecting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from django.db.models import Model

    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.calls import Call
    from bulksafe.writer.changes import InlineChange


EARLY = ("pre_save", "pre_delete", "m2m_changed")
BEFORE = ("pre_save", "pre_delete")
LATE = ("post_save", "post_delete", "m2m_changed")


class Live:
    """The connected receivers, cached for one round of deliveries.

    A receiver may disconnect a receiver during the calls. As in Django's ``send()``, that takes
    effect from the next row: see ``refresh``.
    """

    def __init__(self, signals: Iterable[str]) -> None:
        self.signals = tuple(signals)
        self._found: dict[tuple[int, type[Model]], Collection[Receiver]] = {}
        self._changes = connecting.changes()

    def refresh(self) -> bool:
        """Drop the cache. Returns whether the connections may have changed."""
        changes = connecting.changes()
        if changes == self._changes:
            return False
        self._changes = changes
        self._found.clear()
        return True

    def __call__(self, receiver: Receiver, model: type[Model]) -> bool:
        if receiver.signal_name not in self.signals:
            return False
        key = id(receiver.signal), model
        if key not in self._found:
            self._found[key] = connecting.live(receiver.signal, model)
        return receiver in self._found[key]


def deliveries(
    changes: Sequence[InlineChange],
    listed: Callable[[InlineChange], Sequence[Receiver]],
    signals: Iterable[str],
) -> list[Delivery]:
    """The changes with their receivers.

    Args:
        listed: the receivers of a change, in their order; the same for all changes of a table by
            one operation.
        signals: the names of the signals to deliver.

    Raises:
        EndlessWrites: receivers react to each other without end.
    """
    is_live = Live(signals)
    by_kind: dict[tuple[int, str], list[Receiver]] = {}
    found = []
    for change in changes:
        kind = change.event.source, change.event.operation
        if kind not in by_kind:
            by_kind[kind] = [one for one in listed(change) if is_live(one, change.model)]
        for receiver in by_kind[kind]:
            if receiver not in change.met or receiver in change.done:
                continue
            if must_call(receiver, Write.of(change)):
                found.append(Delivery(receiver, change))
    return found


def still_connected(calls: Iterable[Call], signals: Iterable[str]) -> Iterator[Call]:
    """The calls, without receivers that are disconnected on the way."""
    is_live = Live(signals)
    last: Any = None
    for call in calls:
        change = call.changes[-1]
        if change is not last:
            last = change
            is_live.refresh()
        if is_live(call.receiver, change.model):
            yield call


def edited_links(call: Call, named: Mapping[str, Any]) -> str:
    """The error for a receiver that changes ``pk_set`` when the link rows are already given."""
    table = call.changes[-1].model._meta.label
    return (
        f"{call.receiver.name} changed pk_set in {named['action']}, but the write names the rows "
        f"of {table} itself. Django honours such a change only for the methods of a many-to-many "
        "manager: call add(), set() or remove() to write the links, or raise an error in the "
        "receiver to refuse them."
    )
