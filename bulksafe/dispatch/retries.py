"""Parked events that are tried again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bulksafe.declarations import receivers
from bulksafe.outbox import parking
from bulksafe.outbox.parking import EVERYBODY, Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulksafe.dispatch.batches import Batch
    from bulksafe.dispatch.ordering import Delivery
    from bulksafe.outbox.events import Event
    from bulksafe.outbox.store import Cursor, Store

logger = logging.getLogger("bulksafe")

#: How many are tried at once.
_LIMIT = 100


def due(store: Store, batch: Batch, cursors: Sequence[Cursor]) -> list[Delivery]:
    """The parked events whose time has come, with their receivers."""
    found = []
    for event, name in parking.due(store, cursors, _LIMIT):
        receiver = receivers.by_name(name)
        if event.source not in batch.routes.models:
            _orphan(store, event, "This code has no receivers for the event's table.")
        elif name == EVERYBODY:
            parking.unfold(store, event, batch.wanted(event))
        elif receiver is None or batch.routes.models[event.source] not in receiver.models():
            _orphan(
                store, event, f"There is no receiver {name!r} in this code for the event's table."
            )
        else:
            found.append((event, receiver))
    return batch.parked(found)


def _orphan(store: Store, event: Event, reason: str) -> None:
    logger.warning("parked event %s is orphaned: %s", event.parked, reason)
    parking.orphan(store, event, reason)


def note(store: Store, delivery: Delivery, error: BaseException | None) -> None:
    """Store what became of the attempt."""
    event, receiver = delivery.change.event, delivery.receiver
    if error is None:
        parking.unpark(store, [event])
        return
    failure = Failure.of(error, event.attempts + 1, receiver.max_attempts, receiver.on_dead)
    parking.failed_again(store, event, failure)
