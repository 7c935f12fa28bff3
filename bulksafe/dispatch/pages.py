"""Splits the events of one page of a queue into batch calls and parked calls."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from django.db import transaction

from bulksafe.dispatch.batch_calls import attempt
from bulksafe.dispatch.calls import Call
from bulksafe.dispatch.dead_letters import DeadLetter
from bulksafe.dispatch.ordering import Delivery, calls
from bulksafe.outbox import parking
from bulksafe.outbox.failures import BEHIND, UNTRIED, Failure
from bulksafe.outbox.parking import ANY_RECEIVER, EVERY_RECEIVER, BlockedRow, Parking

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from bulksafe.dispatch.batches import Batch
    from bulksafe.dispatch.caller import Caller
    from bulksafe.outbox.cursors import Cursor, Suspect
    from bulksafe.outbox.events import Event
    from bulksafe.outbox.store import Store

logger = logging.getLogger("bulksafe")


@dataclass
class Page:
    """Processes some events of one queue.

    Attributes:
        queue, atomic: the lane.
        batch: reads the events of the lane.
        blocked: the rows whose events must wait; updated here.
    """

    queue: str
    atomic: bool
    batch: Batch
    blocked: set[BlockedRow]
    _parkings: list[tuple[Parking, Delivery | None]] = field(default_factory=list)

    def deliveries(self, events: Iterable[Event], cursors: Sequence[Cursor]) -> list[Delivery]:
        """The events with their receivers.

        Events of tables without receivers in this code are parked. So are later events of the same
        rows, until code with receivers for the table has processed them.

        Args:
            cursors: their positions after these events.
        """
        known = []
        for event in self.batch.ordered(list(events)):
            row = EVERY_RECEIVER, event.source, event.key
            if row in self.blocked or not self.batch.is_known(event):
                self._leave(event, EVERY_RECEIVER)
            elif unknown := self.batch.unknown_receiver(event):
                self._leave(event, unknown)
            else:
                known.append(event)
        return self.batch.deliveries(known, cursors)

    def _leave(self, event: Event, receiver: str) -> None:
        """Park an event for listeners that have the receiver."""
        self.blocked.add((receiver, event.source, event.key))
        self._parkings.append((Parking(receiver, event, UNTRIED), None))

    # In a batch.

    def due_now(self, deliveries: Sequence[Delivery], slow: Collection[str]) -> list[Call]:
        """The calls that are made in the batch; the others are parked.

        Args:
            slow: names of receivers that run alone.
        """
        if not self.blocked and not slow:
            return calls(deliveries)
        found = []
        for delivery in deliveries:
            event = delivery.change.event
            if self._is_blocked(delivery):
                self._park(delivery, BEHIND)
            elif (
                delivery.receiver.name in slow
                or (ANY_RECEIVER, event.source, event.key) in self.blocked
            ):
                # The receivers after it keep their order.
                self._park(delivery, UNTRIED)
                self.blocked.add((ANY_RECEIVER, event.source, event.key))
            else:
                found.append(delivery)
        return calls(found)

    def make_carefully(self, call: Call, caller: Caller) -> None:
        """Make a call in a savepoint; if it fails, make one call for each change.

        Calls that fail again are parked.

        Raises:
            CallTookTooLong: the call must run alone.
        """
        singles = _singles(call)
        if len(singles) > 1:
            is_free = not any(map(self._is_blocked, singles))
            if is_free and attempt(caller, call) is None:
                return
            for change in call.changes:
                change.forget_instances()
        for single in singles:
            if self._is_blocked(single):
                self._park(single, BEHIND)
            elif error := attempt(caller, Call(call.receiver, [single.change], call.error)):
                self._park(single, Failure.of(error, 1, call.receiver))

    # Alone.

    def set_aside(
        self, store: Store, deliveries: Sequence[Delivery], suspects: Mapping[int, Suspect]
    ) -> None:
        """Park all calls, so that each is made alone.

        Args:
            suspects: calls whose process died, by event number.
        """
        listed = [(call, _singles(call)) for call in calls(deliveries)]
        most = sum(len(singles) > 1 for _, singles in listed)
        numbers = iter(parking.next_calls(store, most))
        for _, singles in listed:
            # Checked now: an earlier call that cannot be made may block one of its rows, and would
            # keep the others waiting for ever.
            if len(singles) > 1 and not any(map(self._is_blocked, singles)):
                number = next(numbers)
                for single in singles:
                    self._park(single, UNTRIED, number, leads=single is singles[0])
            else:
                for single in singles:
                    self._park(single, self._untried(single, suspects))

    def _untried(self, delivery: Delivery, suspects: Mapping[int, Suspect]) -> Failure:
        if self._is_blocked(delivery):
            return BEHIND
        receiver, change = delivery.receiver, delivery.change
        suspect = suspects.get(change.event.seq)
        if suspect is None or suspect.receiver != receiver.name:
            return UNTRIED
        logger.warning(
            "receiver %s failed (attempt 1 of %d) for %s %s, event %d: %s",
            receiver.name,
            receiver.max_attempts,
            change.model._meta.label,
            change.event.key,
            change.event.seq,
            suspect.error,
        )
        return Failure.described(suspect.error, 1, receiver)

    # Parking.

    def park(self, store: Store) -> list[DeadLetter]:
        """Store the parked calls.

        Returns:
            the calls that were given up.
        """
        parkings = [parked for parked, _ in self._parkings]
        ids = parking.park(store, self.queue, atomic=self.atomic, parkings=parkings)
        behind = [i for i, parked in zip(ids, parkings, strict=True) if parked.failure is BEHIND]
        if behind:
            # The calls they wait for may be done when this commits.
            transaction.on_commit(partial(parking.wake_free, store, behind), using=store.using)
        return [
            DeadLetter(number, delivery.receiver, delivery.change, parked.failure)
            for number, (parked, delivery) in zip(ids, self._parkings, strict=True)
            if delivery is not None and parked.failure.is_dead
        ]

    def _park(
        self, delivery: Delivery, failure: Failure, call: int | None = None, *, leads: bool = True
    ) -> None:
        receiver, event = delivery.receiver, delivery.change.event
        self._parkings.append((Parking(receiver.name, event, failure, call, leads), delivery))
        if failure.blocks:
            self.blocked.add((receiver.name, event.source, event.key))

    def _is_blocked(self, delivery: Delivery) -> bool:
        event = delivery.change.event
        return (delivery.receiver.name, event.source, event.key) in self.blocked


def _singles(call: Call) -> list[Delivery]:
    return [Delivery(call.receiver, change, call.error) for change in call.changes]
