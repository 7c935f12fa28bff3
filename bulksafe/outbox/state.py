"""The state of the outbox: waiting events, failures and listeners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulksafe.outbox import schema
from bulksafe.outbox.violations import Count, counts

if TYPE_CHECKING:
    from datetime import datetime

    from bulksafe.outbox.known import Known
    from bulksafe.outbox.store import Store


@dataclass(frozen=True)
class QueueState:
    """One queue.

    Attributes:
        queue: its name.
        atomic: whether its receivers run in a transaction.
        waiting: committed events that are not delivered.
        oldest_seconds: the age of the oldest of them.
        parked: calls that are made one by one: failed calls, calls that wait behind them, and calls
            that run alone.
        dead: dead letters.
        listeners: the number of connected listeners that serve it.
    """

    queue: str
    atomic: bool
    waiting: int
    oldest_seconds: float
    parked: int
    dead: int
    listeners: int


@dataclass(frozen=True)
class Listener:
    """A connected listener."""

    name: str
    queues: tuple[str, ...]
    since: datetime | None
    address: str | None


@dataclass(frozen=True)
class RunningWorker:
    """A worker process and its current call.

    Attributes:
        host, pid: where it runs.
        queue: the queue that it delivers.
        since: the time of its start.
        receiver: the receiver of a long call; None without one.
        source, key: the table and the primary key of the call's row.
        call_since: the start of the call.
        call_seconds: seconds since then, by the server's clock; 0 without a call.
    """

    host: str
    pid: int
    queue: str
    since: datetime
    receiver: str | None
    source: str | None
    key: str | None
    call_since: datetime | None
    call_seconds: float


@dataclass(frozen=True)
class Slot:
    """A slot of the outbox.

    Attributes:
        slot: its number.
        bytes: its size.
        current: whether new events go to it.
    """

    slot: int
    bytes: int
    current: bool


#: Seconds. A listener advances all its cursors more often than that, even without work.
_LATELY = 30.0


@dataclass(frozen=True)
class State:
    """The whole outbox of a database."""

    queues: list[QueueState]
    listeners: list[Listener]
    workers: list[RunningWorker]
    slots: list[Slot]
    violations: list[Count]

    @property
    def unserved(self) -> list[str]:
        """The queues with waiting events or calls that no listener serves."""
        waiting = (one for one in self.queues if one.waiting or one.parked)
        found = (one.queue for one in waiting if not one.listeners)
        return list(dict.fromkeys(found))


def state(store: Store, known: Known) -> State:
    """The state that ``bulksafe status`` shows.

    Args:
        known: the receivers and tables of this code.
    """
    listeners = [_listener(*row) for row in store.rows("listeners")]
    queues = []
    for queue, atomic, events, age, unserved, parked, dead in store.rows(
        "lag", known.lane_parameters
    ):
        alive = sum(queue in listener.queues for listener in listeners)
        if not alive and listeners and unserved < _LATELY:
            alive = 1  # PostgreSQL truncates the name of a connection that serves many queues
        lag = events, round(max(age or 0.0, 0.0), 1)
        queues.append(QueueState(queue, atomic, *lag, parked, dead, alive))
    slots = [Slot(*row) for row in store.rows("slots")]
    observed = counts(store) if schema.has_violations(store.using) else []
    return State(queues, listeners, workers(store), slots, observed)


def workers(store: Store) -> list[RunningWorker]:
    """The workers of all live listeners."""
    return [RunningWorker(*row) for row in store.rows("workers")]


def _listener(application_name: str, since: datetime | None, address: str | None) -> Listener:
    """Parse the connection name of a listener."""
    name, _, queues = application_name.removeprefix("bulksafe listen ").partition(" ")
    return Listener(name, tuple(queues.split(",")), since, address)
