"""Shuts down connections whose server does not answer."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from django.db import connections
from psycopg import IsolationLevel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger("bulksafe")

#: Seconds that the server may take to answer the query for work.
PATIENCE = 30.0
#: For libpq: the time until a silently lost peer is noticed.
TCP = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
#: The corresponding server settings for its end of a connection.
SERVER_TCP = (
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_keepalives_count",
    "tcp_user_timeout",
)


class Watchdog:
    """A thread that detects queries without an answer.

    TCP notices a silently lost peer, but a proxy that has lost its server may keep the connection
    alive. Shutting the sockets down makes pending calls fail as if the server had closed them. It
    shuts down all of them: if one is dead, the others may hang for an unknown time.

    Attributes:
        patience: seconds that the server may take.
        connections: the connections to shut down.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        self.connections: list[Any] = []
        self._deadlines: dict[object, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bulksafe watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Watch a block whose query the server can answer at once."""
        question = object()
        self._deadlines[question] = time.monotonic() + self.patience
        try:
            yield
        finally:
            self._deadlines.pop(question, None)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(min(1.0, self.patience / 4)):
            if any(time.monotonic() > end for end in list(self._deadlines.values())):
                self._deadlines.clear()
                logger.warning("no answer from the server for %.0f s", self.patience)
                for connection in self.connections:
                    shut_down(connection)


class Prober:
    """A thread that tests a connection periodically.

    Only a second connection can distinguish a long statement from a lost server. If it does not
    answer either, the watchdog closes all connections of the process.

    Args:
        connection: in autocommit; other threads may use it, too.
        watchdog: monitors the process's connections.
        probed: called after each probe.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        watchdog: Watchdog,
        probed: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._watchdog = watchdog
        self._probed = probed
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bulksafe prober", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and the connection."""
        self._closed.set()
        self._thread.join(timeout=1)
        if self._thread.is_alive():
            shut_down(self._connection)
            self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while not self._closed.wait(self._watchdog.patience / 2):
            try:
                with self._watchdog.watch():
                    self._connection.execute("SELECT 1")
            except psycopg.Error:
                return  # the next statement finds it closed
            self._probed()


def connect(using: str, watchdog: Watchdog) -> None:
    """Open Django's connection, unless it is open, and add it to the watchdog."""
    connection = connections[using]
    options = connection.settings_dict.setdefault("OPTIONS", {})
    for key, value in TCP.items():
        options.setdefault(key, value)
    # Each statement of a worker must see the latest commits, even on a connection that Django
    # opened because a receiver closed the previous one.
    options["isolation_level"] = IsolationLevel.READ_COMMITTED
    connection.ensure_connection()
    watchdog.connections.append(connection.connection)


def open_raw(using: str, name: str, watchdog: Watchdog) -> psycopg.Connection[Any]:
    """A raw driver connection in autocommit, monitored by the watchdog.

    Args:
        name: its ``application_name``.
    """
    parameters = {
        key: value
        for key, value in connections[using].get_connection_params().items()
        if key not in ("cursor_factory", "context", "prepare_threshold", "isolation_level")
    }
    parameters["application_name"] = name
    opened: psycopg.Connection[Any] = psycopg.connect(**{**TCP, **parameters}, autocommit=True)
    watchdog.connections.append(opened)
    return opened


def shut_down(connection: psycopg.Connection[Any]) -> None:
    """Make pending calls on psycopg's ``connection`` fail, in any thread."""
    # Already closed: no thread waits for it.
    with (
        suppress(psycopg.Error, OSError),
        socket.socket(fileno=os.dup(connection.pgconn.socket)) as dead,
    ):
        dead.shutdown(socket.SHUT_RDWR)
