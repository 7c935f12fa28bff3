"""A worker's state of its lanes: receivers, tables, and the readers of their events."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bulksafe.declarations.options import DEFAULT_LANE, Lane
from bulksafe.declarations.receivers import lanes
from bulksafe.dispatch.batches import Batch
from bulksafe.dispatch.images import Table
from bulksafe.dispatch.routes import Routes
from bulksafe.dispatch.sources import known, sources

if TYPE_CHECKING:
    from collections.abc import Collection

    from bulksafe.outbox.known import Known
    from bulksafe.outbox.store import Store

#: Seconds between two queries for the existing tables.
_SOURCES = 5.0


class LaneBatches:
    """The lanes of some queues.

    Args:
        store: of the connection that their events are read on.
        queues: the names of the queues.
    """

    def __init__(self, store: Store, queues: Collection[str]) -> None:
        self._store = store
        self._using = store.using
        self._queues = queues
        self._batches: dict[Lane, Batch] = {}
        self._quick_batches: dict[str, Batch] = {}
        self._known: Known | None = None
        self._known_since = 0.0

    def known(self) -> Known:
        """The receivers and tables of this code; refreshes the tables from time to time."""
        now = time.monotonic()
        if self._known is None or now - self._known_since > _SOURCES:
            self._known = known(self._using, self._queues)
            self._known_since = now
            models = sources(self._using)
            for batch in (*self._batches.values(), *self._quick_batches.values()):
                batch.routes.models = models
        return self._known

    def has_receivers(self, *, atomic: bool) -> bool:
        return any(
            queue in self._queues
            for queue, lane_atomic in (DEFAULT_LANE, *lanes())
            if lane_atomic == atomic
        )

    def batch(self, queue: str, atomic: bool) -> Batch:
        """The ``Batch`` of one lane: each lane has its own cursors."""
        lane = queue, atomic
        if lane not in self._batches:
            routes = Routes(self._using, [queue], atomic)
            self._batches[lane] = Batch(routes, self._store.prefix())
        return self._batches[lane]

    def quick_batch(self, queue: str) -> Batch:
        """The same for a transaction that is retried carefully if a call fails."""
        if queue not in self._quick_batches:
            routes = Routes(self._using, [queue], atomic=True)
            batch = Batch(routes, self._store.prefix(), Table.read_or_fail)
            self._quick_batches[queue] = batch
        return self._quick_batches[queue]
