"""Delivery to receivers with effects outside the database: no transaction is open meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulksafe.dispatch import retries
from bulksafe.dispatch.desk import Desk
from bulksafe.dispatch.ordering import calls
from bulksafe.outbox import parking
from bulksafe.outbox.paging import page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulksafe.dispatch.batches import Batch
    from bulksafe.dispatch.caller import Caller
    from bulksafe.dispatch.calls import Call
    from bulksafe.dispatch.lease import Lease
    from bulksafe.dispatch.ordering import Delivery
    from bulksafe.outbox.events import Event
    from bulksafe.outbox.store import Cursor

#: How many events are taken at once.
_EVENTS = 50


@dataclass(frozen=True)
class LeasedDelivery:
    """Deals with the next events of the cursor that ``lease`` is for.

    Attributes:
        lease: held; released at the end.
        batch: knows the receivers of the cursor's queue.
        caller: who makes the calls.
        stopping: asked before each call whether to leave the rest to others.
    """

    lease: Lease
    batch: Batch
    caller: Caller
    stopping: Callable[[], bool]

    def deliver(self) -> int:
        """Make the calls that are due, noting the progress after each.

        Returns:
            how many events were dealt with, or begun with.

        Raises:
            LeaseLost: another worker goes on.
        """
        store, cursor = self.lease.store, self.lease.cursor
        retried = retries.due(store, self.batch, [cursor])
        if not self._try_again(retried):
            self.lease.release()
            return 1
        events, (moved,) = page(store, [cursor], _EVENTS)
        desk = Desk(self.caller, cursor.queue, parking.blocked(store, [cursor]))
        if self._make(desk, self._calls(desk, events, moved), events):
            with self.lease.held():
                parking.park(store, False, desk.taken())
                store.advance([moved])
        self.lease.release()
        return len(events) + len(retried)

    def _try_again(self, retried: Sequence[Delivery]) -> bool:
        """Whether all were tried."""
        for delivery in retried:
            if self.stopping():
                return False
            self.lease.renew()
            (call,) = calls([delivery])
            error = self.caller.attempt_outside(call, delivery.change.event)
            with self.lease.held():
                retries.note(self.lease.store, delivery, error)
        return True

    def _calls(self, desk: Desk, events: Sequence[Event], moved: Cursor) -> list[Call]:
        known = desk.known(self.batch, self.batch.ordered(events))
        return calls(desk.free(self.batch.deliveries(known, [moved])))

    def _make(self, desk: Desk, listed: Sequence[Call], events: Sequence[Event]) -> bool:
        """Make the calls. Whether all were made."""
        left = [
            {seq for change in call.changes for seq in _numbers(change.event)} for call in listed
        ]
        for number, call in enumerate(listed):
            if self.stopping():
                return False
            desk.one_by_one(call, self._attempt)
            undone = {seq for numbers in left[number + 1 :] for seq in numbers}
            done = min([seq - 1 for seq in undone], default=None)
            if done is not None and events:
                self.lease.move(desk.taken(), done)
        return True

    def _attempt(self, call: Call, event: Event) -> BaseException | None:
        self.lease.renew()
        return self.caller.attempt_outside(call, event)


def _numbers(event: Event) -> tuple[int, int]:
    return event.before.seq, event.seq
