"""Renumbers transactions after a restore: their numbers do not survive a dump into a new cluster.

Cursors and events hold numbers of the old cluster. In the new cluster these are in the future, so
events would wait for years, and new events would look delivered.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.db import transaction

if TYPE_CHECKING:
    from bulksafe.outbox.store import Store

logger = logging.getLogger("bulksafe")


def is_ahead(store: Store) -> bool:
    """Whether the outbox contains transaction numbers from the future."""
    return bool(store.rows("is_ahead")[0][0])


def rebase(store: Store) -> bool:
    """Renumber the waiting events, if needed.

    No waiting event is lost, and none is delivered again; each row's events keep their order.
    Writers and listeners wait meanwhile.

    Returns:
        whether it was needed.
    """
    with transaction.atomic(using=store.using):
        if not is_ahead(store):
            return False
        store.rows("lock_all")
        if not is_ahead(store):
            return False
        xid = store.rows("own_xid")[0][0]
        store.rows("forget_read")
        store.rows("rebase_cursors", {"xid": xid})
        store.rows("rebase_events", {"xid": xid})
    logger.warning("the outbox was restored from another cluster: its transactions are renumbered")
    return True
