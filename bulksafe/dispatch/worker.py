"""Delivering events: what is claimed, what runs in one transaction, how far the cursors move."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from django.db import DatabaseError, transaction

from bulksafe import conf
from bulksafe.declarations.receivers import DEFAULT_LANE, Lane, lanes
from bulksafe.dispatch import retries
from bulksafe.dispatch.batches import Batch
from bulksafe.dispatch.caller import Caller, CallFailed
from bulksafe.dispatch.desk import Desk
from bulksafe.dispatch.lease import Lease, LeaseLost
from bulksafe.dispatch.leased import LeasedDelivery
from bulksafe.dispatch.ordering import calls
from bulksafe.dispatch.routes import Routes
from bulksafe.outbox import parking
from bulksafe.outbox.paging import page
from bulksafe.outbox.store import BUCKETS, Cursor, Store
from bulksafe.outbox.windows import Mark

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("bulksafe")

#: How many cursors a worker takes at once: under load the others are left to other workers.
_CURSORS = 4
#: After so many seconds a cursor without work is moved on all the same, so that it keeps no slot of
#: the outbox from being emptied.
_STALE = 10.0


@dataclass(frozen=True)
class Claim:
    """Cursors that the present transaction has locked.

    Attributes:
        cursors: by queue and bucket, each with an open window.
        has_parked: whether any event is parked.
        session: settings of the connection that have to stay as they are.
    """

    cursors: Sequence[Cursor]
    has_parked: bool = False
    session: Sequence[str] = ()


@dataclass
class Worker:
    """Delivers the events of some queues on the connection ``using``.

    Attributes:
        using: the database.
        queues: the names of the queues.
        stopping: asked between two receivers that run outside a transaction.
        guard: wraps the questions whether there is work, which a dead server leaves open.
        caller: who makes the calls, and counts them.
    """

    using: str
    queues: Collection[str]
    stopping: Callable[[], bool] = lambda: False
    guard: Callable[[], AbstractContextManager[None]] = nullcontext
    caller: Caller = field(init=False)
    store: Store = field(init=False)
    _batches: dict[Lane, Batch] = field(default_factory=dict)
    _mark: Mark | None = None
    _number: int = 0
    _looked: dict[bool, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.caller = Caller(self.using)
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
            queue in self.queues
            for queue, lane_atomic in (DEFAULT_LANE, *lanes())
            if lane_atomic == atomic
        )

    def _batch(self, queue: str, *, atomic: bool) -> Batch:
        """What knows the receivers of one queue: each queue has come to another place."""
        lane = queue, atomic
        if lane not in self._batches:
            routes = Routes(self.using, [queue], atomic)
            self._batches[lane] = Batch(routes, self.store.prefix())
        return self._batches[lane]

    # In a transaction.

    def _in_transaction(self) -> int:
        """The receivers' effects and the progress of the cursors commit together.

        At first without savepoints, which cost two round trips and are seldom needed.
        """
        delivered = self.caller.delivered
        try:
            return self._deliver_all(careful=False)
        except (CallFailed, DatabaseError) as failed:
            # A receiver may have left the connection so that the worker's own queries fail.
            if self.caller.is_lost:
                raise
            logger.info("a batch is done again, call by call: %s", failed.__cause__ or failed)
            self.caller.delivered = delivered
            return self._deliver_all(careful=True)

    def _deliver_all(self, *, careful: bool) -> int:
        done = 0
        with transaction.atomic(using=self.using), self.caller.shared():
            claim = self._claimed(atomic=True, limit=_CURSORS)
            for queue, group in groupby(claim.cursors, key=lambda cursor: cursor.queue):
                done += self._deliver(queue, list(group), claim, careful=careful)
        return done

    def _claimed(self, *, atomic: bool, limit: int) -> Claim:
        """Locked cursors, each with an open window.

        At READ COMMITTED: each statement sees what has been committed by then.
        """
        with self.guard():
            cursors = self.store.claim(sorted(self.queues), atomic, limit)
            if not cursors and self._is_time_to_look_at_all(atomic=atomic):
                cursors = self.store.claim(sorted(self.queues), atomic, limit, _STALE)
        if not cursors:
            return Claim([])
        start = self.store.start()
        # The bound of the batch before: it needs a transaction that has ended. This transaction has
        # begun after the number was read there.
        floor = self._mark.floor(start.snapshot) if self._mark else 0
        self._mark = Mark(start.xid, self._number)
        self._number = start.number
        opened = [cursor.at(cursor.window.opened(start.snapshot, floor)) for cursor in cursors]
        ordered = sorted(opened, key=lambda cursor: (cursor.queue, cursor.bucket))
        return Claim(ordered, start.has_parked, start.session)

    def _is_time_to_look_at_all(self, *, atomic: bool) -> bool:
        """Whether cursors without work are to be moved on, once in a while."""
        now = time.monotonic()
        if now - self._looked.get(atomic, 0.0) < _STALE / BUCKETS:
            return False
        self._looked[atomic] = now
        return True

    def _deliver(
        self, queue: str, cursors: Sequence[Cursor], claim: Claim, *, careful: bool
    ) -> int:
        batch = self._batch(queue, atomic=True)
        blocked = parking.blocked(self.store, cursors) if claim.has_parked else set()
        # Only what blocks is tried again.
        retried = retries.due(self.store, batch, cursors) if blocked else []
        for delivery in retried:
            (call,) = calls([delivery])
            error = self.caller.attempt(call, delivery.change.event)
            retries.note(self.store, delivery, error)
        if retried:
            blocked = parking.blocked(self.store, cursors)
        limit = max(conf.get().BATCH_SIZE // _CURSORS, 1)
        events, moved = page(self.store, cursors, limit)
        if events:
            desk = Desk(self.caller, queue, blocked)
            deliveries = batch.deliveries(desk.known(batch, batch.ordered(events)), moved)
            # What was tried again must not be rolled back with a batch that fails.
            desk.deliver(deliveries, careful=careful or bool(retried))
            parking.park(self.store, True, desk.parkings)
        if self.store.advance(moved) != claim.session and not careful:
            raise CallFailed("a receiver has changed the connection's settings")
        return len(events) + len(retried)

    # Under a lease.

    def _under_lease(self) -> int:
        """Receivers with effects outside the database: no transaction is open while they run."""
        with transaction.atomic(using=self.using):
            claim = self._claimed(atomic=False, limit=1)
            if not claim.cursors:
                return 0
            lease = Lease.take(self.store, claim.cursors[0])
            self.store.advance([lease.cursor])
        batch = self._batch(lease.cursor.queue, atomic=False)
        try:
            return LeasedDelivery(lease, batch, self.caller, self.stopping).deliver()
        except LeaseLost as lost:
            logger.warning("%s", lost)
            return 1
