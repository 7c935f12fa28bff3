"""Transaction numbers do not survive a dump and a restore into another cluster.

Cursors and events hold numbers of the old cluster. In the new one these lie in the future, so that
events would wait for years, and what is written now would look as if it had been dealt with.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.db import transaction

if TYPE_CHECKING:
    from bulksafe.outbox.store import Store

logger = logging.getLogger("bulksafe")


def is_ahead(store: Store) -> bool:
    """Whether the outbox names transactions that the cluster has not come to."""
    return bool(store.rows("is_ahead")[0][0])


def rebase(store: Store) -> bool:
    """Number what waits in the outbox anew, where that is needed.

    Nothing that waits is lost, and nothing that was dealt with comes again; each row's events keep
    their order. Writers and listeners wait meanwhile.

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
