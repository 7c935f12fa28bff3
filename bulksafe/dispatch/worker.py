"""Delivering events: what is claimed, what runs in one transaction, how far the cursors move."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

from django.db import DatabaseError, transaction

from bulksafe import conf
from bulksafe.declarations.options import DEFAULT_LANE, Lane
from bulksafe.declarations.receivers import lanes
from bulksafe.dispatch.activity import Activity
from bulksafe.dispatch.alone import Alone
from bulksafe.dispatch.batches import Batch
from bulksafe.dispatch.caller import Caller, CallFailed, CallTookTooLong
from bulksafe.dispatch.calls import Call
from bulksafe.dispatch.images import Table
from bulksafe.dispatch.pages import Page
from bulksafe.dispatch.routes import Routes
from bulksafe.dispatch.sources import known, sources
from bulksafe.outbox import parking
from bulksafe.outbox.cursors import BUCKETS, Cursor, Known
from bulksafe.outbox.paging import next_events
from bulksafe.outbox.store import Store
from bulksafe.outbox.windows import Mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bulksafe.dispatch.dead_letters import DeadLetter
    from bulksafe.outbox.events import Event
    from bulksafe.outbox.parking import BlockedRow

logger = logging.getLogger("bulksafe")

#: How many cursors a worker takes at once: under load the others are left to other workers.
_CURSORS = 4
#: After so many seconds a cursor without work is moved on all the same, so that it keeps no slot of
#: the outbox from being emptied.
_STALE = 10.0
#: Seconds for which a worker makes calls that run alone, before it looks for batches again.
_ALONE = 0.2
#: Seconds for which the calls of a receiver run alone after one was slow.
_SLOW = 60.0
#: Seconds for which a worker may be silent in a transaction beside the longest call.
_SILENCE = 30.0
#: Seconds between two looks at which tables there are.
_SOURCES = 5.0


class Journal(Protocol):
    """Where the start of a batch is stored while its cursors are locked."""

    def started(self, cursors: Sequence[Cursor]) -> None:
        """Their batches begin. Stored when this returns."""

    def suspect(self, queue: str, bucket: int, receiver: str, seq: int, error: str) -> None:
        """A batch has ended in this call."""


@dataclass(frozen=True)
class Claim:
    """Cursors that the present transaction has locked.

    Attributes:
        cursors: by queue and bucket, each with an open window.
        has_parked: whether any event is parked and others may have to wait behind it.
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
        journal: where the start of a batch is stored.
        activity: shows what it does.
        stopping: asked between two calls that run alone.
        guard: wraps the questions whether there is work, which a dead server leaves open.
    """

    using: str
    queues: Collection[str]
    journal: Journal
    activity: Activity = field(default_factory=Activity)
    stopping: Callable[[], bool] = lambda: False
    guard: Callable[[], AbstractContextManager[None]] = nullcontext
    caller: Caller = field(init=False)
    store: Store = field(init=False)
    _alone: Alone = field(init=False)
    _batches: dict[Lane, Batch] = field(default_factory=dict)
    _quick_batches: dict[str, Batch] = field(default_factory=dict)
    _mark: Mark | None = None
    _number: int = 0
    _looked: dict[bool, float] = field(default_factory=dict)
    _slow: dict[str, float] = field(default_factory=dict)
    _known: Known | None = None
    _known_since: float = 0.0

    def __post_init__(self) -> None:
        self.caller = Caller(self.using, self.activity)
        self.store = Store(self.using, idle=self.caller.longest() + _SILENCE)
        self._alone = Alone(self.store, self.caller, self._batch, self.known)

    def work(self) -> int:
        """Deal with one batch of each kind, and with some calls that run alone.

        Returns:
            how many events and calls were dealt with.
        """
        done = 0
        if self._has_receivers(atomic=True):
            done += self._make_batch()
        if self._has_receivers(atomic=False):
            done += self._set_lane_aside()
        return done + self._make_calls_alone()

    def has_work(self) -> bool:
        """Whether there is something to deal with, which other workers may be at."""
        return bool(self.store.ready(self.queues, self.known()))

    def known(self) -> Known:
        """What this code can call; which tables there are is asked once in a while."""
        now = time.monotonic()
        if self._known is None or now - self._known_since > _SOURCES:
            self._known = known(self.using, self.queues)
            self._known_since = now
            models = sources(self.using)
            for batch in (*self._batches.values(), *self._quick_batches.values()):
                batch.routes.models = models
        return self._known

    def _has_receivers(self, *, atomic: bool) -> bool:
        return any(
            queue in self.queues
            for queue, lane_atomic in (DEFAULT_LANE, *lanes())
            if lane_atomic == atomic
        )

    def _batch(self, queue: str, atomic: bool) -> Batch:
        """What knows the receivers of one lane: each lane has come to another place."""
        lane = queue, atomic
        if lane not in self._batches:
            routes = Routes(self.using, [queue], atomic)
            self._batches[lane] = Batch(routes, self.store.prefix())
        return self._batches[lane]

    def _quick_batch(self, queue: str) -> Batch:
        """The same for a transaction that is repeated carefully if anything fails."""
        if queue not in self._quick_batches:
            routes = Routes(self.using, [queue], atomic=True)
            batch = Batch(routes, self.store.prefix(), Table.read_or_fail)
            self._quick_batches[queue] = batch
        return self._quick_batches[queue]

    # Claiming.

    def _claimed(self, *, atomic: bool, limit: int) -> Claim:
        """Locked cursors, each with an open window.

        At READ COMMITTED: each statement sees what has been committed by then.
        """
        with self.guard():
            claim = partial(self.store.claim, self.known(), atomic=atomic, limit=limit)
            cursors = claim()
            if not cursors and self._is_time_to_look_at_all(atomic=atomic):
                cursors = claim(stale=_STALE)
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

    def _page(
        self, lane: Lane, batch: Batch, cursors: Sequence[Cursor], claim: Claim
    ) -> tuple[Page, Sequence[Event], list[Cursor]]:
        """The next events of cursors, and the cursors as they are when these are dealt with."""
        queue, atomic = lane
        limit = max(conf.get().BATCH_SIZE // _CURSORS, 1)
        events, moved = next_events(self.store, cursors, limit)
        blocked: set[BlockedRow] = set()
        if claim.has_parked and events:
            blocked = parking.blocked(self.store, queue, atomic=atomic, events=events)
        return Page(queue, atomic, batch, blocked), events, moved

    # In a batch.

    def _make_batch(self) -> int:
        """The receivers' effects and the progress of the cursors commit together.

        At first without savepoints, which cost two round trips and are seldom needed.
        """
        delivered = self.activity.delivered
        try:
            return self._deliver_all(careful=False)
        except CallTookTooLong as late:
            return self._note_late(late)
        except (CallFailed, DatabaseError) as failed:
            # A receiver may have left the connection so that the worker's own queries fail.
            if self.caller.is_lost:
                raise
            cause = failed.__cause__ or failed
            logger.info("batch failed (%s); retrying with a savepoint per call", cause)
        self.activity.delivered = delivered
        try:
            return self._deliver_all(careful=True)
        except CallTookTooLong as late:
            return self._note_late(late)

    def _deliver_all(self, *, careful: bool) -> int:
        """One batch of each queue, or, where a process has died, the calls of its batch set aside.

        Args:
            careful: the batch before has failed here, in this process.
        """
        done = 0
        dead: list[DeadLetter] = []
        with transaction.atomic(using=self.using), self.caller.shared():
            claim = self._claimed(atomic=True, limit=_CURSORS)
            unfinished = [] if careful else [c for c in claim.cursors if c.is_unfinished]
            for queue, cursors in _by_queue(unfinished or claim.cursors):
                if unfinished:
                    logger.warning(
                        "a batch of the queue %r was not finished: its calls run alone", queue
                    )
                    done += self._set_aside(queue, True, cursors, claim, dead)
                else:
                    done += self._deliver(queue, cursors, claim, dead, careful=careful)
        self._announce(dead)
        return done

    def _deliver(
        self,
        queue: str,
        cursors: Sequence[Cursor],
        claim: Claim,
        dead: list[DeadLetter],
        *,
        careful: bool,
    ) -> int:
        batch = self._batch(queue, True) if careful else self._quick_batch(queue)
        page, events, moved = self._page((queue, True), batch, cursors, claim)
        if events:
            listed = page.due_now(page.deliveries(events, moved), self._slow_receivers())
            if listed:
                self.journal.started(cursors)
            for call in listed:
                if careful:
                    page.make_carefully(call, self.caller)
                else:
                    self.caller.make_or_fail(call)
            dead += page.park(self.store)
        if self.store.advance(moved) != claim.session and not careful:
            raise CallFailed("a receiver has changed the connection's settings")
        return len(events)

    def _slow_receivers(self) -> set[str]:
        now = time.monotonic()
        self._slow = {name: end for name, end in self._slow.items() if end > now}
        return set(self._slow)

    def _note_late(self, late: CallTookTooLong) -> int:
        """The batch is unfinished: its calls are set aside when its cursors are claimed again."""
        receiver, event = late.call.receiver, late.call.changes[-1].event
        self._slow[receiver.name] = time.monotonic() + _SLOW
        if late.error is None:
            logger.info(
                "receiver %s is slow: its calls run alone for the next %g s", receiver.name, _SLOW
            )
        else:
            error = f"{type(late.error).__name__}: {late.error}"
            self.journal.suspect(receiver.queue, event.bucket, receiver.name, event.seq, error)
        return 1

    def _announce(self, dead: Iterable[DeadLetter]) -> None:
        for letter in dead:
            self.caller.follow(Call(letter.receiver, [letter.change]), letter.announce)

    # Alone.

    def _set_lane_aside(self) -> int:
        """The calls outside a transaction are all made alone."""
        done = 0
        with transaction.atomic(using=self.using):
            claim = self._claimed(atomic=False, limit=_CURSORS)
            for queue, cursors in _by_queue(claim.cursors):
                done += self._set_aside(queue, False, cursors, claim, [])
        return done

    def _set_aside(
        self,
        queue: str,
        atomic: bool,
        cursors: Sequence[Cursor],
        claim: Claim,
        dead: list[DeadLetter],
    ) -> int:
        batch = self._batch(queue, atomic)
        page, events, moved = self._page((queue, atomic), batch, cursors, claim)
        if events:
            suspects = {c.suspect.seq: c.suspect for c in cursors if c.suspect is not None}
            page.set_aside(self.store, page.deliveries(events, moved), suspects)
            dead += page.park(self.store)
        self.store.advance(moved)
        return len(events)

    def _make_calls_alone(self) -> int:
        made = 0
        for queue in sorted(self.queues):
            if not parking.has_due(self.store, queue):
                continue
            end = time.monotonic() + _ALONE
            while not self.stopping() and self._alone.make_next(queue):
                made += 1
                if time.monotonic() > end:
                    break
            self._alone.release()
        return made


def _by_queue(cursors: Sequence[Cursor]) -> Iterator[tuple[str, list[Cursor]]]:
    for queue, group in groupby(cursors, key=lambda cursor: cursor.queue):
        yield queue, list(group)
