"""Delivering events: what runs in one transaction, what is parked, how far the cursors move."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction

from bulksafe import conf
from bulksafe.declarations import receivers
from bulksafe.dispatch.batches import Batch, Delivery, calls, prefix_of
from bulksafe.dispatch.routes import Routes
from bulksafe.outbox import parking
from bulksafe.outbox.events import is_shared
from bulksafe.outbox.parking import BEHIND, EVERYBODY, BlockedRow, Failure, Parking
from bulksafe.outbox.store import BUCKETS, Cursor, Store
from bulksafe.outbox.windows import Mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.calls import Call
    from bulksafe.outbox.events import Event

logger = logging.getLogger("bulksafe")

#: How many cursors a worker takes at once: under load the others are left to other workers.
_CURSORS = 4
#: After so many seconds a cursor without work is moved on all the same, so that it keeps no slot of
#: the outbox from being emptied.
STALE = 10.0
#: How many parked events a worker tries again at once.
_RETRIES = 100
#: How many events a worker takes at once for receivers that run outside a transaction.
_LEASED_EVENTS = 50


class BrokenTransaction(Exception):  # noqa: N818
    """A receiver caught a database error and left the transaction unusable.

    Put what may fail into ``transaction.atomic()`` inside the receiver.
    """


class LeaseLost(Exception):  # noqa: N818
    """Another worker has taken over: this one was silent for longer than the lease."""


@dataclass
class Worker:
    """Delivers the events of some queues on the connection ``using``.

    Attributes:
        using: the database.
        queues: the names of the queues.
        stopping: asked between two receivers that run outside a transaction.
        guard: wraps the questions whether there is work, which a dead server leaves open.
        delivered: how many calls have been made, since the worker was made.
    """

    using: str
    queues: Collection[str]
    stopping: Callable[[], bool] = lambda: False
    guard: Callable[[], AbstractContextManager[None]] = nullcontext
    delivered: int = 0
    failed: int = 0
    _lanes: dict[tuple[str, bool], Batch] = field(default_factory=dict)
    _mark: Mark | None = None
    _looked: dict[bool, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store(self.using)

    def work(self) -> int:
        """Deal with one batch of each kind.

        Returns:
            how many events were dealt with.
        """
        done = 0
        if self._has_receivers(atomic=True):
            done += self._in_transaction()
        if self._has_receivers(atomic=False):
            done += self._under_lease()
        return done

    def has_work(self) -> bool:
        """Whether there is something to deal with that no other worker has taken."""
        return any(
            self.store.has_work(sorted(self.queues), atomic)
            for atomic in (True, False)
            if self._has_receivers(atomic=atomic)
        )

    def _has_receivers(self, *, atomic: bool) -> bool:
        return any(
            receiver.atomic == atomic and receiver.queue in self.queues
            for receiver in receivers.receivers
            if receiver.run == receivers.AFTER_COMMIT
        ) or (atomic and receivers.DEFAULT_QUEUE in self.queues)

    def _batch(self, queue: str, *, atomic: bool) -> Batch:
        """What knows the receivers of one queue: each queue has come to another place."""
        lane = queue, atomic
        if lane not in self._lanes:
            routes = Routes(self.using, [queue], atomic)
            self._lanes[lane] = Batch(routes, prefix_of(self.using))
        return self._lanes[lane]

    # In a transaction.

    def _in_transaction(self) -> int:
        """The receivers' effects and the progress of the cursors commit together."""
        done = 0
        with transaction.atomic(using=self.using):
            cursors = self._claimed(atomic=True, limit=_CURSORS)
            for queue, group in groupby(cursors, key=lambda cursor: cursor.queue):
                done += self._deliver(queue, list(group))
        return done

    def _claimed(self, *, atomic: bool, limit: int) -> list[Cursor]:
        """Locked cursors, each with an open window.

        At READ COMMITTED: each statement sees what has been committed by then.
        """
        with self.guard():
            number = self.store.last_number()
            cursors = self.store.claim(sorted(self.queues), atomic, limit)
            if not cursors and self._is_time_to_look_at_all(atomic=atomic):
                cursors = self.store.claim(sorted(self.queues), atomic, limit, STALE)
        if not cursors:
            return []
        snapshot, xid = self.store.snapshot()
        # The bound of the batch before: it needs a transaction that has ended.
        floor = self._mark.floor(snapshot) if self._mark else 0
        self._mark = Mark(xid, number)
        opened = [cursor.at(cursor.window.opened(snapshot, floor)) for cursor in cursors]
        return sorted(opened, key=lambda cursor: (cursor.queue, cursor.bucket))

    def _is_time_to_look_at_all(self, *, atomic: bool) -> bool:
        """Whether cursors without work are to be moved on, once in a while."""
        now = time.monotonic()
        if now - self._looked.get(atomic, 0.0) < STALE / BUCKETS:
            return False
        self._looked[atomic] = now
        return True

    def _deliver(self, queue: str, cursors: Sequence[Cursor]) -> int:
        batch = self._batch(queue, atomic=True)
        blocked = parking.blocked(self.store, cursors)
        # Only what blocks is tried again.
        retried = _retried(self.store, batch, cursors) if blocked else []
        for delivery in retried:
            error = self.attempt(calls([delivery])[0], delivery.change.event)
            _note(self.store, delivery, error)
        if retried:
            blocked = parking.blocked(self.store, cursors)
        limit = max(conf.get().BATCH_SIZE // _CURSORS, 1)
        events, moved = page(self.store, cursors, limit)
        if events:
            desk = _Desk(self, queue, blocked)
            desk.deliver(batch.deliveries(desk.known(batch, batch.ordered(events))))
            parking.park(self.store, True, desk.parkings)
        self.store.advance(moved)
        return len(events) + len(retried)

    def attempt(self, call: Call, event: Event) -> Exception | None:
        """Make a call in a savepoint.

        Returns:
            what it raised.
        """
        try:
            with transaction.atomic(using=self.using):
                self.make(call)
        except Exception as error:  # whatever a receiver raises is noted with its event
            if _is_lost(self.using):
                raise
            self._log(call, error, event)
            return error
        return None

    @cached_property
    def _connection(self) -> Any:
        return connections[self.using]

    def make(self, call: Call) -> None:
        """Make a call in the open transaction.

        Raises:
            BrokenTransaction: it has left the transaction unusable, and hidden that.
        """
        call()
        if self._connection.needs_rollback:
            raise BrokenTransaction(
                f"{call.receiver.name} caught a database error without a savepoint around it: put "
                "what may fail into transaction.atomic()."
            )
        self.delivered += 1

    def _log(self, call: Call, error: Exception, event: Event) -> None:
        self.failed += 1
        attempts = event.attempts + 1
        logger.warning(
            "receiver %s failed (attempt %d of %d) on event %d: %s: %s",
            call.receiver.name,
            attempts,
            call.receiver.max_attempts,
            event.seq,
            type(error).__name__,
            error,
            exc_info=error,
            extra={"receiver": call.receiver.name, "seq": event.seq, "attempts": attempts},
        )

    # Under a lease.

    def _under_lease(self) -> int:
        """Receivers with effects outside the database: no transaction is open while they run."""
        with transaction.atomic(using=self.using):
            cursors = self._claimed(atomic=False, limit=1)
            if not cursors:
                return 0
            lease = _Lease.take(self.store, cursors[0])
            self.store.advance([lease.cursor])
        try:
            return self._deliver_leased(lease)
        except LeaseLost as lost:
            logger.warning("%s", lost)
            return 1

    def _deliver_leased(self, lease: _Lease) -> int:
        cursor = lease.cursor
        batch = self._batch(cursor.queue, atomic=False)
        retried = _retried(self.store, batch, [cursor])
        for delivery in retried:
            if self.stopping():
                lease.release()
                return 1
            lease.renew()
            error = self._attempt_leased(calls([delivery])[0], delivery.change.event)
            with lease.held():
                _note(self.store, delivery, error)
        events, (moved,) = page(self.store, [cursor], _LEASED_EVENTS)
        desk = _Desk(self, cursor.queue, parking.blocked(self.store, [cursor]))
        deliveries = batch.deliveries(desk.known(batch, batch.ordered(events)))
        waiting = [desk.kept(delivery) for delivery in deliveries]
        listed = calls([delivery for delivery in waiting if delivery is not None])
        if self._make_leased(lease, desk, listed, events):
            with lease.held():
                parking.park(self.store, False, desk.taken())
                self.store.advance([moved])
        lease.release()
        return len(events) + len(retried)

    def _make_leased(
        self, lease: _Lease, desk: _Desk, listed: Sequence[Call], events: Sequence[Event]
    ) -> bool:
        """Make the calls, noting the progress after each. Whether all were made."""
        left = [
            {seq for change in call.changes for seq in _numbers(change.event)} for call in listed
        ]
        for number, call in enumerate(listed):
            if self.stopping():
                return False
            lease.renew()
            for single in [call] if desk.may(call) else call.single_calls():
                desk.settle(single, self._attempt_leased)
            undone = {seq for numbers in left[number + 1 :] for seq in numbers}
            done = min([seq - 1 for seq in undone], default=None)
            if done is not None and events:
                lease.move(desk.taken(), done)
        return True

    def _attempt_leased(self, call: Call, event: Event) -> Exception | None:
        try:
            call()
        except Exception as error:  # whatever a receiver raises is noted with its event
            if _is_lost(self.using):
                raise
            self._log(call, error, event)
            return error
        self.delivered += 1
        return None


@dataclass
class _Desk:
    """Where calls are made one by one, and events parked behind those that failed."""

    worker: Worker
    queue: str
    blocked: set[BlockedRow]
    parkings: list[Parking] = field(default_factory=list)

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """All calls in one savepoint; if one fails, each in its own."""
        free = [d for d in map(self.kept, deliveries) if d is not None]
        listed = calls(free)
        if not listed:
            return
        before = self.worker.delivered
        try:
            with transaction.atomic(using=self.worker.using):
                for call in listed:
                    self.worker.make(call)
        except Exception as error:  # found again, and noted, one by one
            if _is_lost(self.worker.using):
                raise
            logger.info("a batch of %d calls is made one by one: %s", len(listed), error)
            self.worker.delivered = before
            for delivery in free:
                delivery.change.forget_instances()
            for call in listed:
                self._one_by_one(call)

    def _one_by_one(self, call: Call) -> None:
        if len(call.changes) > 1:
            if self.may(call) and self.worker.attempt(call, call.changes[-1].event) is None:
                return
            for change in call.changes:
                change.forget_instances()
        for single in call.single_calls() if len(call.changes) > 1 else [call]:
            self.settle(single, self.worker.attempt)

    def known(self, batch: Batch, events: Iterable[Event]) -> list[Event]:
        """The events whose table this code knows; the others are parked for everybody.

        So are later ones of the same rows, until code that knows the table has dealt with them.
        """
        found = []
        for event in events:
            row = self.queue, EVERYBODY, event.source, event.key
            if row not in self.blocked and batch.is_known(event):
                found.append(event)
            else:
                self.blocked.add(row)
                self.parkings.append(Parking(self.queue, EVERYBODY, event, BEHIND))
        return found

    def kept(self, delivery: Delivery) -> Delivery | None:
        """The delivery, unless its row is blocked: then it is parked."""
        if not self.blocked:
            return delivery
        if self._row(delivery.receiver, delivery.change.event) not in self.blocked:
            return delivery
        self._park(delivery.receiver, delivery.change.event, BEHIND)
        return None

    def may(self, call: Call) -> bool:
        """Whether no row of the call is blocked."""
        rows = {self._row(call.receiver, change.event) for change in call.changes}
        return rows.isdisjoint(self.blocked)

    def settle(self, call: Call, attempt: Callable[[Call, Event], Exception | None]) -> None:
        """Make a call for one change, or park it."""
        receiver, event = call.receiver, call.changes[-1].event
        if not self.may(call):
            for change in call.changes:
                self._park(receiver, change.event, BEHIND)
            return
        error = attempt(call, event)
        if error is None:
            return
        failure = Failure.of(error, 1, receiver.max_attempts, receiver.on_dead)
        for change in call.changes:
            self._park(receiver, change.event, failure)
            if failure.blocks:
                self.blocked.add(self._row(receiver, change.event))

    def taken(self) -> list[Parking]:
        """The parkings, which the caller stores."""
        found, self.parkings = self.parkings, []
        return found

    def _park(self, receiver: Receiver, event: Event, failure: Failure) -> None:
        self.parkings.append(Parking(self.queue, receiver.name, event, failure))

    def _row(self, receiver: Receiver, event: Event) -> BlockedRow:
        return self.queue, receiver.name, event.source, event.key


@dataclass
class _Lease:
    """The right to go on with a cursor while no transaction is open.

    The epoch fences: whoever takes over has a higher one, and what the former holder would store
    after that is refused.
    """

    store: Store
    cursor: Cursor
    epoch: int
    renewed: float

    @classmethod
    def take(cls, store: Store, cursor: Cursor) -> _Lease:
        ((epoch,),) = store.rows("lease", cls._named(cursor, seconds=conf.get().LEASE))
        return cls(store, cursor, epoch, time.monotonic())

    @staticmethod
    def _named(cursor: Cursor, **more: float) -> dict[str, object]:
        return {"queue": cursor.queue, "bucket": cursor.bucket, **more}

    def renew(self) -> None:
        """Make sure that the lease is held, before something that cannot be undone.

        Raises:
            LeaseLost: it is not.
        """
        seconds = conf.get().LEASE
        named = self._named(self.cursor, epoch=self.epoch, seconds=seconds)
        if not self.store.rows("renew", named):
            raise LeaseLost(
                f"The lease on bucket {self.cursor.bucket} of queue {self.cursor.queue!r} was lost "
                f"after {time.monotonic() - self.renewed:.0f} s: a call took longer than "
                f'BULKSAFE["LEASE"], {seconds} s. Another worker goes on with the same event_id.'
            )
        self.renewed = time.monotonic()

    @contextmanager
    def held(self) -> Iterator[None]:
        """A transaction in which nobody else can take over.

        Raises:
            LeaseLost: somebody has.
        """
        with transaction.atomic(using=self.store.using):
            if not self.store.rows("lock_leased", self._named(self.cursor, epoch=self.epoch)):
                raise LeaseLost(f"The lease on bucket {self.cursor.bucket} was lost.")
            yield

    def move(self, parkings: Sequence[Parking], position: int) -> None:
        """Note that all up to ``position`` is dealt with."""
        with self.held():
            parking.park(self.store, False, parkings)
            window = self.cursor.window
            if position > (window.position or 0):
                self.cursor = self.cursor.at(window.moved(position, window.skip))
                self.store.advance([self.cursor])

    def release(self) -> None:
        self.store.rows("release", self._named(self.cursor, epoch=self.epoch))


def page(store: Store, cursors: Sequence[Cursor], limit: int) -> tuple[list[Event], list[Cursor]]:
    """The next events of each cursor, and the cursors as they are when these are dealt with."""
    fetched = store.fetch(cursors, limit)
    events: list[Event] = []
    moved = []
    for cursor in cursors:
        found = [event for event in fetched if event.bucket == cursor.bucket]
        window = cursor.window
        fresh = [event for event in found if event.seq not in window.skip]
        if len(found) < limit:
            moved.append(cursor.at(window.closed()))
        else:
            position = found[-1].seq
            shared = [event for event in fresh if is_shared(event)]
            beyond = store.fetch_beyond(shared, position) if shared else []
            beyond = [event for event in beyond if event.seq not in window.skip]
            fresh += beyond
            moved.append(cursor.at(window.moved(position, [event.seq for event in beyond])))
        events += fresh
    return events, moved


def _retried(store: Store, batch: Batch, cursors: Sequence[Cursor]) -> list[Delivery]:
    """The parked events that are due, with their receivers."""
    found = []
    for event, name in parking.due(store, cursors, _RETRIES):
        receiver = receivers.by_name(name)
        if event.source not in batch.routes.models:
            _orphan(store, event, "This code has no receivers for the event's table.")
        elif name == EVERYBODY:
            parking.unfold(store, event, [r.name for r in batch.wanted(event)])
        elif receiver is None:
            _orphan(store, event, f"There is no receiver {name!r} in this code.")
        else:
            found.append((event, receiver))
    return batch.parked(found)


def _orphan(store: Store, event: Event, reason: str) -> None:
    logger.warning("parked event %s is orphaned: %s", event.parked, reason)
    parking.orphan(store, event, reason)


def _note(store: Store, delivery: Delivery, error: Exception | None) -> None:
    event, receiver = delivery.change.event, delivery.receiver
    if error is None:
        parking.unpark(store, [event])
        return
    failure = Failure.of(error, event.attempts + 1, receiver.max_attempts, receiver.on_dead)
    parking.failed_again(store, event, failure)


def _numbers(event: Event) -> Iterable[int]:
    return (event.before.seq, event.seq)


def _is_lost(using: str) -> bool:
    """Whether the transaction cannot go on."""
    connection = connections[using]
    return (
        connection.connection is None or connection.connection.closed or connection.needs_rollback
    )
