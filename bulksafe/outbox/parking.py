"""Calls made one by one: failed ones, calls that wait behind them, and slow ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from bulksafe.outbox.contexts import read_context
from bulksafe.outbox.events import Event
from bulksafe.outbox.failures import retry_delay

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from bulksafe.declarations.receiver import Receiver
    from bulksafe.outbox.failures import Failure
    from bulksafe.outbox.known import Known
    from bulksafe.outbox.store import Store

#: The receiver name of an event whose table has no receivers in this code.
EVERY_RECEIVER = "*"

#: Stands for all receivers of a row: an earlier call of the row was not attempted yet.
ANY_RECEIVER = ""

#: A row of one receiver: (receiver's name, source, key).
BlockedRow = tuple[str, int, str]


@dataclass(frozen=True)
class Parking:
    """An event to be parked for a receiver.

    Attributes:
        call: events with the same number make one call; None for a separate call.
        leads: whether it is the first of its call.
    """

    receiver: str
    event: Event
    failure: Failure
    call: int | None = None
    leads: bool = True


@dataclass(frozen=True)
class Taken:
    """A parked call that this process has leased.

    Attributes:
        atomic: the lane that it came from.
        receiver: its receiver's name, or ``EVERY_RECEIVER``.
        epoch: grows when a different process takes the call over.
        error: the error of the previous attempt, if any.
        events: the events of the call.
    """

    atomic: bool
    receiver: str
    epoch: int
    error: str | None
    events: Sequence[Event]

    @property
    def id(self) -> int:
        return self.ids[0]

    @property
    def ids(self) -> list[int]:
        return [event.parked for event in self.events if event.parked is not None]

    @property
    def attempts(self) -> int:
        """The number of attempts, including a running one."""
        return self.events[0].attempts

    @property
    def named(self) -> dict[str, Any]:
        """Query parameters with its ids and its fencing epoch."""
        return {"id": self.id, "ids": self.ids, "epoch": self.epoch}


def blocked(store: Store, queue: str, *, atomic: bool, events: Sequence[Event]) -> set[BlockedRow]:
    """The rows of these events that have earlier parked calls."""
    rows = {(event.bucket, event.source, event.key) for event in events}
    found: set[BlockedRow] = set()
    parameters = {
        "queue": queue,
        "atomic": atomic,
        "buckets": [bucket for bucket, _, _ in rows],
        "sources": [source for _, source, _ in rows],
        "keys": [key for _, _, key in rows],
    }
    for receiver, source, key, is_untried in store.rows("blocked", parameters):
        found.add((receiver, source, key))
        if is_untried and receiver != EVERY_RECEIVER:
            found.add((ANY_RECEIVER, source, key))
    return found


def park(store: Store, queue: str, *, atomic: bool, parkings: Sequence[Parking]) -> list[int]:
    """Copy events from the outbox to the parked calls.

    Returns:
        their ids, in the order of ``parkings``.
    """
    if not parkings:
        return []
    failures = [parking.failure for parking in parkings]
    events = [parking.event for parking in parkings]
    rows = store.rows(
        "park",
        {
            "queue": queue,
            "atomic": atomic,
            "receivers": [parking.receiver for parking in parkings],
            "buckets": [event.bucket for event in events],
            "firsts": [event.before.seq for event in events],
            "seqs": [event.seq for event in events],
            "operations": [event.operation for event in events],
            "calls": [parking.call for parking in parkings],
            "leads": [parking.leads for parking in parkings],
            "attempts": [failure.attempts for failure in failures],
            "delays": [failure.delay for failure in failures],
            "errors": [failure.error for failure in failures],
            "tracebacks": [failure.traceback for failure in failures],
            "states": [failure.state for failure in failures],
            "blocks": [failure.blocks for failure in failures],
            "olds": [(event.amended or {}).get("old") for event in events],
            "news": [(event.amended or {}).get("new") for event in events],
        },
    )
    return [number for (number,) in rows]


def next_calls(store: Store, number: int) -> list[int]:
    """``count`` new numbers for calls of several events."""
    return [call for (call,) in store.rows("next_calls", {"number": number})] if number else []


def has_due(store: Store, queue: str) -> bool:
    """Whether a parked call of a queue may be due; a cheap check before ``take``."""
    return bool(store.rows("has_due", {"queue": queue})[0][0])


def take(store: Store, queue: str, known: Known, limit: int, lease: float) -> list[Taken]:
    """Take the next parked calls of a queue that this code can make.

    They do not wait for each other.

    Args:
        limit: the maximum number of calls.
        lease: seconds after which calls that were not started are released.
    """
    parameters = {"queue": queue, "limit": limit, "lease": lease, **known.parameters}
    rows = store.rows("take", parameters)
    found = []
    for _, group in groupby(rows, key=itemgetter(0)):
        members = list(group)
        atomic, receiver, epoch, error = members[0][1:5]
        found.append(Taken(atomic, receiver, epoch, error, [_event(row[5:]) for row in members]))
    return found


def begin(store: Store, taken: Taken, lease: float) -> Taken | None:
    """Begin an attempt of a call: it counts even if this process dies.

    Args:
        lease: seconds after which others may take it over, unless it is renewed.

    Returns:
        the call, with one attempt more; None if another process has taken it.
    """
    if not store.rows("begin", {**taken.named, "lease": lease}):
        return None
    return replace(taken, events=[replace(e, attempts=e.attempts + 1) for e in taken.events])


def release(store: Store, listed: Sequence[Taken]) -> None:
    """Release calls that were taken but not started."""
    ids, epochs = [taken.id for taken in listed], [taken.epoch for taken in listed]
    store.rows("release", {"ids": ids, "epochs": epochs})


def _event(row: Sequence[Any]) -> Event:
    *columns, context, parked, attempts = row
    event = Event(*(*columns, read_context(context)))
    return replace(event, parked=parked, attempts=attempts)


def hold(store: Store, taken: Taken) -> Sequence[str] | None:
    """Lock the call until the end of the transaction.

    Returns:
        the connection's settings; None if another process has taken the call over.
    """
    rows = store.rows("lock_taken", taken.named, unlimited=store.unlimited)
    return rows[0][1] if rows else None


def done(store: Store, taken: Taken) -> bool:
    """Delete a finished call. False if a different process has taken it over."""
    return bool(store.rows("done", taken.named))


def failed(store: Store, taken: Taken, failure: Failure) -> bool:
    """Store the failure of the call. False if a different process has taken it over."""
    named = {**taken.named, **vars(failure)}
    return bool(store.rows("failed", named))


def split(store: Store, taken: Taken) -> None:
    """Split the call into one call for each event."""
    store.rows("split", taken.named)


def wake_free(store: Store, ids: Sequence[int]) -> None:
    """Make those of the calls due that no longer wait behind an earlier call."""
    store.rows("wake_free", {"ids": list(ids)}, among="p.id = ANY (%(ids)s)")


def wake_all_free(store: Store, queues: Collection[str]) -> None:
    """The same for all calls of some queues."""
    store.rows("wake_free", {"queues": sorted(queues)}, among="p.queue = ANY (%(queues)s)")


def is_taken(store: Store, queues: Collection[str], lease: float) -> bool:
    """Whether a process has taken calls of these queues and not begun them.

    Args:
        lease: seconds for which a process takes calls.
    """
    return bool(store.rows("is_taken", {"queues": sorted(queues), "lease": lease})[0][0])


def unfold(store: Store, taken: Taken, receivers: Sequence[str]) -> None:
    """Replace an event parked for all receivers by one for each of these."""
    store.rows("unfold", {**taken.named, "receivers": list(receivers)})


def died(
    store: Store,
    lease: tuple[int, int],
    attempt: int,
    receiver: Receiver | None,
    error: str,
) -> None:
    """Store the failure of a call whose process died. Its attempt was counted.

    Args:
        lease: the parked call's id and its epoch.
    """
    parked, epoch = lease
    backoff = receiver.backoff if receiver is not None else None
    # Does not call a user's backoff function, which could block the keeper.
    delay = retry_delay(attempt, None if callable(backoff) else backoff)
    store.rows("died", {"id": parked, "epoch": epoch, "error": error, "delay": delay})
