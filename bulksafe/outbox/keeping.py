"""Keeping the outbox small: its slots take turns, and are emptied when all have read them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.db import DatabaseError, connections, transaction
from psycopg.errors import LockNotAvailable

if TYPE_CHECKING:
    from bulksafe.outbox.store import Store

logger = logging.getLogger("bulksafe")

#: A slot that is larger than this gives way to the next one.
SLOT_BYTES = 16 * 1024 * 1024
#: So does one whose first event is older: images of rows are not kept for longer than needed.
SLOT_AGE = "1 hour"

_SLOTS = 3


def tidy(store: Store, *, slot_bytes: int = SLOT_BYTES) -> list[int]:
    """Let the next slot take over where it is time, and empty those that are read.

    Nothing is waited for: what cannot be locked now is left for the next time.

    Returns:
        the slots that were emptied.
    """
    with transaction.atomic(using=store.using):
        if not store.rows("rotation_lock"):
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
    """The slots that every cursor has passed, as far as is committed, and that are not empty."""
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
    """TRUNCATE the slot if every cursor has passed all that it holds."""
    table = _table(slot)
    if not store.rows("is_read", slot=table)[0][0]:
        return False
    try:
        with transaction.atomic(using=store.using), connections[store.using].cursor() as cursor:
            # Nobody writes to it any more, and who did has committed or waits here.
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
