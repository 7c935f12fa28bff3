"""Discards all waiting events, before the tables are dropped or in a copy of a database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import transaction

if TYPE_CHECKING:
    from bulksafe.outbox.store import Store


@dataclass(frozen=True)
class Undelivered:
    """The waiting events of an outbox.

    Attributes:
        events: committed events that at least one queue has not delivered.
        parked: events that failed and will be retried, or wait behind a failed one.
        dead: dead letters.
    """

    events: int
    parked: int
    dead: int

    def __bool__(self) -> bool:
        return bool(self.events or self.parked or self.dead)

    def __str__(self) -> str:
        return (
            f"undelivered events: {self.events:,}, parked events: {self.parked:,}, "
            f"dead letters: {self.dead:,}"
        )


def undelivered(store: Store) -> Undelivered:
    """The events that wait now."""
    return Undelivered(*store.rows("undelivered")[0])


def discard(store: Store) -> Undelivered:
    """Delete all events for good.

    Returns:
        the discarded events.
    """
    with transaction.atomic(using=store.using):
        store.rows("lock_to_discard")
        found = undelivered(store)
        store.rows("discard_undelivered")
    return found
