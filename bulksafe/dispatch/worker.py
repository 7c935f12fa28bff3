"""Delivers events: one transaction per batch, which also advances the cursors."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

from django.db import transaction

from bulksafe import conf
from bulksafe.declarations.options import Lane
from bulksafe.dispatch.activity import Activity
from bulksafe.dispatch.alone import Alone
from bulksafe.dispatch.batch_calls import (
    BatchFailed,
    CallFailed,
    CallTookTooLong,
    check_constraints,
    make_or_fail,
)
from bulksafe.dispatch.batches import Batch
from bulksafe.dispatch.caller import Caller
from bulksafe.dispatch.calls import Call
from bulksafe.dispatch.claiming import Claim, Claims
from bulksafe.dispatch.lane_batches import LaneBatches
from bulksafe.dispatch.pages import Page
from bulksafe.outbox import parking
from bulksafe.outbox.cursors import Cursor
from bulksafe.outbox.paging import next_events
from bulksafe.outbox.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bulksafe.dispatch.dead_letters import DeadLetter
    from bulksafe.outbox.events import Event
    from bulksafe.outbox.parking import BlockedRow

logger = logging.getLogger("bulksafe")

#: The maximum number of cursors that a worker claims at once; it leaves the rest to other workers.
_CURSORS = 4
#: Seconds that a worker spends on calls that run alone before it checks for batches again.
_ALONE = 0.2
#: Seconds during which a receiver's calls run alone after a slow one.
_SLOW = 60.0
#: Seconds that a worker may be silent in a transaction, besides the longest call.
_SILENCE = 30.0


class Journal(Protocol):
    """Stores the start of a batch while its cursors are locked."""

    def starting(self, cursors: Sequence[Cursor]) -> AbstractContextManager[None]:
        """Record that batches of these cursors begin. Stored when the block ends."""

    def suspect(self, queue: str, bucket: int, receiver: str, seq: int, error: str) -> None:
        """Record that a batch was aborted in this call."""


@dataclass
class Worker:
    """Delivers the events of some queues on the connection ``using``.

    Attributes:
        using: the database.
        queues: the names of the queues.
        journal: stores the start of a batch.
        activity: publishes its current call.
        stopping: checked between two calls that run alone.
        guard: wraps the queries for work, which would hang on a dead server.
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
    _lanes: LaneBatches = field(init=False)
    _claims: Claims = field(init=False)
    _slow: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.caller = Caller(self.using, self.activity)
        self.store = Store(self.using, idle=self.caller.longest() + _SILENCE)
        self._lanes = LaneBatches(self.store, self.queues)
        self._alone = Alone(self.store, self.caller, self._lanes.batch, self._lanes.known)
        self._claims = Claims(self.store, self._lanes.known, self.guard)

    def work(self) -> int:
        """Process one batch of each kind, and some calls that run alone.

        Returns:
            the number of events and calls that were processed.
        """
        done = 0
        if self._lanes.has_receivers(atomic=True):
            done += self._make_batch()
        if self._lanes.has_receivers(atomic=False):
            done += self._set_lane_aside()
        return done + self._make_calls_alone()

    def has_work(self) -> bool:
        """Whether there is work, though other workers may already be processing it."""
        return bool(self.store.ready(self.queues, self._lanes.known()))

    # In a batch.

    def _page(
        self, lane: Lane, batch: Batch, cursors: Sequence[Cursor], claim: Claim
    ) -> tuple[Page, Sequence[Event], list[Cursor]]:
        """The next events of cursors, and the cursor positions after these events."""
        queue, atomic = lane
        limit = max(conf.get().BATCH_SIZE // _CURSORS, 1)
        events, moved = next_events(self.store, cursors, limit)
        blocked: set[BlockedRow] = set()
        if claim.has_parked and events:
            blocked = parking.blocked(self.store, queue, atomic=atomic, events=events)
        return Page(queue, atomic, batch, blocked), events, moved

    def _make_batch(self) -> int:
        """The receivers' effects and the progress of the cursors commit together.

        The first attempt uses no savepoints, which cost two round trips and are seldom needed.
        """
        try:
            return self._deliver_or_note(careful=False)
        except Exception as failed:
            # A receiver may have left the connection in a state in which the worker's own queries
            # fail, or rows behind whose receivers in the transaction run, and fail, in them.
            if self.caller.is_lost:
                raise
            cause = failed.__cause__ or failed
            logger.info("batch failed (%s); retrying with a savepoint per call", cause)
        return self._deliver_or_note(careful=True)

    def _deliver_or_note(self, *, careful: bool) -> int:
        """Deliver one batch, or note why its calls have to run alone."""
        try:
            return self._deliver_all(careful=careful)
        except CallTookTooLong as late:
            return self._note_late(late)
        except BatchFailed as failed:
            return self._note_failed_batch(failed)

    def _deliver_all(self, *, careful: bool) -> int:
        """Deliver one batch of each queue; if a process died in a batch, set its calls aside.

        Args:
            careful: the previous attempt of the batch failed in this process.
        """
        done = 0
        dead: list[DeadLetter] = []
        with transaction.atomic(using=self.using), self.caller.shared():
            claim = self._claims.claimed(atomic=True, limit=_CURSORS)
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
        batch = self._lanes.batch(queue, True) if careful else self._lanes.quick_batch(queue)
        page, events, moved = self._page((queue, True), batch, cursors, claim)
        listed: Sequence[Call] = ()
        if events:
            with self.journal.starting(cursors):
                deliveries = page.deliveries(events, moved)
            listed = page.due_now(deliveries, self._slow_receivers())
            for call in listed:
                if careful:
                    page.make_carefully(call, self.caller)
                else:
                    make_or_fail(self.caller, call)
            dead += page.park(self.store)
        if self.store.advance(moved) != claim.session and not careful:
            raise CallFailed("a receiver has changed the connection's settings")
        if listed:
            check_constraints(self.caller)
        return len(events)

    def _slow_receivers(self) -> set[str]:
        now = time.monotonic()
        self._slow = {name: end for name, end in self._slow.items() if end > now}
        return set(self._slow)

    def _note_late(self, late: CallTookTooLong) -> int:
        """Record the call as suspect: the batch's calls are set aside when claimed again."""
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

    def _note_failed_batch(self, failed: BatchFailed) -> int:
        """The batch is unfinished: its calls are set aside when claimed again."""
        logger.info("the deferred constraints of a batch failed (%s): its calls run alone", failed)
        return 1

    def _announce(self, dead: Iterable[DeadLetter]) -> None:
        for letter in dead:
            self.caller.follow(Call(letter.receiver, [letter.change]), letter.announce)

    # Alone.

    def _set_lane_aside(self) -> int:
        """Park all calls of a non-atomic lane: they are made one by one."""
        done = 0
        with transaction.atomic(using=self.using):
            claim = self._claims.claimed(atomic=False, limit=_CURSORS)
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
        batch = self._lanes.batch(queue, atomic)
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
