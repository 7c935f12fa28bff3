"""Ends connections whose server does not answer."""

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

#: Seconds that the server may take to say whether there is work.
PATIENCE = 30.0
#: For libpq: how soon a peer that is gone without a word is noticed.
TCP = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
#: The settings of the server that are the same for its own end of a connection.
SERVER_TCP = (
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_keepalives_count",
    "tcp_user_timeout",
)


class Watchdog:
    """A thread that looks whether a question to the server has been open for too long.

    A peer that is gone without a word is noticed by TCP, but a proxy in between may keep the
    connection alive that has lost its other end. Shutting the sockets down makes pending calls fail
    as if the server had closed them. All of them: where one is dead, nobody can tell how long the
    others would be waited for.

    Attributes:
        patience: seconds that the server may take.
        connections: those that are shut down.
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
        """The block asks the server something that it can answer at once."""
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
    """A thread that tries a connection once in a while.

    A statement may run for long, or its answer may never come: only a second connection can tell.
    If that does not answer either, the watchdog closes all connections of the process.

    Args:
        connection: in autocommit; other threads may use it, too.
        watchdog: looks after the process's connections.
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
    """Have Django open its connection, unless it is open, and the watchdog know it."""
    connection = connections[using]
    options = connection.settings_dict.setdefault("OPTIONS", {})
    for key, value in TCP.items():
        options.setdefault(key, value)
    # Each statement of a worker has to see what is committed by then, also on a connection that
    # Django opens because a receiver has closed the one before.
    options["isolation_level"] = IsolationLevel.READ_COMMITTED
    connection.ensure_connection()
    watchdog.connections.append(connection.connection)


def open_raw(using: str, name: str, watchdog: Watchdog) -> psycopg.Connection[Any]:
    """A connection past Django, in autocommit, that the watchdog knows.

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
    """Make whatever psycopg's ``connection`` waits for fail, in whichever thread."""
    # Closed already: nobody waits for it.
    with (
        suppress(psycopg.Error, OSError),
        socket.socket(fileno=os.dup(connection.pgconn.socket)) as dead,
    ):
        dead.shutdown(socket.SHUT_RDWR)
