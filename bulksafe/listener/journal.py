"""Stores the starts of batches on a separate connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulksafe.listener.watchdog import Prober, open_raw
from bulksafe.outbox.queries import query

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from bulksafe.listener.watchdog import Watchdog
    from bulksafe.outbox.cursors import Cursor


class DatabaseJournal:
    """Stores the start of a batch before its first call.

    The batch's own transaction cannot do it: it rolls back when the process dies. The journal need
    not survive a server crash, since no call causes one.

    Args:
        using: the database.
        watchdog: monitors the connection, and shuts it down together with the worker's.
    """

    def __init__(self, using: str, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._connection: psycopg.Connection[Any] = open_raw(using, "bulksafe journal", watchdog)
        self._prober = Prober(self._connection, watchdog)

    def started(self, cursors: Sequence[Cursor]) -> None:
        """Store that the batches of these cursors begin."""
        self._run(
            query("started"),
            {
                "queues": [cursor.queue for cursor in cursors],
                "buckets": [cursor.bucket for cursor in cursors],
                "batches": [cursor.batch for cursor in cursors],
            },
        )

    def suspect(self, queue: str, bucket: int, receiver: str, seq: int, error: str) -> None:
        """Store that a batch was aborted in this call."""
        named = {"queue": queue, "bucket": bucket, "receiver": receiver, "seq": seq, "error": error}
        self._run(query("suspect"), named)

    def close(self) -> None:
        self._prober.close()

    def _run(self, text: str, parameters: dict[str, Any]) -> None:
        with self._watchdog.watch():
            self._connection.execute(text, parameters)
