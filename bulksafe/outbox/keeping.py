"""Keeps the outbox small: slots rotate, and are emptied once all queues have read them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.db import DatabaseError, connections, transaction
from psycopg.errors import LockNotAvailable

from bulksafe.outbox import rebasing

if TYPE_CHECKING:
    from bulksafe.outbox.store import Store

logger = logging.getLogger("bulksafe")

#: A slot larger than this is replaced by the next one.
SLOT_BYTES = 16 * 1024 * 1024
#: So is a slot whose first event is older than this: images of rows are not kept for longer than
#: needed.
SLOT_AGE = "1 hour"

_SLOTS = 3


def tidy(store: Store, *, slot_bytes: int = SLOT_BYTES) -> list[int]:
    """Switch to the next slot if it is time, and empty the slots that all queues have read.

    Waits for no lock: slots that cannot be locked now are left for the next time.

    Returns:
        the slots that were emptied.
    """
    with transaction.atomic(using=store.using):
        if not store.rows("rotation_lock") or rebasing.is_ahead(store):
            # A restored outbox is renumbered first: its new events look delivered until then.
            return []
        sizes = {}
        current = 0
        for slot, size, is_current in store.rows("slots"):
            sizes[slot] = size
            current = slot if is_current else current
        emptied = [s for s in sizes if s != current and sizes[s] and _emptied(store, s)]
        following = (current + 1) % _SLOTS
        is_free = not sizes[following] or following in emptied
        if sizes[current] and is_free and _is_full(store, current, sizes[current], slot_bytes):
            store.rows("rotate")
        return emptied


def read_slots(store: Store) -> list[int]:
    """The non-empty slots that every cursor has passed, by committed positions."""
    return [
        slot
        for slot, size, is_current in store.rows("slots")
        if size and not is_current and store.rows("is_read", slot=_table(slot))[0][0]
    ]


def _is_full(store: Store, slot: int, size: int, slot_bytes: int) -> bool:
    if size > slot_bytes:
        return True
    return bool(store.rows("is_old", {"age": SLOT_AGE}, slot=_table(slot))[0][0])


def _emptied(store: Store, slot: int) -> bool:
    """TRUNCATE the slot if every cursor has passed all its events."""
    table = _table(slot)
    if not store.rows("is_read", slot=table)[0][0]:
        return False
    try:
        with transaction.atomic(using=store.using), connections[store.using].cursor() as cursor:
            # There are no new writers, and every earlier writer has committed or blocks this lock.
            cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT")
            if not store.rows("is_read", slot=table)[0][0]:
                return False
            cursor.execute(f"TRUNCATE {table}")
    except DatabaseError as error:
        if isinstance(error.__cause__, LockNotAvailable):
            return False
        raise
    logger.info("slot %d of the outbox was emptied", slot, extra={"slot": slot})
    return True


def _table(slot: int) -> str:
    return f"bulksafe_outbox_{slot}"
