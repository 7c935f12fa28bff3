"""How the outbox is: what waits, what failed, who listens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from django.utils import timezone

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
        waiting: events that are committed and not dealt with.
        oldest_seconds: the age of the oldest of them.
        parked: calls that are made one by one: those that failed and are tried again, those that
            wait behind them, and those that run alone.
        dead: dead letters.
        listeners: daemons that are connected and serve it.
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
    """A daemon that is connected."""

    name: str
    queues: tuple[str, ...]
    since: datetime | None
    address: str | None


@dataclass(frozen=True)
class RunningWorker:
    """A worker process, and the call that it makes.

    Attributes:
        host, pid: where it runs.
        queue: whose events it delivers.
        since: since when.
        receiver: whose call takes long; None if none does.
        source, key: the table and the primary key of the call's row.
        call_since: since when the call runs.
    """

    host: str
    pid: int
    queue: str
    since: datetime
    receiver: str | None
    source: str | None
    key: str | None
    call_since: datetime | None

    @property
    def call_seconds(self) -> float:
        """For how long the call has been running."""
        if self.call_since is None:
            return 0.0
        return (timezone.now() - self.call_since).total_seconds()


@dataclass(frozen=True)
class Slot:
    """A slot of the outbox.

    Attributes:
        slot: its number.
        bytes: its size.
        current: whether it is the one that is written to.
    """

    slot: int
    bytes: int
    current: bool


#: A listener moves each of its cursors on more often than that, also those without work.
_LATELY = timedelta(seconds=30)


@dataclass(frozen=True)
class State:
    """The whole outbox of a database."""

    queues: list[QueueState]
    listeners: list[Listener]
    workers: list[RunningWorker]
    slots: list[Slot]


def state(store: Store, known: Known) -> State:
    """What ``bulksafe status`` shows.

    Args:
        known: the receivers and tables of this code.
    """
    listeners = [_listener(*row) for row in store.rows("listeners")]
    parked = {(queue, atomic): rest for queue, atomic, *rest in store.rows("parked_counts")}
    now = timezone.now()
    queues = []
    for queue, atomic, events, oldest, served in store.rows("lag", known.lane_parameters):
        kept, dead = parked.get((queue, atomic), (0, 0))
        seconds = max((now - oldest).total_seconds(), 0.0) if oldest else 0.0
        alive = sum(queue in listener.queues for listener in listeners)
        if not alive and listeners and now - served < _LATELY:
            alive = 1  # PostgreSQL cuts the name of a connection that serves many queues
        lag = events, round(seconds, 1)
        queues.append(QueueState(queue, atomic, *lag, kept, dead, alive))
    return State(queues, listeners, workers(store), [Slot(*row) for row in store.rows("slots")])


def workers(store: Store) -> list[RunningWorker]:
    """The workers of all listeners that are alive."""
    return [RunningWorker(*row) for row in store.rows("workers")]


def _listener(application_name: str, since: datetime | None, address: str | None) -> Listener:
    """Read the name that listeners give their connection."""
    name, _, queues = application_name.removeprefix("bulksafe listen ").partition(" ")
    return Listener(name, tuple(queues.split(",")), since, address)
