"""Where calls are made one by one, and events parked behind those that failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bulksafe.dispatch.ordering import calls
from bulksafe.outbox.parking import BEHIND, EVERYBODY, BlockedRow, Failure, Parking

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bulksafe.declarations import Receiver
    from bulksafe.dispatch.batches import Batch
    from bulksafe.dispatch.caller import Caller
    from bulksafe.dispatch.calls import Call
    from bulksafe.dispatch.ordering import Delivery
    from bulksafe.outbox.events import Event


@dataclass
class Desk:
    """Deals with the events of one page of one queue.

    Attributes:
        caller: who makes the calls.
        queue: the queue's name.
        blocked: the rows whose events have to wait; kept up to date.
        parkings: what is to be parked, until it is taken.
    """

    caller: Caller
    queue: str
    blocked: set[BlockedRow]
    parkings: list[Parking] = field(default_factory=list)

    def deliver(self, deliveries: Sequence[Delivery], *, careful: bool) -> None:
        """Make all calls in the open transaction.

        Args:
            careful: each in a savepoint of its own; what fails is parked.

        Raises:
            CallFailed: one has failed, and the transaction with it; not when careful.
        """
        listed = calls(self.free(deliveries))
        for call in listed:
            if careful:
                self.one_by_one(call, self.caller.attempt)
            else:
                self.caller.make_or_fail(call)

    def one_by_one(
        self, call: Call, attempt: Callable[[Call, Event], BaseException | None]
    ) -> None:
        """Make a call, for each of its changes alone if it fails, and park what fails then."""
        if len(call.changes) > 1:
            if self.may(call) and attempt(call, call.changes[-1].event) is None:
                return
            for change in call.changes:
                change.forget_instances()
        for single in call.single_calls() if len(call.changes) > 1 else [call]:
            self.settle(single, attempt)

    def known(self, batch: Batch, events: Iterable[Event]) -> list[Event]:
        """The events whose table this code knows; the others are parked for everybody.

        So are later ones of the same rows, until code that knows the table has dealt with them.
        """
        found = []
        for event in events:
            row = self.queue, EVERYBODY, event.source, event.key
            if row in self.blocked or not batch.is_known(event):
                self.blocked.add(row)
                self.parkings.append(Parking(self.queue, EVERYBODY, event, BEHIND))
            elif unknown := batch.unknown_receiver(event):
                self.blocked.add((self.queue, unknown, event.source, event.key))
                self.parkings.append(Parking(self.queue, unknown, event, BEHIND))
            else:
                found.append(event)
        return found

    def free(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """The deliveries whose row is not blocked; the others are parked."""
        if not self.blocked:
            return list(deliveries)
        found = []
        for delivery in deliveries:
            receiver, event = delivery.receiver, delivery.change.event
            if self._row(receiver, event) in self.blocked:
                self._park(receiver, event, BEHIND)
            else:
                found.append(delivery)
        return found

    def may(self, call: Call) -> bool:
        """Whether no row of the call is blocked."""
        rows = {self._row(call.receiver, change.event) for change in call.changes}
        return rows.isdisjoint(self.blocked)

    def settle(self, call: Call, attempt: Callable[[Call, Event], BaseException | None]) -> None:
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
        """The parkings, which are left to whoever takes them."""
        found, self.parkings = self.parkings, []
        return found

    def _park(self, receiver: Receiver, event: Event, failure: Failure) -> None:
        self.parkings.append(Parking(self.queue, receiver.name, event, failure))

    def _row(self, receiver: Receiver, event: Event) -> BlockedRow:
        return self.queue, receiver.name, event.source, event.key
