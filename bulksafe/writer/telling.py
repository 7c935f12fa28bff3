"""Calling receivers in the writer's transaction, and which of them are called.

A receiver is not called for a change that it made itself while it ran; the others are, since it is
a change like any other. A write of a receiver's that changes no value reaches nobody, so that
receivers which keep each other right come to rest. What Django sends is sent as Django does it, so
that ``save()`` on another row may go down a tree; only what comes back to the same row is cut.
"""

from __future__ import annotations

from contextlib import contextmanager
from threading import local
from typing import TYPE_CHECKING, Any

from bulksafe.contexts import current, reacting, running
from bulksafe.dispatch import muting
from bulksafe.dispatch.batches import MOST_REACTIONS, endless, is_called
from bulksafe.dispatch.calls import arguments
from bulksafe.dispatch.ordering import Delivery
from bulksafe.exceptions import EndlessWrites
from bulksafe.writer import connecting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from django.db.models import Model

    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.calls import Call
    from bulksafe.writer.changes import InlineChange

    Row = tuple[str, Any]


class _Here(local):
    """What belongs to a thread, as its connections do.

    Attributes:
        active: the calls being made, each because of a write of the one before it, with their row.
    """

    active: tuple[tuple[str, Row], ...] = ()


_here = _Here()

#: How deep ``save()`` may lead from one new row to the next before that is taken for a loop, and
#: how often back to the same row.
_DEEPEST, _MOST_RETURNS = 50, 16

EARLY = ("pre_save", "pre_delete", "m2m_changed")
BEFORE = ("pre_save", "pre_delete")
LATE = ("post_save", "post_delete", "m2m_changed")


class being_called(reacting):  # noqa: N801  (used as a function)
    """Around a call: what is written inside it comes from this receiver."""

    __slots__ = ("_before", "_row")

    def __init__(self, receiver: Receiver, row: Row, context: Mapping[str, Any]) -> None:
        super().__init__(context, (*running(), receiver.name))
        self._row = row

    def __enter__(self) -> None:
        super().__enter__()
        self._before = _here.active
        _here.active = (*self._before, (self.names[-1], self._row))

    def __exit__(self, *error: object) -> None:
        _here.active = self._before
        super().__exit__(*error)


@contextmanager
def outside(calls_before: int) -> Iterator[None]:
    """As if the innermost call were not being made: for what has to be done before it goes on."""
    before, _here.active = _here.active, _here.active[:calls_before]
    try:
        with reacting({}, running()[:calls_before]):
            yield
    finally:
        _here.active = before


def depth() -> int:
    return len(_here.active)


def is_sent_to(
    receiver: Receiver, row: Row, change: InlineChange | None, *, is_new: bool = False
) -> bool:
    """Whether the receiver is called for what Django sends.

    Args:
        is_new: whether the row is.

    Raises:
        EndlessWrites: receivers lead from one row to the next without end.
    """
    if muting.is_muted(receiver):
        return False
    active = _here.active
    if not active:
        return True
    own = receiver.name, row
    if active[-1] == own:
        return False
    if own in active and change is not None and change.old is not None and not change.changed:
        return False
    # Of rows that are there, a chain comes to an end; or to rows where it has been.
    if active.count(own) >= _MOST_RETURNS or (is_new and len(active) >= _DEEPEST):
        named = " → ".join(dict.fromkeys(name for name, _ in active[-_DEEPEST // 2 :]))
        raise EndlessWrites(
            f"Receivers react to each other's writes without end: {named}. The last one is to "
            f"{row[0]} {row[1]}."
        )
    return True


def is_own_business(receiver: Receiver) -> bool:
    """Whether the receiver is called for objects that are about to be written in bulk.

    Raises:
        EndlessWrites: receivers react to each other without end.
    """
    names = running()
    if muting.is_muted(receiver) or (names and names[-1] == receiver.name):
        return False
    if len(names) >= MOST_REACTIONS:
        raise EndlessWrites(
            "Receivers react to each other's writes without end: "
            f"{' → '.join(dict.fromkeys(names[-MOST_REACTIONS // 2 :]))}."
        )
    return True


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
            known[name] = current()
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
            if (
                receiver in change.met
                and receiver not in change.done
                and is_called(receiver, change)
            ):
                error = endless(change)
                if error is not None:
                    raise error
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
