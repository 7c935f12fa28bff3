"""Shuts down connections whose server does not answer."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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


@dataclass(eq=False)
class _Question:
    """A block that waits for the server, until ``deadline`` as ``time.monotonic()``."""

    deadline: float


class Watchdog:
    """A thread that detects queries without an answer.

    TCP notices a silently lost peer, but a proxy that has lost its server may keep the connection
    alive. Shutting the sockets down makes pending calls fail as if the server had closed them. It
    shuts down all of them: if one is dead, the others may hang for an unknown time.

    Attributes:
        patience: seconds that the server may take.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._monitored: list[Callable[[], Any]] = []
        self._questions: set[_Question] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bulksafe watchdog", daemon=True)
        self._thread.start()

    def monitor(self, current: Callable[[], Any]) -> None:
        """Add a connection to shut down.

        Args:
            current: returns the driver's connection, or None if there is none at the moment.
        """
        self._monitored.append(current)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Watch a block whose query the server can answer at once."""
        question = _Question(time.monotonic() + self.patience)
        self._questions.add(question)
        try:
            yield
        finally:
            self._questions.discard(question)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(min(1.0, self.patience / 4)):
            if self._has_expired():
                logger.warning(
                    "no answer from the server for %.0f s: closing the connections of this process",
                    self.patience,
                )
                for connection in self._current():
                    shut_down(connection)

    def _current(self) -> list[Any]:
        """The open connections."""
        found = [current() for current in self._monitored]
        return [connection for connection in found if connection is not None]

    def _has_expired(self) -> bool:
        """Whether an answer is overdue; it is awaited further, with a new deadline.

        A block may open its connection only after the first deadline.
        """
        now = time.monotonic()
        late = [question for question in list(self._questions) if now > question.deadline]
        for question in late:
            question.deadline = now + self.patience
        return bool(late)


class Prober:
    """A thread that tests a connection periodically.

    Only a second connection can distinguish a long statement from a lost server. If it does not
    answer either, the watchdog closes all connections of the process.

    Args:
        connection: in autocommit; other threads may use it, too.
        watchdog: monitors the process's connections.
        probe: makes a query on the connection that the server can answer at once.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        watchdog: Watchdog,
        probe: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._watchdog = watchdog
        self._probe = probe
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
                    self._probe()
            except psycopg.Error:
                return  # the next statement finds it closed


def connect(using: str, watchdog: Watchdog) -> None:
    """Open Django's connection, unless it is open, and let the watchdog monitor it."""
    connection = connections[using]
    options = connection.settings_dict.setdefault("OPTIONS", {})
    for key, value in TCP.items():
        options.setdefault(key, value)
    # Each statement of a worker must see the latest commits, even on a connection that Django
    # opened because a receiver closed the previous one.
    options["isolation_level"] = IsolationLevel.READ_COMMITTED
    # Looked up when needed: Django queries a new connection before it returns it, and opens a
    # different one after a receiver has closed this one.
    watchdog.monitor(lambda: connection.connection)
    with watchdog.watch():
        connection.ensure_connection()


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
    opened: psycopg.Connection[Any] = psycopg.connect(
        **{**TCP, **parameters},
        autocommit=True,
        # A pooler may not keep prepared statements.
        prepare_threshold=None,
    )
    watchdog.monitor(lambda: opened)
    return opened


def shut_down(connection: psycopg.Connection[Any]) -> None:
    """Make pending calls on psycopg's ``connection`` fail, in any thread."""
    # Already closed: no thread waits for it.
    with (
        suppress(psycopg.Error, OSError),
        socket.socket(fileno=os.dup(connection.pgconn.socket)) as dead,
    ):
        dead.shutdown(socket.SHUT_RDWR)
