"""Which receivers are called in the writer's transaction, for which changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulksafe import call_stack
from bulksafe.contexts import current
from bulksafe.dispatch.calls import arguments
from bulksafe.dispatch.ordering import Delivery
from bulksafe.dispatch.recursion import Write, must_call
from bulksafe.writer import connecting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from django.db.models import Model

    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.calls import Call
    from bulksafe.writer.changes import InlineChange


depth = call_stack.depth
outside = call_stack.outside

EARLY = ("pre_save", "pre_delete", "m2m_changed")
BEFORE = ("pre_save", "pre_delete")
LATE = ("post_save", "post_delete", "m2m_changed")


def bulk_call(
    receiver: Receiver, model: Any, using: str, update_fields: frozenset[str] | None
) -> dict[str, Any]:
    """The arguments that a receiver gets for every object of a bulk write, but for the object."""
    return {
        "signal": receiver.signal,
        "sender": model,
        "raw": False,
        "using": using,
        "update_fields": update_fields,
        **extra_arguments(receiver, None),
    }


def extra_arguments(receiver: Receiver, change: InlineChange | None) -> dict[str, Any]:
    """Those of bulksafe's own arguments that the receiver names.

    Args:
        change: what the database has captured of the row; None before that.
    """
    known: dict[str, Any] = {}
    for name in receiver.extras:
        if name == "context":
            known[name] = dict(current())
        elif change is None:
            known[name] = frozenset() if name == "changed" else None
        else:
            known[name] = getattr(change, name)
    return known


class Live:
    """Which receivers are connected, asked once for one round of telling.

    A receiver may disconnect one while they are called. As with Django's ``send()`` that counts
    from the next row: see ``refresh``.
    """

    def __init__(self, signals: Iterable[str]) -> None:
        self.signals = tuple(signals)
        self._found: dict[tuple[int, type[Model]], set[Receiver]] = {}
        self._changes = connecting.changes()

    def refresh(self) -> bool:
        """Ask anew from here on. Returns whether anything may have changed."""
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
    """The changes with the receivers that are to be called for them.

    Args:
        listed: the receivers of a change, in their order; the same for all changes of a table by
            one operation.
        signals: the names of the signals that are told.

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
    """The calls, one after the other, but for receivers that are disconnected on the way."""
    is_live = Live(signals)
    last: Any = None
    for call in calls:
        change = call.changes[-1]
        if change is not last:
            last = change
            is_live.refresh()
        if is_live(call.receiver, change.model):
            yield call


def call_arguments(call: Call, action: str | None = None) -> dict[str, Any]:
    """What the receiver of a call gets.

    Args:
        action: ``"pre"`` for the first of the two calls of an ``m2m_changed`` receiver.
    """
    receiver = call.receiver
    found = arguments(receiver, call.changes)
    if action and "action" in found:
        found["action"] = found["action"].replace("post_", f"{action}_")
    if action == "pre" and "event_id" in found:
        found["event_id"] = None
    return found


def edited_links(call: Call, named: Mapping[str, Any]) -> str:
    """Why a receiver may not change ``pk_set``, where the rows of the links are given already."""
    table = call.changes[-1].model._meta.label
    return (
        f"{call.receiver.name} changed pk_set in {named['action']}, but the write names the rows "
        f"of {table} itself. Django honours such a change only for the methods of a many-to-many "
        "manager: call add(), set() or remove() to write the links, or raise an error in the "
        "receiver to refuse them."
    )
