"""Calls that are made one by one, each of which holds its own row and nothing else.

An attempt is counted and its lease taken before the call, in a transaction of its own, so that a
call which ends its process is counted, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import transaction

from bulksafe import conf
from bulksafe.declarations import receivers
from bulksafe.dispatch.batches import is_called
from bulksafe.dispatch.caller import RAISED
from bulksafe.dispatch.calls import Call
from bulksafe.dispatch.dead_letters import DeadLetter
from bulksafe.exceptions import CallTimedOut
from bulksafe.outbox import parking
from bulksafe.outbox.parking import EVERY_RECEIVER, Failure, Taken

if TYPE_CHECKING:
    from bulksafe.dispatch.batches import Batch
    from bulksafe.dispatch.caller import Caller
    from bulksafe.outbox.store import Known, Store

logger = logging.getLogger("bulksafe")


class LeaseLost(Exception):  # noqa: N818
    """Another process has taken the call over: this one was silent for longer than the lease."""


@dataclass(frozen=True)
class Alone:
    """Makes the parked calls of a queue.

    Attributes:
        store: of the connection that calls are made on.
        caller: makes them.
        batch: what knows the receivers of a lane.
        known: what this code can call.
    """

    store: Store
    caller: Caller
    batch: Callable[[str, bool], Batch]
    known: Callable[[], Known]

    def make_next(self, queue: str) -> bool:
        """Deal with the next parked call. False if there is none."""
        taken = parking.take(self.store, queue, self.known(), conf.get().LEASE)
        if taken is None:
            return False
        self.caller.activity.take(taken)
        try:
            self._deal_with(taken, queue)
        except LeaseLost:
            logger.warning(
                "another listener has taken over the call %d of %s, with the same event_id: "
                'this one was silent for longer than BULKSAFE["LEASE"], %g s',
                taken.id,
                taken.receiver,
                conf.get().LEASE,
            )
        self.caller.activity.leave()
        return True

    def _deal_with(self, taken: Taken, queue: str) -> None:
        if taken.receiver == EVERY_RECEIVER:
            self._unfold(taken, self.batch(queue, taken.atomic))
            return
        receiver = receivers.by_name(taken.receiver)
        if receiver is None:
            raise LookupError(f"no receiver {taken.receiver!r}")  # it would not have been taken
        batch = self.batch(queue, receiver.atomic)
        deliveries = batch.parked([(event, receiver) for event in taken.events])
        call = Call(receiver, [d.change for d in deliveries], deliveries[0].error)
        if taken.attempts > receiver.max_attempts:
            self._give_up(taken, call)
        elif len(taken.events) > 1 and taken.attempts > 1:
            parking.split(self.store, taken)
        else:
            self._attempt(taken, call)

    def _unfold(self, taken: Taken, batch: Batch) -> None:
        """The code that parked the event did not know its table; this one does."""
        (event,) = taken.events
        unknown = batch.unknown_receiver(event)
        deliveries = batch.parked([(event, receiver) for receiver in batch.wanted(event)])
        called = [d.receiver.name for d in deliveries if is_called(d.receiver, d.change)]
        parking.unfold(self.store, taken, [unknown] if unknown else called)

    def _attempt(self, taken: Taken, call: Call) -> None:
        make = self._in_transaction if call.receiver.atomic else self._outside
        try:
            make(taken, call)
        except (*RAISED, CallTimedOut) as error:
            if isinstance(error, LeaseLost):
                raise
            self.caller.noted(call, error, taken.attempts)
            self._fail(taken, call, error)

    def _in_transaction(self, taken: Taken, call: Call) -> None:
        """The receiver's effects and the end of the call commit together."""
        with transaction.atomic(using=self.store.using), self.caller.shared():
            before = parking.hold(self.store, taken)
            if before is None:
                raise LeaseLost
            self.caller.make(call, self.caller.timeout(call.receiver))
            # Before anything else: under another search_path the rest would fail.
            self.caller.check_session(call, before, self.store.session())
            parking.done(self.store, taken)

    def _outside(self, taken: Taken, call: Call) -> None:
        self.caller.make_outside(call)
        if not parking.done(self.store, taken):
            raise LeaseLost

    def _fail(self, taken: Taken, call: Call, error: BaseException) -> None:
        if len(taken.events) > 1:
            parking.split(self.store, taken)
            return
        failure = Failure.of(error, taken.attempts, call.receiver)
        self._store(taken, call, failure)

    def _give_up(self, taken: Taken, call: Call) -> None:
        """The processes of all attempts have ended, the last one so that nobody could note it."""
        error = taken.error or "the process ended during the call"
        self._store(taken, call, Failure.described(error, taken.attempts - 1, call.receiver))

    def _store(self, taken: Taken, call: Call, failure: Failure) -> None:
        if not parking.failed(self.store, taken, failure):
            raise LeaseLost
        if failure.is_dead:
            DeadLetter(taken.id, call.receiver, call.changes[-1], failure).announce()
