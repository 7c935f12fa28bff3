"""Stores the starts of batches on a separate connection."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus

from bulksafe.listener.descriptors import readable
from bulksafe.listener.watchdog import Prober, open_raw
from bulksafe.outbox.queries import query

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg.pq.abc import PGresult

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
        # Held while a statement is sent, or its answer read.
        self._lock = threading.Lock()
        self._is_awaiting = False
        self._results: list[PGresult] = []
        self._prober = Prober(self._connection, watchdog, self._probe)

    @contextmanager
    def starting(self, cursors: Sequence[Cursor]) -> Iterator[None]:
        """Store, while the block runs, that the batches of these cursors begin.

        The server stores it while the worker reads the images. Waiting for the answer first would
        delay every call.
        """
        parameters = {
            "queues": [cursor.queue for cursor in cursors],
            "buckets": [cursor.bucket for cursor in cursors],
            "batches": [cursor.batch for cursor in cursors],
        }
        with self._lock:
            self._send(query("started"), parameters)
        try:
            yield
        except Exception:
            self._confirm()
            raise
        self._confirm()

    def suspect(self, queue: str, bucket: int, receiver: str, seq: int, error: str) -> None:
        """Store that a batch was aborted in this call."""
        named = {"queue": queue, "bucket": bucket, "receiver": receiver, "seq": seq, "error": error}
        with self._watchdog.watch():
            self._connection.execute(query("suspect"), named)

    def close(self) -> None:
        self._prober.close()

    def _probe(self) -> None:
        with self._lock:
            # A query can be sent only after the answer was read, and the worker is still reading
            # images: without this, a lost server would go unnoticed.
            self._receive()
            self._connection.execute("SELECT 1")

    # The raw protocol, because psycopg's execute() waits for the answer.

    def _send(self, text: str, parameters: dict[str, Any]) -> None:
        connection = self._connection
        statement = psycopg.ClientCursor(connection).mogrify(text, parameters)
        self._results = []
        self._is_awaiting = True
        connection.pgconn.send_query(statement.encode(connection.info.encoding))
        # Sends all of it: the socket's buffer is empty, because every earlier query was answered.
        connection.pgconn.flush()

    def _receive(self) -> None:
        """Read the answer, unless that was done.

        Raises:
            psycopg.OperationalError: the connection is lost.
        """
        while self._is_awaiting:
            if (result := self._result()) is not None:
                self._results.append(result)
            else:
                self._is_awaiting = False

    def _result(self) -> PGresult | None:
        """The next part of the answer; None after the last one."""
        connection = self._connection.pgconn
        # get_result() would wait while holding the interpreter's lock: no watchdog could run.
        while connection.is_busy():
            readable([connection.socket], self._watchdog.patience)
            connection.consume_input()
        return connection.get_result()

    def _confirm(self) -> None:
        """Wait until the marker is stored.

        Raises:
            psycopg.Error: it cannot be.
        """
        with self._watchdog.watch(), self._lock:
            self._receive()
        (result,) = self._results
        if result.status != ExecStatus.COMMAND_OK:
            raise error_from_result(result, self._connection.info.encoding)
