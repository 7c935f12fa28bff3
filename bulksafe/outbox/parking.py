"""Parked events: what a receiver failed on, and what waits behind it."""

from __future__ import annotations

import json
import random
import traceback
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bulksafe import conf
from bulksafe.outbox.events import Event

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from bulksafe.outbox.store import Cursor, Store

WAITING, DEAD = "waiting", "dead"

#: The name under which an event is parked whose table the code does not know: for all receivers.
EVERYBODY = "*"

#: A row, as one receiver sees it: (queue, receiver's name, source, key).
BlockedRow = tuple[str, str, int, str]


@dataclass(frozen=True)
class Failure:
    """What became of an attempt, and what follows.

    Attributes:
        attempts: how many there were.
        error: the exception in a line.
        traceback: where it came from.
        state: ``"waiting"`` or ``"dead"``.
        blocks: whether later events of the row wait for this one.
        delay: seconds until the next attempt.
    """

    attempts: int
    error: str | None = None
    traceback: str | None = None
    state: str = WAITING
    blocks: bool = True
    delay: float = 0.0

    @classmethod
    def of(cls, error: BaseException, attempts: int, max_attempts: int, on_dead: str) -> Failure:
        """The failure of the attempt number ``attempts``."""
        is_dead = attempts >= max_attempts
        return cls(
            attempts,
            _shortened(f"{type(error).__name__}: {error}", _ERROR_LENGTH),
            _shortened("".join(traceback.format_exception(error)), _TRACEBACK_LENGTH),
            DEAD if is_dead else WAITING,
            not is_dead or on_dead == "block",
            retry_delay(attempts),
        )


#: A failure for what has not been tried: it waits behind one that has.
BEHIND = Failure(0)

_ERROR_LENGTH = 1_000
_TRACEBACK_LENGTH = 20_000


def _shortened(text: str, length: int) -> str:
    """The end of a traceback says more than its middle. PostgreSQL's text has no NUL."""
    clean = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
    return clean if len(clean) <= length else f"{clean[: length // 2]} … {clean[-length // 2 :]}"


def retry_delay(attempts: int) -> float:
    """Seconds before the next attempt: exponential backoff with equal jitter.

    Half of the delay is random, so that what failed together is not tried together.
    (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.)
    """
    settings = conf.get()
    delay: float = min(settings.RETRY_DELAY * 2 ** min(attempts - 1, 60), settings.RETRY_DELAY_MAX)
    return delay * random.uniform(0.5, 1.0)  # noqa: S311


@dataclass(frozen=True)
class Parking:
    """An event that is to be parked for a receiver."""

    queue: str
    receiver: str
    event: Event
    failure: Failure


def blocked(store: Store, cursors: Sequence[Cursor]) -> set[BlockedRow]:
    """The rows whose events have to wait."""
    return set(store.rows("blocked", _of(cursors)))


def park(store: Store, atomic: bool, parkings: Sequence[Parking]) -> None:
    """Copy the events from the outbox to the parked ones."""
    if not parkings:
        return
    failures = [parking.failure for parking in parkings]
    events = [parking.event for parking in parkings]
    store.rows(
        "park",
        {
            "atomic": atomic,
            "queues": [parking.queue for parking in parkings],
            "receivers": [parking.receiver for parking in parkings],
            "buckets": [event.bucket for event in events],
            "firsts": [event.before.seq for event in events],
            "seqs": [event.seq for event in events],
            "operations": [event.operation for event in events],
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


def due(store: Store, cursors: Sequence[Cursor], limit: int) -> list[tuple[Event, str]]:
    """The parked events whose time has come, each the first of its row, and their receivers."""
    rows = store.rows("due", {**_of(cursors), "limit": limit})
    return [(_event(columns), receiver) for receiver, *columns in rows]


def _event(row: Sequence[Any]) -> Event:
    *columns, context, parked, attempts = row
    event = Event(*(*columns, json.loads(context) if context else {}))
    return replace(event, parked=parked, attempts=attempts)


def unpark(store: Store, events: Collection[Event]) -> None:
    """The events are dealt with: what waited behind them is due."""
    ids = [event.parked for event in events]
    store.rows("wake_followers", {"ids": ids})
    store.rows("unpark", {"ids": ids})


def failed_again(store: Store, event: Event, failure: Failure) -> None:
    """Note another failure of a parked event."""
    store.rows("failed_again", {"id": event.parked, **vars(failure)})
    if not failure.blocks:
        store.rows("wake_followers", {"ids": [event.parked]})


def orphan(store: Store, event: Event, error: str) -> None:
    """Leave a parked event until other code looks at it."""
    store.rows("orphan", {"id": event.parked, "error": error})


def adopt_orphans(store: Store) -> None:
    """Let this code look at what other code did not know."""
    store.rows("adopt_orphans")


def unfold(store: Store, event: Event, receivers: Sequence[str]) -> None:
    """Park an event for these receivers in place of everybody."""
    store.rows("unfold", {"id": event.parked, "receivers": list(receivers)})


def _of(cursors: Sequence[Cursor]) -> dict[str, Any]:
    return {
        "queues": list({cursor.queue for cursor in cursors}),
        "atomic": cursors[0].atomic,
        "buckets": list({cursor.bucket for cursor in cursors}),
    }
