"""Runs and mutes critical receivers in tests.

In a ``TestCase``, and in a test with pytest-django's ``db``, nothing is ever committed, so no
listener runs. ``deliver()`` runs the pending calls at once in the test's own transaction; in a test
with real commits it works like a listener.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

from django.db import DEFAULT_DB_ALIAS, connections, transaction

from bulksafe.declarations.receivers import lanes
from bulksafe.dispatch.batches import Batch
from bulksafe.dispatch.muting import muted
from bulksafe.dispatch.ordering import calls
from bulksafe.dispatch.routes import Routes
from bulksafe.outbox.cursors import BUCKETS
from bulksafe.outbox.known import Known
from bulksafe.outbox.paging import next_events
from bulksafe.outbox.store import Store

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from bulksafe.dispatch.calls import Call
    from bulksafe.outbox.cursors import Cursor
    from bulksafe.outbox.events import Event

__all__ = ["captured", "deliver", "muted", "pending"]

#: The maximum number of rounds of receivers whose writes trigger receivers.
_MOST_ROUNDS = 100
_MOST_EVENTS = 1_000_000

_NOTHING: Mapping[str, int] = MappingProxyType({})


class EndlessCallsError(AssertionError):
    """Receivers trigger each other endlessly."""


def deliver(using: str = DEFAULT_DB_ALIAS, *, queues: Collection[str] | None = None) -> int:
    """Run the after-commit receivers for all writes, including their own.

    Exceptions of a receiver propagate at once, without a retry.

    Args:
        using: the database.
        queues: only the receivers of these queues.

    Returns:
        the number of calls.

    Raises:
        EndlessCallsError: the receivers trigger each other endlessly.
    """
    made = 0
    names: set[str] = set()
    for _ in range(_MOST_ROUNDS):
        with _taken(using, queues) as listed:
            names = {call.receiver.name for call in listed}
            for call in listed:
                call()
        if not listed:
            return made
        made += len(listed)
    raise EndlessCallsError(
        f"After {_MOST_ROUNDS} rounds, receivers still trigger each other: "
        f"{', '.join(sorted(names))}."
    )


def pending(using: str = DEFAULT_DB_ALIAS) -> list[Call]:
    """The calls that ``deliver()`` would make now, in order; runs nothing."""
    found: list[Call] = []
    try:
        with _taken(using, None) as listed:
            found += listed
            raise _LeftAlone
    except _LeftAlone:
        return found


@contextmanager
def captured(using: str = DEFAULT_DB_ALIAS) -> Iterator[list[Call]]:
    """Collect the calls that a block causes, instead of making them.

    Yields a list that is filled when the block ends. Each item has ``receiver`` and ``changes``,
    and each change ``instance``, ``old``, ``changed``, ``created``, ``context`` and ``event_id``.
    Calls that were pending before the block are made first.
    """
    deliver(using)
    found: list[Call] = []
    yield found
    with _taken(using, None) as listed:
        found += listed


class _LeftAlone(Exception):  # noqa: N818
    """Raised to record nothing as delivered."""


@contextmanager
def _taken(using: str, queues: Collection[str] | None) -> Iterator[list[Call]]:
    """The pending calls; recorded as delivered if the block succeeds."""
    is_open = connections[using].in_atomic_block
    with (_of_this_transaction if is_open else _committed)(using, queues) as listed:
        yield listed


@contextmanager
def _of_this_transaction(using: str, queues: Collection[str] | None) -> Iterator[list[Call]]:
    store = Store(using)
    ((noted, last),) = store.rows("delivered_here")
    seen: dict[str, int] = json.loads(noted) if noted else {}
    served = {queue for queue, _ in lanes() if queues is None or queue in queues}
    events = store.own_events(min([seen.get(queue, 0) for queue in served], default=last))
    yield _calls(store, Routes(using, queues), events, seen)
    delivered = json.dumps(seen | dict.fromkeys(served, last))
    store.rows("note_delivered_here", {"delivered": delivered})


@contextmanager
def _committed(using: str, queues: Collection[str] | None) -> Iterator[list[Call]]:
    store = Store(using)
    served = {lane for lane in lanes() if queues is None or lane[0] in queues}
    with transaction.atomic(using=using):
        listed, moved = [], []
        for queue, atomic in sorted(served):
            store.rows("adopt_queue", {"queue": queue, "atomic": atomic})
            own = Known(lanes={(queue, atomic): ()})
            start = store.claim(own, atomic=atomic, limit=BUCKETS, stale=0)
            if start is None:
                continue
            events, done = next_events(store, start.opened(), _MOST_EVENTS)
            listed += _calls(store, Routes(using, [queue], atomic), events, cursors=done)
            moved.append(done)
        yield listed
        for cursors in moved:
            store.advance(cursors)


def _calls(
    store: Store,
    routes: Routes,
    events: Iterable[Event],
    seen: Mapping[str, int] = _NOTHING,
    cursors: Sequence[Cursor] = (),
) -> list[Call]:
    """The calls for events, except for events that their queue has ``seen``.

    Args:
        cursors: their positions after the events; empty if no other events are left.
    """
    batch = Batch(routes, store.prefix())
    ordered = batch.ordered(sorted(events, key=lambda event: (event.bucket, event.seq)))
    return calls(
        [
            delivery
            for delivery in batch.deliveries(_as_written(ordered), cursors)
            if delivery.change.event.seq > seen.get(delivery.receiver.queue, 0)
        ]
    )


def _as_written(events: Iterable[Event]) -> list[Event]:
    """The events in write order instead of bucket order; each row's events keep their order."""
    rows: dict[tuple[int, str], list[Event]] = {}
    for event in events:
        rows.setdefault(event.row, []).append(event)
    numbered: list[tuple[int, Event]] = []
    for row in rows.values():
        # A later change of a row may have a lower number, so its events swap places.
        numbered += zip(sorted(event.before.seq for event in row), row, strict=True)
    return [event for _, event in sorted(numbered, key=lambda pair: pair[0])]
