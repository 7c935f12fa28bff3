"""The starts of batches, stored on a connection of their own."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg

from bulksafe.listener.watchdog import open_raw, shut_down
from bulksafe.outbox.queries import query

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulksafe.listener.watchdog import Watchdog
    from bulksafe.outbox.store import Cursor


class DatabaseJournal:
    """Stores the start of a batch before its first call.

    The batch's own transaction cannot: what it writes is gone with the process. What is stored here
    need not survive a crash of the server, which no call has brought about.

    Its connection is tried now and then by a thread: a receiver's statement may take its time, or
    never be answered, and nothing else tells the one from the other.

    Args:
        using: the database.
        watchdog: looks after the connection, and shuts the worker's down with it.
    """

    def __init__(self, using: str, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._connection: psycopg.Connection[Any] = open_raw(using, "bulksafe journal", watchdog)
        self._lock = threading.Lock()
        self._used = time.monotonic()
        self._closed = threading.Event()
        self._prober = threading.Thread(target=self._probe, name="bulksafe prober", daemon=True)
        self._prober.start()

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
        """Store that a batch has ended in this call."""
        named = {"queue": queue, "bucket": bucket, "receiver": receiver, "seq": seq, "error": error}
        self._run(query("suspect"), named)

    def close(self) -> None:
        self._closed.set()
        self._prober.join(timeout=1)
        if self._prober.is_alive():
            shut_down(self._connection)
            self._prober.join()
        self._connection.close()

    def _run(self, text: str, parameters: dict[str, Any] | None = None) -> None:
        with self._lock, self._watchdog.watch():
            self._connection.execute(text, parameters)
            self._used = time.monotonic()

    def _probe(self) -> None:
        patience = self._watchdog.patience
        while not self._closed.wait(min(1.0, patience / 4)):
            if time.monotonic() - self._used > patience / 2:
                try:
                    self._run("SELECT 1")
                except psycopg.Error:
                    return  # whoever uses it next finds it closed
