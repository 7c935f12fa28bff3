"""Parked calls, made one by one; each delays only its own row.

Before the call, a separate transaction counts the attempt and takes the lease, so a call that kills
its process is counted too.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from django.db import transaction

from bulksafe import conf
from bulksafe.declarations import receivers
from bulksafe.dispatch.caller import RAISED
from bulksafe.dispatch.calls import Call
from bulksafe.dispatch.dead_letters import DeadLetter
from bulksafe.dispatch.recursion import Write, is_called
from bulksafe.outbox import parking
from bulksafe.outbox.failures import Failure
from bulksafe.outbox.parking import EVERY_RECEIVER, Taken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulksafe.dispatch.batches import Batch
    from bulksafe.dispatch.caller import Caller
    from bulksafe.outbox.known import Known
    from bulksafe.outbox.store import Store

logger = logging.getLogger("bulksafe")

#: The maximum number of calls to take at once, and the maximum of their expected seconds.
_MOST, _SHARE = 32, 0.03
#: Seconds after which calls that were taken but not started are released.
LEFT = 1.0


class LeaseLost(Exception):  # noqa: N818
    """The call was discarded, or another process has taken it over after the lease."""


class Alone:
    """Makes the parked calls of some queues.

    Args:
        store: of the connection that calls are made on.
        caller: makes them.
        batch: returns the ``Batch`` of a lane.
        known: the receivers and tables of this code.
    """

    def __init__(
        self,
        store: Store,
        caller: Caller,
        batch: Callable[[str, bool], Batch],
        known: Callable[[], Known],
    ) -> None:
        self._store = store
        self._caller = caller
        self._batch = batch
        self._known = known
        #: Calls that were taken but not started.
        self._taken: deque[tuple[Taken, Call | None]] = deque()
        #: Recent duration of a call in seconds.
        self._seconds = _SHARE

    def make_next(self, queue: str) -> bool:
        """Process the next parked call of a queue. False if there is none."""
        if not self._taken:
            self._take(queue)
        if not self._taken:
            return False
        taken, call = self._taken.popleft()
        began = time.monotonic()
        settings = conf.get()
        begun = parking.begin(self._store, taken, settings.LEASE)
        if begun is None:
            return True  # it was released while an earlier call was slow
        self._caller.activity.take(begun)
        try:
            if call is None:
                self._unfold(begun, self._batch(queue, begun.atomic))
            else:
                self._deal_with(begun, call)
        except LeaseLost:
            logger.warning(
                "the result of the call %d of %s was not stored: the call was discarded while it "
                "ran, or another listener repeats it with the same event_id, because this one was "
                'silent for longer than BULKSAFE["LEASE"], %g s',
                taken.id,
                taken.receiver,
                settings.LEASE,
            )
        self._caller.activity.leave()
        self._seconds = (self._seconds + time.monotonic() - began) / 2
        return True

    def release(self) -> None:
        """Release calls that were taken but not started."""
        if self._taken:
            parking.release(self._store, [taken for taken, _ in self._taken])
            self._taken.clear()

    def _take(self, queue: str) -> None:
        """Take as many calls as can be made soon.

        Their images are read together.
        """
        limit = max(1, min(_MOST, int(_SHARE / max(self._seconds, 0.0001))))
        taken = parking.take(self._store, queue, self._known(), limit, LEFT)
        for atomic in (True, False):
            listed = [one for one in taken if one.atomic == atomic]
            if listed:
                self._taken.extend(self._with_calls(listed, self._batch(queue, atomic)))

    def _with_calls(self, listed: Sequence[Taken], batch: Batch) -> list[tuple[Taken, Call | None]]:
        """The taken events with their calls; None for an event that is parked for all receivers."""
        pairs = []
        for taken in listed:
            receiver = receivers.by_name(taken.receiver)
            pairs += [(event, receiver) for event in taken.events if receiver is not None]
        deliveries = {d.change.event.parked: d for d in batch.parked(pairs)}
        found: list[tuple[Taken, Call | None]] = []
        for taken in listed:
            if taken.receiver == EVERY_RECEIVER:
                found.append((taken, None))
                continue
            members = [deliveries[number] for number in taken.ids]
            changes = [delivery.change for delivery in members]
            found.append((taken, Call(members[0].receiver, changes, members[0].error)))
        return found

    def _unfold(self, taken: Taken, batch: Batch) -> None:
        """Split an event that was parked by code without receivers for its table."""
        (event,) = taken.events
        unknown = batch.unknown_receiver(event)
        deliveries = batch.parked([(event, receiver) for receiver in batch.wanted(event)])
        called = [d.receiver.name for d in deliveries if is_called(d.receiver, Write.of(d.change))]
        parking.unfold(self._store, taken, [unknown] if unknown else called)

    def _deal_with(self, taken: Taken, call: Call) -> None:
        # First: giving up the head of a group would leave its other events without a head.
        if len(taken.events) > 1 and taken.attempts > 1:
            parking.split(self._store, taken)
        elif taken.attempts > call.receiver.max_attempts:
            self._give_up(taken, call)
        else:
            self._attempt(taken, call)

    def _attempt(self, taken: Taken, call: Call) -> None:
        make = self._in_transaction if call.receiver.atomic else self._outside
        try:
            make(taken, call)
        except RAISED as error:
            if isinstance(error, LeaseLost):
                raise
            self._caller.noted(call, error, taken.attempts)
            self._fail(taken, call, error)

    def _in_transaction(self, taken: Taken, call: Call) -> None:
        """The receiver's effects and the end of the call commit together."""
        with transaction.atomic(using=self._store.using), self._caller.shared():
            before = parking.hold(self._store, taken)
            if before is None:
                raise LeaseLost
            limit = self._caller.timeout(call.receiver)
            self._caller.make(call, limit)
            # Before anything else: under another search_path the rest would fail.
            self._caller.check_session(call, before, self._store.session())
            self._caller.check_constraints(call, limit)
            parking.done(self._store, taken)

    def _outside(self, taken: Taken, call: Call) -> None:
        self._caller.make_outside(call)
        if not parking.done(self._store, taken):
            raise LeaseLost

    def _fail(self, taken: Taken, call: Call, error: BaseException) -> None:
        if len(taken.events) > 1:
            parking.split(self._store, taken)
        else:
            self._note(taken, call, Failure.of(error, taken.attempts, call.receiver))

    def _give_up(self, taken: Taken, call: Call) -> None:
        """The last attempt ended its process, and the result could not be stored."""
        error = taken.error or "the process ended during the call"
        self._note(taken, call, Failure.described(error, taken.attempts - 1, call.receiver))

    def _note(self, taken: Taken, call: Call, failure: Failure) -> None:
        if not parking.failed(self._store, taken, failure):
            raise LeaseLost
        if failure.is_dead:
            letter = DeadLetter(taken.id, call.receiver, call.changes[-1], failure)
            self._caller.follow(call, letter.announce)
